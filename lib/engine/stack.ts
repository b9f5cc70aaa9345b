import type { Color } from "../color.ts";
import type { Container } from "../docker/container.ts";
import { authOf } from "../docker/names.ts";
import type { Context } from "../run/context.ts";
import { engineOf } from "./engine.ts";

/** nginx and both colors. */
type Stack = Record<Color | "nginx", Container>;

/** Inspects nginx, both colors and auth. Throws DockerError. */
export const inspectServices = (context: Context): Promise<Stack & { auth: Container }> =>
  engineOf(context).inspectColors(context, {
    nginx: context.settings.nginxContainer,
    auth: authOf(context),
  });

/** The same without auth. Throws DockerError. */
export const inspectStack = (context: Context): Promise<Stack> =>
  engineOf(context).inspectColors(context, { nginx: context.settings.nginxContainer });
