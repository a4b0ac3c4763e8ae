"""The script that does every step, and the keys that it works on.

`singleton-run:{NAME}:lock`     hash of the holder; its expiry is the lease's end, by the server's clock
`singleton-run:{NAME}:token`    the last fencing token, for ever
`singleton-run:{NAME}:record`   hash: the record, and the token that was given back last, for ever
`singleton-run:{NAME}:control`  hash: what people ask of the lock, and its version, for ever
`singleton-run:{NAME}:queue`    sorted set of who waits, by the time of arrival
`singleton-run:{NAME}:waiters`  hash: when the place of each of them lapses, and whether it listens; both of
                                these expire with the last place
`singleton-run:{NAME}:once`     hash of the marks, for ever

The braces keep all keys of a lock in one slot of a cluster. On the channel `singleton-run:{NAME}:wake` all
are woken who wait or hold, on `singleton-run:{NAME}:wake:HOLDER` one of them.
"""

from __future__ import annotations

PREFIX = "singleton-run:{"
_PARTS = ("lock", "token", "record", "control", "queue", "waiters", "once")
_OF_A_LOCK = ("lock", "record", "control")

# ARGV: the operation; the time from which on it must change nothing, in µs by the server's clock ('' for one
# that only looks); the holder; the rest by operation. The first value of each answer is the server's clock in
# µs, as a text, because Lua's numbers would lose digits; the second says how it went.
_COMMON = """
local lock, token, record, control, queue, waiters, once = unpack(KEYS)
local op, not_after, me = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function text(number) return string.format('%.0f', number) end
-- What was stored as a number; 0 for anything else, and for `nan`, which is not even equal to itself.
local function number(stored)
    local found = tonumber(stored or '')
    return found == found and found or 0
end
local clock = text(now)
local wake = string.sub(lock, 1, -5) .. 'wake'
local patience = 5000000

if not_after and now >= not_after then return {clock, 'late'} end

local held = redis.call('HMGET', lock, 'holder', 'token', 'generation', 'since', 'kept')
local holder, kept = held[1], held[5]

local function drop(id)
    redis.call('ZREM', queue, id)
    redis.call('HDEL', waiters, id)
end

-- A server that tracks what we read forgets a key that we change, so it is read again after each change.
local function watch() redis.call('PTTL', lock) end

-- The end of somebody's place, and whether it is new, listens or is gone; nil without one.
local function place(id)
    local found = redis.call('HGET', waiters, id)
    if not found then return nil end
    local lapse, state = string.match(found, '^(%d+) (%a)$')
    return lapse and tonumber(lapse), state
end

local function put(id, lapse, state)
    redis.call('HSET', waiters, id, text(lapse) .. ' ' .. state)
end

-- Wake the first waiter that listens. Returns the first whose turn it is, and when its place lapses. One that
-- doesn't listen any more is passed over, and one that is too new to listen will look by itself: then the one
-- behind it is woken too. Nobody is woken where it is the caller's own turn.
local function wake_next()
    local at, first, first_lapse = 0, nil, nil
    while true do
        local id = redis.call('ZRANGE', queue, at, at)[1]
        if not id then return first, first_lapse end
        local lapse, state = place(id)
        if not lapse or lapse <= now then
            drop(id)
        elseif id == me then
            return first or me, first_lapse or lapse
        elseif state == 'g' then
            at = at + 1
        elseif redis.call('PUBLISH', wake .. ':' .. id, '') > 0 then
            lapse = math.min(lapse, now + patience)
            put(id, lapse, state)
            return first or id, first_lapse or lapse
        elseif state == 'l' then
            put(id, lapse, 'g')
            at = at + 1
        else
            first, first_lapse = first or id, first_lapse or lapse
            at = at + 1
        end
    end
end

local function free()
    redis.call('DEL', lock)
    holder = false
    wake_next()
end
"""

_TAKING = """
-- ARGV: the ttl in ms. In a quorum also the time of arrival, and the token that is asked for: both are the
-- same on all its servers.
local function queue_up(ttl, listens)
    local lapse, state = place(me)
    if not redis.call('ZSCORE', queue, me) then redis.call('ZADD', queue, ARGV[5] or clock, me) end
    if listens or state == 'l' then
        put(me, now + ttl * 1000, 'l')
    else
        put(me, now + math.min(ttl * 1000, patience), 'n')
    end
    for _, key in ipairs({queue, waiters}) do
        if redis.call('PTTL', key) < ttl + 1000 then redis.call('PEXPIRE', key, ttl + 1000) end
    end
end

if op == 'take' or op == 'stand' then
    local ttl = tonumber(ARGV[4])
    local mine = holder == me and not kept
    local who, left = holder, nil
    if holder and not mine then
        left = redis.call('PTTL', lock)
    elseif not holder then
        local first, lapse = wake_next()
        if first and first ~= me then who, left = first, math.ceil((lapse - now) / 1000) end
    end
    if left then
        queue_up(ttl, op == 'stand')
        local since = holder and held[4] or clock
        local rank = redis.call('ZRANK', queue, me)
        return {clock, 'held', who, since, left, held[2], redis.call('HGET', control, 'text'), rank}
    end
    if op == 'stand' then return {clock, 'free'} end
    local last = number(redis.call('GET', token))
    if last >= 9007199254740991 then return {clock, 'worn'} end
    local fresh = text(math.max(last + 1, tonumber(ARGV[6] or '') or now))
    redis.call('SET', token, fresh)
    drop(me)
    redis.call('DEL', lock)
    redis.call('HSET', lock, 'holder', me, 'token', fresh, 'generation', 0, 'since', clock)
    redis.call('PEXPIRE', lock, ttl)
    watch()
    local beside = redis.call('HMGET', control, 'text', 'version')
    return {clock, 'mine', fresh, redis.call('HGET', record, 'text'), beside[1], beside[2]}
end

if op == 'leave' then
    drop(me)
    if holder == me and not kept then free() elseif not holder then wake_next() end
    return {clock, 'done'}
end

-- What was taken isn't a majority: give it back, and wait in the old place.
if op == 'yield' then
    queue_up(tonumber(ARGV[4]), ARGV[6] == 'l')
    if holder == me and not kept then free() end
    return {clock, 'done'}
end

-- The lock is ours on a majority, with the token in ARGV: have it here too, for so many ms.
if op == 'seal' or op == 'heal' then
    local mine = holder == me and not kept and number(held[2]) <= tonumber(ARGV[4])
    if not mine and (holder or op == 'seal') then return {clock, 'lost', 'other', holder} end
    if number(redis.call('GET', token)) < tonumber(ARGV[4]) then
        redis.call('SET', token, ARGV[4])
    end
    drop(me)
    redis.call('HSET', lock, 'holder', me, 'token', ARGV[4], 'generation', ARGV[5], 'since', held[4] or clock)
    redis.call('PEXPIRE', lock, ARGV[6])
    watch()
    return {clock, 'done'}
end
"""

_HOLDING = """
-- ARGV: the token, the generation, and what is to be put
if op == 'check' or op == 'renew' or op == 'write' or op == 'mark' or op == 'release' then
    local generation = tonumber(ARGV[5])
    local later = number(held[3]) > generation
    if holder ~= me or held[2] ~= ARGV[4] or later or kept then
        local given_back = redis.call('HGET', record, 'released') == ARGV[4]
        if op == 'release' and given_back then return {clock, 'done'} end
        local same = holder == me and held[2] == ARGV[4]
        local why = not holder and 'gone' or not same and 'other' or kept and 'kept' or 'later'
        return {clock, 'lost', why, holder}
    end
    -- A server whose memory is full takes a script's further writes after one that frees memory. So a holder
    -- goes on, while nobody takes a lock.
    if op ~= 'check' then drop(me) end
    if op == 'renew' then
        redis.call('HSET', lock, 'generation', generation)
        redis.call('PEXPIRE', lock, ARGV[6])
        watch()
    elseif op == 'write' then
        redis.call('HSET', record, 'text', ARGV[6])
    elseif op == 'mark' then
        redis.call('HSET', once, ARGV[6], ARGV[7])
    elseif op == 'release' then
        redis.call('HSET', record, 'text', ARGV[6], 'released', ARGV[4])
        if tonumber(ARGV[7]) > 0 then
            redis.call('HSET', lock, 'kept', 1)
            redis.call('PEXPIRE', lock, ARGV[7])
            wake_next()
        else
            free()
        end
    end
    local beside = redis.call('HMGET', control, 'text', 'version')
    return {clock, 'done', beside[1], beside[2]}
end
"""

_LOOKING = """
if op == 'read' or op == 'look' then
    local answer = {clock, 'seen', holder, held[4], redis.call('PTTL', lock), held[2], kept,
        redis.call('HGET', record, 'text'), redis.call('HGET', control, 'text'),
        redis.call('HGET', control, 'version')}
    if op == 'look' then
        for _, id in ipairs(redis.call('ZRANGE', queue, 0, -1)) do
            local lapse, state = place(id)
            local since = number(redis.call('ZSCORE', queue, id))
            if lapse and lapse > now and state ~= 'g' and math.abs(since) < 9007199254740992 then
                table.insert(answer, id)
                table.insert(answer, text(since))
            end
        end
    end
    return answer
end

-- ARGV: the version that was seen, the new text
if op == 'steer' then
    local version = redis.call('HGET', control, 'version') or ''
    if version ~= ARGV[4] then return {clock, 'changed'} end
    local fresh = text(math.max(now, number(version) + 1))
    redis.call('HSET', control, 'text', ARGV[5], 'version', fresh)
    if holder then redis.call('PUBLISH', wake .. ':' .. holder, '') end
    return {clock, 'done'}
end

-- ARGV: the token of the holder that was seen, '' for one without
if op == 'free' then
    if not holder or holder ~= me or (held[2] or '') ~= ARGV[4] then return {clock, 'changed'} end
    free()
    redis.call('PUBLISH', wake .. ':' .. me, '')
    return {clock, 'done'}
end

-- The control of a quorum is agreed on in two steps. ARGV: the ballot, the new text, and what is kept as its
-- version (see `votes.Accepted`)
if op == 'prepare' or op == 'accept' then
    local promised = number(redis.call('HGET', control, 'promise'))
    local ballot = tonumber(ARGV[4])
    if ballot < promised or (op == 'prepare' and ballot == promised) then
        return {clock, 'changed', text(promised)}
    end
    redis.call('HSET', control, 'promise', ARGV[4])
    if op == 'accept' then
        redis.call('HSET', control, 'text', ARGV[5], 'version', ARGV[6])
        if holder then redis.call('PUBLISH', wake .. ':' .. holder, '') end
    end
    local beside = redis.call('HMGET', control, 'version', 'text')
    return {clock, 'done', beside[1], beside[2]}
end

if op == 'bury' then
    redis.call('HSET', once, ARGV[4], ARGV[5])
    return {clock, 'done'}
end
if op == 'done' then return {clock, 'seen', redis.call('HGET', once, ARGV[4])} end
if op == 'forget' then return {clock, 'done', redis.call('HDEL', once, ARGV[4])} end
return redis.error_reply('ERR unknown operation')
"""

SCRIPT = _COMMON + _TAKING + _HOLDING + _LOOKING
# By which the server knows it: a constant, for the import of hashlib costs each start milliseconds.
SHA = "52e1acd976a759b7d72dc3de0781826aa6daaae5"


def keys_of(name: str) -> list[str]:
    """The keys of the lock `name`, as the script takes them."""
    return [f"{PREFIX}{name}}}:{part}" for part in _PARTS]


def channels_of(name: str, holder: str) -> list[str]:
    """The channels on which `holder` is woken."""
    common = f"{PREFIX}{name}}}:wake"
    return [common, f"{common}:{holder}"]


def name_of(key: str) -> str:
    """The lock whose holder, record or control `key` is; empty for another key."""
    name, found, part = key.removeprefix(PREFIX).rpartition("}:")
    return name if found and key.startswith(PREFIX) and part in _OF_A_LOCK else ""
