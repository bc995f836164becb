"""Lua scripts: what must be checked and done with nothing in between. Each may be run twice.

A claim is `owner` ("NODE:FENCE", with the lease as its time to live) and `fence`, the newest token given.
A token is greater than every earlier one, also of a Redis that has lost its data: it is not below Redis' time
in milliseconds. Numbers stay below 2^53, so Lua's doubles hold them.
"""

from __future__ import annotations

from streamsvc.cluster.redis_client import Script

OK, HOLE, FENCED = 0, 1, 2  # what a write found

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Whether a session is ours to write: KEYS owner, fence; ARGV owner, token, lease ms, keep ms. Where the lease
# has run out, or Redis has lost it, and nobody has claimed the session since, it is taken up again.
_HELD = f"""
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then
  local fence = redis.call('GET', KEYS[2])
  if held or (fence and fence ~= ARGV[2]) then return {{{FENCED}, 0, 0}} end
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
end
"""

_NEWEST = """
local function newest(key)
  local found = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  return found[1] and tonumber(string.match(found[1][1], '^%d+')) or 0
end
"""

_ADD = """
local function add(key, id, at, most)
  local row = {'XADD', key, 'MAXLEN', '~', most, id, 'type', ARGV[at], 'json', ARGV[at + 2]}
  if ARGV[at + 1] ~= '' then
    row[#row + 1] = 'audience'
    row[#row + 1] = string.sub(ARGV[at + 1], 2)
  end
  redis.call(unpack(row))
end
"""

# KEYS owner, fence, meta; ARGV node, lease ms, keep ms. Returns {1, token, run, renewed, behind} or
# {0, owner}.
CLAIM = Script(
    _NOW
    + """
local held = redis.call('GET', KEYS[1])
if held then return {0, held} end
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now)
local written = string.format('%.0f', token)
redis.call('SET', KEYS[2], written, 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. written, 'PX', ARGV[2])
local seen = redis.call('HMGET', KEYS[3], 'run', 'renewed', 'behind')
return {1, written, seen[1] or '', seen[2] or '', seen[3] or ''}
"""
)

# KEYS owner, fence, meta, log, followed, and others that live as long; ARGV as _HELD's, run. Returns
# {OK, newest seq, whether somebody follows} or {FENCED, 0, 0}.
RENEW = Script(
    _NOW
    + _NEWEST
    + _HELD
    + f"""
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('HSET', KEYS[3], 'run', ARGV[5], 'renewed', string.format('%.0f', now))
for at = 2, #KEYS do
  if at ~= 5 then redis.call('PEXPIRE', KEYS[at], ARGV[4]) end
end
return {{{OK}, newest(KEYS[4]), redis.call('EXISTS', KEYS[5])}}
"""
)

# KEYS owner, fence, log; ARGV as _HELD's, most rows, seq that Redis must have, then seq, type, audience
# ("" none, "=NAME"), JSON of each row. Rows that Redis has are left out. Returns {OK or HOLE, newest seq, 0}.
APPEND = Script(
    _NEWEST
    + _ADD
    + _HELD
    + f"""
local last = newest(KEYS[3])
if last < tonumber(ARGV[6]) then return {{{HOLE}, last, 0}} end
for at = 7, #ARGV, 4 do
  local seq = tonumber(ARGV[at])
  if seq > last then
    add(KEYS[3], ARGV[at] .. '-0', at + 1, ARGV[5])
    last = seq
  end
end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return {{{OK}, last, 0}}
"""
)

# KEYS owner, fence, live; ARGV as _HELD's, most rows, then type, audience, JSON of each ephemeral row.
LIVE = Script(
    _ADD
    + _HELD
    + f"""
for at = 6, #ARGV, 3 do add(KEYS[3], '*', at, ARGV[5]) end
redis.call('PEXPIRE', KEYS[3], 60000)
return {{{OK}, 0, 0}}
"""
)

# KEYS owner, fence, times, frames; ARGV as _HELD's, most frames, session seconds, JPEG.
FRAME = Script(
    _HELD
    + f"""
redis.call('HSET', KEYS[4], ARGV[6], ARGV[7])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[6])
local over = redis.call('ZCARD', KEYS[3]) - ARGV[5]
if over > 0 then
  redis.call('HDEL', KEYS[4], unpack(redis.call('ZRANGE', KEYS[3], 0, over - 1)))
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, over - 1)
end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
redis.call('PEXPIRE', KEYS[4], ARGV[4])
return {{{OK}, 0, 0}}
"""
)

# KEYS owner, fence, a hash; ARGV as _HELD's, then names and values.
FACTS = Script(
    _HELD
    + f"""
for at = 5, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1]) end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return {{{OK}, 0, 0}}
"""
)

# KEYS owner, fence, questions, their names in order; ARGV as _HELD's, most questions, name, value.
QUESTION = Script(
    _HELD
    + f"""
if redis.call('HSET', KEYS[3], ARGV[6], ARGV[7]) == 1 then redis.call('RPUSH', KEYS[4], ARGV[6]) end
while redis.call('LLEN', KEYS[4]) > tonumber(ARGV[5]) do
  redis.call('HDEL', KEYS[3], redis.call('LPOP', KEYS[4]))
end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
redis.call('PEXPIRE', KEYS[4], ARGV[4])
return {{{OK}, 0, 0}}
"""
)

# KEYS owner; ARGV owner.
RELEASE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
""")

# KEYS nodes; ARGV name, instance, record, lease ms. Returns 0 where another process has the name. A record
# stands behind the time of its heartbeat, in Redis' milliseconds.
JOIN = Script(
    _NOW
    + """
local found = redis.call('HGET', KEYS[1], ARGV[1])
if found then
  local beat, record = string.match(found, '^(%d+) (.*)$')
  local lives = now - tonumber(beat) < tonumber(ARGV[4])
  if lives and cjson.decode(record)['instance'] ~= ARGV[2] then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[3])
return 1
"""
)

# KEYS nodes; ARGV name, instance.
LEAVE = Script("""
local found = redis.call('HGET', KEYS[1], ARGV[1])
local record = found and string.match(found, '^%d+ (.*)$')
if record and cjson.decode(record)['instance'] == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
""")
