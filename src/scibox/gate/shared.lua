-- The limits that nodes share, on the server: one call of this script is one atomic operation.
--
-- KEYS[1]: the prefix of all keys. ARGV[1]: the operation. ARGV[2]: its arguments in MessagePack; the first two
-- are the node and its incarnation: a node that is not known by that incarnation (the server was flushed, the node
-- was taken for dead, or this is an order that was stuck in an old connection) is answered {2}, and nothing is done.
--
-- Keys, each with a time to live:
--   meta               clock, epoch, and of each node: its incarnation, its last settle, its last batch
--   nodes              when each node was last heard of
--   w:FIELD:SUBJECT    a window: units by cell, and their sum in "s"; the cells in order in ...:o
--   flight             calls in flight by subject
--   q:PERIOD:SUBJECT   a quota: "u" used by calls that have ended, "r" reserved for those that run
--   held:NODE          what of flight ("f:SUBJECT") and of reserved quotas ("q:KEY") is this node's: its lease
--
-- Time is in microseconds and never steps: it goes on by what the server's clock went on, none if that stepped back
-- and two seconds at most (nodes beat every second), so that a step neither opens a window nor blocks it for long.

local P = KEYS[1]
local op, a = ARGV[1], cmsgpack.unpack(ARGV[2])
local call = redis.call

local CELLS = 1000
local CELL_US = {1000, 60000, 60000, 60000} -- calls a second; calls, LLM tokens, texts a minute
local TTL_MS = {3000, 65000, 65000, 65000}
local GAP_US = 2000000
local DEAD_US = 10000000 -- ten missed beats
local DAY_MS = 86400000
local POLL_US = 200000 -- until a limit that ends of calls free is asked again
local NEVER = -1

local node = a[1]
local time = call('TIME')
local real = time[1] * 1000000 + time[2]
local meta = call('HMGET', P .. 'meta', 'real', 'now', 'inc:' .. node)
local now = real
if meta[1] then
  now = meta[2] + math.min(math.max(real - meta[1], 0), GAP_US)
end
call('HSET', P .. 'meta', 'real', real, 'now', now)

local function window(field, name)
  return P .. 'w:' .. field .. ':' .. name
end

-- The sum of a window, after its passed cells are forgotten.
local function used(field, name)
  local key = window(field, name)
  local order = key .. ':o'
  local oldest = math.floor(now / CELL_US[field]) - CELLS
  local head = call('ZRANGE', order, 0, 0)[1]
  if not head then
    call('DEL', key) -- a sum without its order (that was evicted) would never pass
    return 0
  end
  local sum = tonumber(call('HGET', key, 's') or 0)
  while head and tonumber(head) < oldest do
    local passed = call('ZRANGEBYSCORE', order, '-inf', '(' .. oldest, 'LIMIT', 0, 200)
    for _, units in ipairs(call('HMGET', key, unpack(passed))) do
      sum = sum - (tonumber(units or 0))
    end
    call('HDEL', key, unpack(passed))
    call('ZREM', order, unpack(passed))
    call('HSET', key, 's', sum)
    head = call('ZRANGE', order, 0, 0)[1]
  end
  return sum
end

-- After `used`.
local function add(field, name, cell, units)
  local key = window(field, name)
  call('HINCRBY', key, 's', units)
  if call('HINCRBY', key, cell, units) == units then
    call('ZADD', key .. ':o', cell, cell)
    call('PEXPIRE', key, TTL_MS[field])
    call('PEXPIRE', key .. ':o', TTL_MS[field])
  end
end

-- Where it was taken; what is not there (a node whose idea of the time was wrong had it put into an older cell) from
-- the next older ones, which pass first: so no limit opens early. No cell holds less than nothing.
local function give_back(field, name, cell, units)
  local key = window(field, name)
  local order = key .. ':o'
  if cell < math.floor(now / CELL_US[field]) - CELLS then
    return -- it has passed, and nothing of it counts any more
  end
  local function take_from(from, has)
    local some = math.min(units, has)
    if some > 0 then
      call('HINCRBY', key, from, -some)
      call('HINCRBY', key, 's', -some)
      units = units - some
    end
  end
  take_from(cell, tonumber(call('HGET', key, cell) or 0))
  if units == 0 then
    return
  end
  used(field, name) -- forgets those that have passed
  local from = 0
  while units > 0 do
    local older = call('ZREVRANGEBYSCORE', order, '(' .. cell, '-inf', 'LIMIT', from, 100)
    if #older == 0 then
      return
    end
    for i, has in ipairs(call('HMGET', key, unpack(older))) do
      take_from(older[i], tonumber(has or 0))
    end
    from = from + 100
  end
end

local function passes(field, cell)
  return (cell + CELLS + 1) * CELL_US[field] - now + 100
end

-- Microseconds until so many units more than fit have passed.
local function wait(field, name, excess)
  local key, from = window(field, name), 0
  while true do
    local cells = call('ZRANGE', key .. ':o', from, from + 99)
    if #cells == 0 then
      return POLL_US -- its sum was evicted: it is right again after the next take
    end
    for i, units in ipairs(call('HMGET', key, unpack(cells))) do
      excess = excess - tonumber(units or 0)
      if excess <= 0 then
        return passes(field, tonumber(cells[i]))
      end
    end
    from = from + 100
  end
end

local function count(key, what, by)
  local n = call('HINCRBY', P .. key, what, by)
  if n <= 0 then
    call('HDEL', P .. key, what)
  elseif n == by then -- perhaps the first of that key
    call('PEXPIRE', P .. key, 2 * DAY_MS)
  end
end

local function flight(name, by, is_own)
  count('flight', name, by)
  if is_own then
    count('held:' .. node, 'f:' .. name, by)
  end
end

local function reserve(key, by, is_own)
  if call('HINCRBY', P .. 'q:' .. key, 'r', by) < 0 then
    call('HSET', P .. 'q:' .. key, 'r', 0)
  end
  if is_own then
    count('held:' .. node, 'q:' .. key, by)
  end
  call('PEXPIRE', P .. 'q:' .. key, (string.sub(key, 1, 1) == 'd' and 3 or 40) * DAY_MS)
end

-- At least so much of a quota is used.
local function seed(key, units)
  if units > tonumber(call('HGET', P .. 'q:' .. key, 'u') or 0) then
    call('HSET', P .. 'q:' .. key, 'u', units)
  end
end

-- End the lease of a node.
local function release(of)
  local held = call('HGETALL', P .. 'held:' .. of)
  for i = 1, #held, 2 do
    local kind, name = string.sub(held[i], 1, 2), string.sub(held[i], 3)
    if kind == 'f:' then
      flight(name, 0 - held[i + 1], false) -- -0 is no integer to the server
    else
      reserve(name, 0 - held[i + 1], false)
    end
  end
  call('DEL', P .. 'held:' .. of)
end

-- For each limit that there is: what remains, and microseconds until all of it is back.
local function left(subjects, periods)
  local found = {}
  for _, s in ipairs(subjects) do
    for field = 1, 4 do
      local amount = s[field + 1]
      if amount >= 0 then
        local sum, reset = used(field, s[1]), 0
        if sum > 0 then
          local key = window(field, s[1])
          for _, cell in ipairs(call('ZREVRANGE', key .. ':o', 0, 99)) do
            if tonumber(call('HGET', key, cell) or 0) > 0 then
              reset = passes(field, tonumber(cell))
              break
            end
          end
        end
        found[#found + 1] = {math.max(0, amount - sum), reset}
      end
    end
    if s[6] >= 0 then
      found[#found + 1] = {math.max(0, s[6] - tonumber(call('HGET', P .. 'flight', s[1]) or 0)), 0}
    end
    for p = 1, 2 do
      if s[p + 6] >= 0 then
        local of = call('HMGET', P .. 'q:' .. periods[p] .. ':' .. s[1], 'u', 'r')
        found[#found + 1] = {math.max(0, s[p + 6] - tonumber(of[1] or 0) - tonumber(of[2] or 0)), NEVER}
      end
    end
  end
  return found
end

local function beat()
  call('ZADD', P .. 'nodes', now, node)
  for _, dead in ipairs(call('ZRANGEBYSCORE', P .. 'nodes', '-inf', now - DEAD_US)) do
    release(dead)
    call('ZREM', P .. 'nodes', dead)
    call('HDEL', P .. 'meta', 'inc:' .. dead)
  end
  for _, key in ipairs({'meta', 'nodes', 'flight', 'held:' .. node}) do
    call('PEXPIRE', P .. key, 2 * DAY_MS)
  end
  return call('ZCARD', P .. 'nodes')
end

local ops = {}

-- epoch -> now, epoch, when it began, last settle, nodes
function ops.hello()
  if call('HSETNX', P .. 'meta', 'epoch', a[3]) == 1 then
    call('HSET', P .. 'meta', 'born', now)
  end
  call('HSET', P .. 'meta', 'inc:' .. node, a[2])
  local nodes = beat()
  local known = call('HMGET', P .. 'meta', 'epoch', 'born', 'seq:' .. node)
  return {1, now, known[1], tonumber(known[2]), tonumber(known[3] or 0), nodes}
end

function ops.beat()
  return {1, now, beat()}
end

function ops.bye()
  release(node)
  call('ZREM', P .. 'nodes', node)
  call('HDEL', P .. 'meta', 'inc:' .. node, 'seq:' .. node, 'batch:' .. node)
  return {1, now}
end

-- tokens, texts, day, month, subjects {name, limits ...} -> 1, now, {subject, period, used} ..., what is left
-- or 0, now, subject, limit, microseconds, is final: of what blocks longest
function ops.take()
  local tokens, texts, day, month, subjects = a[3], a[4], a[5], a[6], a[7]
  local units = {1, 1, tokens, texts}
  local periods = {day, month}
  local worst, quotas = nil, {}
  local function block(subject, limit, us, final)
    local gravity = (us == NEVER and 1e18 or us) + (final and 1e19 or 0)
    if not worst or gravity > worst.gravity then
      worst = {gravity = gravity, reply = {0, now, subject - 1, limit - 1, us, final}}
    end
  end
  for i, s in ipairs(subjects) do
    for field = 1, 4 do
      local amount, n = s[field + 1], units[field]
      if amount >= 0 and n > 0 then
        if amount == 0 then
          block(i, field, NEVER, true)
        else
          local excess = used(field, s[1]) + math.min(n, amount) - amount
          if excess > 0 then
            block(i, field, wait(field, s[1], excess), false)
          end
        end
      end
    end
    if s[6] == 0 then
      block(i, 5, NEVER, true)
    elseif s[6] > 0 and tonumber(call('HGET', P .. 'flight', s[1]) or 0) >= s[6] then
      block(i, 5, POLL_US, false)
    end
    for p = 1, 2 do
      local amount = s[p + 6]
      if amount >= 0 then
        local of = call('HMGET', P .. 'q:' .. periods[p] .. ':' .. s[1], 'u', 'r')
        local spent = tonumber(of[1] or 0)
        quotas[#quotas + 1] = {i - 1, p - 1, spent}
        if spent >= amount then
          block(i, p + 5, NEVER, true)
        elseif spent + tonumber(of[2] or 0) >= amount then
          block(i, p + 5, POLL_US, false)
        end
      end
    end
  end
  if worst then
    return worst.reply
  end
  for _, s in ipairs(subjects) do
    for field = 1, 4 do
      if s[field + 1] > 0 and units[field] > 0 then
        add(field, s[1], math.floor(now / CELL_US[field]), math.min(units[field], s[field + 1]))
      end
    end
    if s[6] >= 0 then
      flight(s[1], 1, true)
    end
    for p = 1, 2 do
      if s[p + 6] >= 0 then
        reserve(periods[p] .. ':' .. s[1], tokens, true)
      end
    end
  end
  return {1, now, quotas, left(subjects, periods)}
end

-- number, windows {field, subject, cell, reserved, used}, flights {subject}, quotas {key, reserved, used}
function ops.settle()
  for _, w in ipairs(a[4]) do
    if w[5] < w[4] then
      give_back(w[1], w[2], w[3], w[4] - w[5])
    elseif w[5] > w[4] then
      used(w[1], w[2])
      add(w[1], w[2], math.floor(now / CELL_US[w[1]]), w[5] - w[4])
    end
  end
  for _, name in ipairs(a[5]) do
    flight(name, -1, true)
  end
  for _, q in ipairs(a[6]) do
    reserve(q[1], 0 - q[2], true)
    call('HINCRBY', P .. 'q:' .. q[1], 'u', q[3])
  end
  call('HSET', P .. 'meta', 'seq:' .. node, a[3])
  return {1, now}
end

-- quotas {key, used}
function ops.seed()
  for _, q in ipairs(a[3]) do
    seed(q[1], q[2])
    reserve(q[1], 0, false)
  end
  return {1, now}
end

-- What a node has done by itself. number of the batch, quotas {key, at least used, used since},
-- windows {field, subject, cell, units}, lease (false, or flights {subject, n} and quotas {key, n}: all it holds)
function ops.push()
  if a[3] > tonumber(call('HGET', P .. 'meta', 'batch:' .. node) or 0) then
    for _, q in ipairs(a[4]) do
      seed(q[1], q[2])
      call('HINCRBY', P .. 'q:' .. q[1], 'u', q[3])
      reserve(q[1], 0, false)
    end
    for _, w in ipairs(a[5]) do
      local present = math.floor(now / CELL_US[w[1]])
      if w[4] < 0 then
        give_back(w[1], w[2], w[3], -w[4])
      elseif w[3] >= present - CELLS then
        used(w[1], w[2])
        add(w[1], w[2], math.min(w[3], present + 1), w[4]) -- +1: it is told as of the end of a node's own cell
      end
    end
    call('HSET', P .. 'meta', 'batch:' .. node, a[3])
  end
  if a[6] then
    release(node)
    for _, f in ipairs(a[6][1]) do
      flight(f[1], f[2], true)
    end
    for _, q in ipairs(a[6][2]) do
      reserve(q[1], q[2], true)
    end
  end
  return {1, now}
end

-- day, month, subjects
function ops.left()
  return {1, now, left(a[5], {a[3], a[4]})}
end

if op ~= 'hello' and meta[3] ~= tostring(a[2]) then
  return cmsgpack.pack({2})
end
return cmsgpack.pack(ops[op]())
