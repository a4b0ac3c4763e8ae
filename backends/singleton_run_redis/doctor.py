"""What `doctor` finds in Redis. All of it is asked for; the one thing that is sent is a word on a channel.

The rights are asked for by a script, because only there can a user ask about itself (Redis 7).
"""

from __future__ import annotations

import os

from singleton_run.api.deadline import Deadline
from singleton_run.api.finding import Finding, bad, good, warning
from singleton_run.errors import UNUSABLE, Refused
from singleton_run_redis.errors import COMMANDS, KEYS, ServerError
from singleton_run_redis.scripts import channels_of, keys_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from singleton_run_redis.address import Address
    from singleton_run_redis.client import Session

_OLDEST = 6
_TOLD_WITHIN = 2.0
_ANY = "doctor"
_TODO = "`singleton-run doctor --setup` with the same words prints what an administrator runs"
# KEYS: those of a lock. ARGV: a channel of it, and the commands to ask about.
_MAY = """
if not redis.acl_check_cmd then return {'unknown'} end
local missing = {'known'}
local of_no_key = {time = {}, scan = {'0'}, select = {'0'}, eval = {'', '0'}, evalsha = {'', '0'},
    subscribe = {ARGV[1]}, publish = {ARGV[1], ''}}
local more = {get = {}, del = {}, pttl = {}, set = {'x'}, pexpire = {'1'}, hget = {'x'}, hmget = {'x'},
    hset = {'x', 'x'}, hdel = {'x'}, zadd = {'1', 'x'}, zrange = {'0', '0'}, zrank = {'x'}, zrem = {'x'},
    zscore = {'x'}}
for at = 2, #ARGV do
    local command = ARGV[at]
    local may
    if of_no_key[command] then
        may = redis.acl_check_cmd(command, unpack(of_no_key[command]))
    else
        may = true
        for _, key in ipairs(KEYS) do
            may = may and redis.acl_check_cmd(command, key, unpack(more[command]))
        end
    end
    if not may then table.insert(missing, command) end
end
return missing
"""


def examine(session: Session, address: Address, name: str, limit: float) -> Iterator[Finding]:
    """See `contract.Backend`."""
    try:
        session.connect(Deadline.after(limit))
        yield _version(session.about)
        if session.about.get("role") == "replica":
            yield bad("the server is a replica, which can't lock", "name the primary")
            return
        yield from _rights(session, name or _ANY, limit)
        yield from _settings(session, limit)
        yield from _notifications(session, name or _ANY, limit)
        yield _user(address)
        yield _encryption(address)
    except ServerError as error:
        raise error.failure() from None


def setup(address: Address, name: str) -> str:
    """See `contract.Backend`: for redis-cli. Raises Refused where nobody says who we are."""
    if not address.user:
        raise Refused("redis: which user? Name it in the address: redis://USER@HOST", UNUSABLE)
    if not set(address.user).isdisjoint(" \t\r\n\"'"):
        raise Refused(f"redis: the server can't have a user {address.user!r}", UNUSABLE)
    keys = f"~singleton-run:{{{name}}}:* &singleton-run:{{{name}}}:*" if name else KEYS
    return f"ACL SETUSER {address.user} on {keys} {COMMANDS}\n"


def _version(about: Mapping[str, str]) -> Finding:
    named = f"{about.get('server', 'redis')} {about.get('version', '')}"
    number = about.get("version", "").partition(".")[0]
    if not number.isdigit() or int(number) < _OLDEST:
        return bad(f"{named} is too old", "take Redis 6.0 or later, or Valkey")
    return good(f"{named} is recent enough")


def _rights(session: Session, name: str, limit: float) -> Iterator[Finding]:
    commands = [word.removeprefix("+") for word in COMMANDS.split()]
    keys = keys_of(name)
    channel = channels_of(name, _ANY)[1]
    words = ["EVAL", _MAY, str(len(keys)), *keys, channel, *commands]
    try:
        known, *missing = session.words(words, Deadline.after(limit))
    except ServerError as error:
        if error.code != "NOPERM":
            raise
        yield bad(f"we may not run a script ({error.text})", _TODO)
        return
    if missing:
        yield bad(f"our user may not use {', '.join(missing)} on the lock's keys and channels", _TODO)
    elif known == "known":
        yield good("our user may do all that is needed on the lock's keys and channels")


def _settings(session: Session, limit: float) -> Iterator[Finding]:
    """Whether the server may forget a lock. Raises ServerError."""
    try:
        (text,) = session.words(["INFO"], Deadline.after(limit), whole=True)
    except ServerError as error:
        if error.code != "NOPERM":
            raise
        yield warning(
            "our user may not ask whether the server evicts keys and writes them to its disk (INFO)",
            "look yourself: maxmemory-policy noeviction, appendonly yes",
        )
        return
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    yield _eviction(info)
    if info.get("aof_enabled") == "0":
        yield warning(
            "after a crash the server may forget who has a lock (appendonly no)",
            "set appendonly yes, and appendfsync always where it matters",
        )
    else:
        yield good("the server writes each change to its disk")
    if info.get("connected_slaves", "0") != "0" or info.get("cluster_enabled") == "1":
        yield warning(
            "the server has replicas: a fail-over to one may lose who has a lock, because they follow later",
            "have the storage check SINGLETON_TOKEN, or take etcd or Postgres where an overlap costs data",
        )


def _eviction(info: Mapping[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "")
    if policy != "noeviction" and info.get("maxmemory", "0") != "0":
        return warning(
            f"when its memory is full the server may delete locks and tokens (maxmemory-policy {policy})",
            "set maxmemory-policy noeviction, or give the locks a server of their own",
        )
    return good("the server evicts no keys")


def _notifications(session: Session, name: str, limit: float) -> Iterator[Finding]:
    channels = channels_of(name, f"doctor:{os.getpid()}:{os.urandom(8).hex()}")[1:]
    try:
        session.listen(channels, Deadline.after(limit))
        session.words(["PUBLISH", channels[0], ""], Deadline.after(limit))
    except ServerError as error:
        if error.code != "NOPERM":  # that has been told
            raise
    else:
        if session.pause(Deadline.after(_TOLD_WITHIN)):
            yield good("what is published arrives: who waits is told at once")
        else:
            yield bad("what is published doesn't arrive", "look for a proxy in between: who waits needs it")


def _user(address: Address) -> Finding:
    if address.password:
        return good(f"the server knows us as the user {address.user or 'default'}")
    return warning(
        "the server asks for no password: anybody who reaches it can take or break a lock",
        "give it users (ACL SETUSER), or have its port reached by those alone who may",
    )


def _encryption(address: Address) -> Finding:
    if not address.port or address.host in ("localhost", "::1") or address.host.startswith("127."):
        return good("the server is on this machine, so TLS isn't needed")
    if not address.tls:
        return warning("what we say to the server is not encrypted", "speak TLS (rediss://)")
    return good("TLS is spoken")
