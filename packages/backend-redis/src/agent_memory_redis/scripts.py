"""Scripts that the server runs in one step: conditional writes, and reading many hashes at once.

Sent whole each time (EVAL): that costs the server less than a microsecond's worth of parsing beside
the indexing of a vector, and nothing has to be loaded into a new server first. Every key that a
script touches is named in KEYS; on a cluster a call names one.

A scope is given as the tag tokens that a record inside it has: their number, then the tokens.
"""

_INSIDE = """
local scope_end = 1 + tonumber(ARGV[1])
local function inside(key)
  if scope_end == 1 then return true end
  local tags = ',' .. redis.call('HGET', key, 'tags') .. ','
  for i = 2, scope_end do
    if not string.find(tags, ',' .. ARGV[i] .. ',', 1, true) then return false end
  end
  return true
end
"""

PUT = (
    _INSIDE
    + """
local taken = {}
for number, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 and not inside(key) then table.insert(taken, number) end
end
if #taken > 0 then return taken end
local at = scope_end + 1
for _, key in ipairs(KEYS) do
  local count = tonumber(ARGV[at])
  redis.call('HSET', key, unpack(ARGV, at + 1, at + count))
  at = at + 1 + count
end
return taken
"""
)
"""Writes all records, or none if some are held by records outside the scope; their numbers.

After the scope: for each key the number of its fields' names and values, and these.
"""

REPLACE = (
    _INSIDE
    + """
local digest = ARGV[scope_end + 1]
if redis.call('EXISTS', KEYS[1]) == 0 or not inside(KEYS[1]) then return 0 end
if digest ~= '' and redis.call('HGET', KEYS[1], 'digest') ~= digest then return 2 end
redis.call('HSET', KEYS[1], unpack(ARGV, scope_end + 2))
return 1
"""
)
"""Writes one record if it exists inside the scope: 1; 0 if not; 2 if its text is another one.

After the scope: the digest that the stored text must have, or nothing, then names and values.
"""

REMOVE = (
    _INSIDE
    + """
if redis.call('EXISTS', KEYS[1]) == 0 or not inside(KEYS[1]) then return 0 end
return redis.call('UNLINK', KEYS[1])
"""
)
"""Deletes one record if it exists inside the scope; how many that was."""

READ = """
local values = {}
for number, key in ipairs(KEYS) do values[number] = redis.call('HGET', key, ARGV[1]) end
return values
"""
"""Reads one field of every key: one command for the client to send, and one reply to read."""

FINISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
"""Replaces a value if it is the one that is expected: 1; 0 if it is another."""

TOUCH = """
local payload = redis.call('HGET', KEYS[1], 'payload')
if payload then redis.call('HSET', KEYS[1], 'payload', payload) end
"""
"""Makes the indexes look at a record, if there is one, as if it were just written."""
