export const COLORS = ["blue", "green"] as const;
export type Color = (typeof COLORS)[number];

/** Is this text exactly the name of a color? */
export const isColor = (text: string | undefined): text is Color => COLORS.some((color) => color === text);

/** Spec `get_inactive_color`: the other color. */
export const getInactiveColor = (active: Color): Color => (active === "blue" ? "green" : "blue");
