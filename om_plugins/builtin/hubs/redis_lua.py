"""The Lua scripts of the Redis hub: each is one atomic step. Times are those of the server.

Message ids and fencing tokens come from one key that only grows: microseconds since the Unix epoch,
or the last number plus one if that is larger. So they grow even after the server lost its data. A
number that is eleven days ahead was not written by a hub and is ignored.
"""

from __future__ import annotations

_NEXT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
if not (last >= 0 and last < now + 1e12) then last = 0 end
local number = string.format('%.0f', math.max(now, last + 1))
"""

PUBLISH = (
    _NEXT
    + """
-- KEYS: last number, stream. ARGV: data, most messages, longest age in seconds
local function add()
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], number .. '-0', 'd', ARGV[1])
end
local added = add()
if type(added) == 'table' and added.err then
  -- a stream of the future, or no stream at all: nothing that a reader of ours could go on with
  if not (string.find(added.err, 'smaller') or string.find(added.err, 'WRONGTYPE')) then
    return added
  end
  redis.call('DEL', KEYS[2])
  added = add()
  if type(added) == 'table' and added.err then return added end
end
redis.call('SET', KEYS[1], number)
redis.call('XTRIM', KEYS[2], 'MINID', '~', string.format('%.0f', now - ARGV[3] * 1000000))
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[3] * 1000))
return number
"""
)

READ = """
-- KEYS: stream. ARGV: after this number, most messages, longest age in seconds
local time = redis.call('TIME')
local oldest = (time[1] - ARGV[3]) * 1000000 + time[2]
local first = string.format('%.0f', math.max(ARGV[1] + 1, oldest))
return redis.call('XRANGE', KEYS[1], first, '+', 'COUNT', ARGV[2])
"""

PUT = """
-- KEYS: value, names, ends. ARGV: name, data, milliseconds
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[3]), ARGV[1])
local over = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100)
if #over > 0 then
  redis.call('ZREM', KEYS[2], unpack(over))
  redis.call('ZREM', KEYS[3], unpack(over))
end
"""

REMOVE = """
-- KEYS: value, names, ends. ARGV: name
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
"""

SCAN = """
-- KEYS: names. ARGV: beginning of values' keys, from, to, most names, longest value
local names = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
local values = {}
for index, name in ipairs(names) do
  local value = redis.pcall('GETRANGE', ARGV[1] .. name, 0, ARGV[5])
  values[index] = type(value) == 'string' and value or ''
end
return {names, values}
"""

COUNT = """
-- KEYS: counter. ARGV: amount, milliseconds
local value = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(value) ~= 'number' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return tonumber(ARGV[1])
end
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return value
"""

LEASE = (
    _NEXT
    + """
-- KEYS: last number, lease. ARGV: milliseconds
if not redis.call('SET', KEYS[2], number, 'NX', 'PX', ARGV[1]) then return false end
redis.call('SET', KEYS[1], number)
return number
"""
)

RENEW = """
-- KEYS: lease. ARGV: token, milliseconds
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

RELEASE = """
-- KEYS: lease. ARGV: token
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
