dofile("/bench/post.lua")
-- About 2,000 requests a second over 64 connections.
function delay()
  return 30
end
