-- As wrk.lua; the first request of each connection comes behind a PROXY header. Argument: how many connections announce
-- their clients so, 0 for none.
local here = debug.getinfo(1, "S").source:match("@?(.*/)")
dofile(here .. "wrk.lua")

local asked, connections

function init(args)
   asked, connections = 0, tonumber(args[1])
end

-- wrk asks once more at first, to parse the request itself.
function request()
   asked = asked + 1
   local get = wrk.format("GET", nil)
   if asked > 1 and asked <= connections + 1 then
      return "PROXY TCP4 192.0.2.1 127.0.0.1 51234 80\r\n" .. get
   end
   return get
end
