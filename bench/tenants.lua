-- wrk asks for one of many hosts, chosen at random for each request. Argument: how many, host0.bench and on.
local here = debug.getinfo(1, "S").source:match("@?(.*/)")
dofile(here .. "wrk.lua")

local requests = {}

function init(args)
   -- The same sequence in each run.
   math.randomseed(1)
   for number = 0, tonumber(args[1]) - 1 do
      requests[#requests + 1] = wrk.format("GET", nil, { Host = string.format("host%d.bench", number) })
   end
end

function request()
   return requests[math.random(#requests)]
end
