-- wrk's script: POST /process-ticket, each request with the next ticket.
--   wrk … -s tickets.lua URL -- FIRST REPEAT BLOCK IDS_ONLY
-- The tickets come in blocks; each block is sent REPEAT times before the next one. So REPEAT 1 is fresh tickets only,
-- BLOCK 1 the duplicates of one ticket at once, and a large BLOCK its duplicates one after the other.
local text = "No puedo entrar en mi cuenta desde ayer: cambio la clave, la acepta y al volver me dice que no es válida. Caso "
local headers = { ["content-type"] = "application/json" }
local first, copies, block, ids_only
local sent = 0

function init(args)
  first, copies, block, ids_only = tonumber(args[1]), tonumber(args[2]), tonumber(args[3]), args[4] == "true"
end

function request()
  local round = block * copies
  local number = first + math.floor(sent / round) * block + sent % round % block
  sent = sent + 1
  -- As ticket_id() of the template database. Exact in a double up to four million tickets.
  local id = string.format("%08x-0000-4000-8000-%012x", number * 2246822519 % 4294967296, number)
  local body = ids_only and string.format('{"id":"%s"}', id)
    or string.format('{"id":"%s","description":"%s%d"}', id, text, number)
  return wrk.format("POST", nil, headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nJSON {"requests":%d,"microseconds":%d,"p50":%.3f,"p99":%.3f,"max":%.3f,"statuses":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
