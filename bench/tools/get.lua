dofile("/bench/report.lua")
wrk.path = "/health"
