"""What `doctor` finds in Redis. A right is asked for by `redis.acl_check_cmd`, which executes nothing.

Whether the server takes writes, a SET tells that is only for a key that is there, and there is none.
"""

from __future__ import annotations

from singleton_run.api.background import Background
from singleton_run.api.deadline import Deadline, Timeout
from singleton_run.api.finding import Finding, bad, good, warning
from singleton_run.api.url import authority
from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable
from singleton_run_redis.client import Session
from singleton_run_redis.errors import RIGHTS, ServerError
from singleton_run_redis.scripts import SHA, channels_of, keys_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from singleton_run_redis.address import Address

    Limit = Callable[[], Deadline]

_ANY = "doctor"
_USER = "singleton-run"
_MAY_NOT = "NOPERM"
# By so much a thread may notice later than its deadline that time is up.
_MOMENT = 1.0
_SETUP = "`singleton-run doctor --setup` with the same --lock prints the command for an administrator"

# KEYS are those of a lock; ARGV: a channel, and the digest of the lock's script. It answers with the commands
# that we lack, or with false before Redis 7, where nobody tells.
_RIGHTS = """
if not redis.acl_check_cmd then return false end
local lock, token, record, control, queue, waiters, once = unpack(KEYS)
local asked = {
    {'get', token}, {'set', token, '1'}, {'del', lock}, {'del', queue}, {'pttl', lock},
    {'pexpire', lock, '1'}, {'pexpire', queue, '1'}, {'pexpire', waiters, '1'},
    {'zadd', queue, '1', 'x'}, {'zrange', queue, '0', '0'},
    {'zrank', queue, 'x'}, {'zrem', queue, 'x'}, {'zscore', queue, 'x'}, {'publish', ARGV[1], 'x'},
    {'evalsha', ARGV[2], '0'}, {'client', 'tracking', 'on'}, {'scan', '0'}, {'time'}, {'select', '0'},
}
for _, hash in ipairs({lock, record, control, waiters, once}) do
    table.insert(asked, {'hget', hash, 'x'})
    table.insert(asked, {'hmget', hash, 'x'})
    table.insert(asked, {'hset', hash, 'x', 'x'})
    table.insert(asked, {'hdel', hash, 'x'})
end
local lacking = {}
for _, words in ipairs(asked) do
    if not redis.acl_check_cmd(unpack(words)) and not lacking[words[1]] then
        lacking[words[1]] = true
        table.insert(lacking, words[1])
    end
end
return lacking
"""


def examine(session: Session, address: Address, name: str, limit: Limit) -> Iterator[Finding]:
    """See `contract.Backend`. `limit` gives the deadline of each request."""
    session.connect(limit())
    yield _server(session.hello, clustered=bool(address.nodes), tls=address.tls)
    yield _rights(session, name or _ANY, limit)
    yield _channel(session, name or _ANY, limit)
    yield from _data(session, limit)
    yield from _keys(session, name or _ANY, limit)
    yield _user(address)
    yield _encryption(address)
    yield from _writes(session, name or _ANY, limit)


def examine_all(addresses: Sequence[Address], name: str, limit: float) -> Iterator[Finding]:
    """The same for all servers of a quorum at once, within one limit: what is found in each, one by one."""
    deadline = Deadline.after(limit)
    well = 0
    seen: dict[str, str] = {}
    for look in [_Look(address, name, deadline) for address in addresses]:
        try:
            look.wait(Deadline(deadline.until + _MOMENT))
        except Timeout:
            failure: Failure | None = Unavailable(f"redis: {look.place}: no answer in time")
        else:
            failure = look.failure
            look.close()
        for found in [*look.findings]:
            yield Finding(found.grade, f"{look.place}: {found.text}", found.todo)
        if failure is not None:
            text = f"{look.place} is of no use: {failure}"
            yield warning(text, "mend it: a quorum lives on its spare servers")
        well += failure is None
        first = seen.setdefault(look.run_id, look.place) if look.run_id else look.place
        if first != look.place:
            yield bad(f"{first} and {look.place} are one server", "name each server of a quorum once")
    need = len(addresses) // 2 + 1
    if well < need:
        yield bad(f"{well} of {len(addresses)} servers can be used, and {need} are needed", "mend the others")
    else:
        yield good(f"{well} of {len(addresses)} servers can be used, and {need} are needed")


class _Look(Background):
    """A look at one server in a thread: what was found, and why no more was; its `run_id` if that is told."""

    def __init__(self, address: Address, name: str, deadline: Deadline) -> None:
        self.place = authority(address.host, address.port)
        self.findings: list[Finding] = []
        self.failure: Failure | None = None
        self.run_id = ""
        super().__init__(lambda: self._look(address, name, deadline))

    def _look(self, address: Address, name: str, deadline: Deadline) -> None:
        try:
            session = Session(address)
        except Failure as error:
            self.failure = error
            return
        try:
            self.findings.extend(examine(session, address, name, lambda: deadline))
        except Failure as error:
            self.failure = error
        finally:
            self.run_id = session.run_id
            session.drop()


def setup(address: Address) -> str:
    """See `contract.Backend`: a command for redis-cli. Raises Refused for a user whose name it can't have."""
    user = address.user or _USER
    if not user.isprintable() or not {*user}.isdisjoint(" \"'\\"):
        raise Refused("redis: the name of the user has characters that redis-cli takes for its own", UNUSABLE)
    return f"ACL SETUSER {user} on {rights_of(address)}\n"


def rights_of(address: Address) -> str:
    """What our user must be allowed, as ACL SETUSER takes it."""
    more = (" +asking +cluster|slots" if address.nodes else "") + (" +wait" if address.replicas else "")
    return RIGHTS + more


def _server(hello: Mapping[str, str], *, clustered: bool, tls: bool) -> Finding:
    server = f"{hello.get('server', 'redis')} {hello.get('version', '(of an unknown version)')}"
    if hello.get("role") in ("replica", "slave"):
        return bad(f"{server} is a replica, which can't lock", "name the primary")
    if clustered:
        return good(f"{server} answers, and is the cluster's node for this lock")
    if hello.get("mode") == "cluster":
        return bad(f"{server} is in a cluster", f"say {'rediss' if tls else 'redis'}+cluster://")
    return good(f"{server} answers, and is a primary")


def _rights(session: Session, name: str, limit: Limit) -> Finding:
    keys = keys_of(name)
    words = ["EVAL", _RIGHTS, str(len(keys)), *keys, channels_of(name, _ANY)[1], SHA]
    try:
        lacking = session.ask(words, limit())
    except ServerError as error:
        if error.code != _MAY_NOT:
            raise error.failure() from None
        return bad(f"our user may not run scripts on the keys of the lock {name}", _SETUP)
    if lacking is None:
        return good(
            "before Redis 7 rights can't be asked for without using them: see docs/redis.md for the list"
        )
    if lacking:
        named = ", ".join(word.decode(errors="replace") for word in lacking)
        return bad(f"our user lacks {named} on the keys or channels of the lock {name}", _SETUP)
    return good(f"our user may do all that the lock {name} takes")


def _channel(session: Session, name: str, limit: Limit) -> Finding:
    try:
        session.listen(channels_of(name, _ANY), limit())
    except ServerError as error:
        if error.code != _MAY_NOT:
            raise error.failure() from None
        return bad(f"our user may not subscribe to the channels of the lock {name}", _SETUP)
    return good("channels can be subscribed to: who waits is told at once")


def _data(session: Session, limit: Limit) -> Iterator[Finding]:
    """What the server does with its data, where our user may see it."""
    try:
        text = session.ask(["INFO"], limit()).decode(errors="replace")
    except ServerError as error:
        if error.code != _MAY_NOT:
            raise error.failure() from None
        yield good("our user may not ask for INFO, which no lock needs: persistence and eviction aren't seen")
        return
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    session.run_id = info.get("run_id", "")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        yield warning(
            f"to make room the server may delete a lock ({policy})", "set maxmemory-policy noeviction"
        )
    else:
        yield good("the server deletes no lock to make room")
    if info.get("aof_enabled") == "1":
        yield good("the server writes its changes down (appendonly)")
    else:
        yield warning("a crash of the server loses every lock since its last snapshot", "set appendonly yes")
    if info.get("connected_slaves", "0") != "0":
        yield warning(
            "the server has replicas: a fail-over may forget who has a lock",
            "have the storage check the fencing token; min-replicas-to-write 1 makes it rarer",
        )


def _keys(session: Session, name: str, limit: Limit) -> Iterator[Finding]:
    """Keys of the lock that are another program's. Those that tell who holds it are looked at anyway."""
    _, token, _, _, queue, waiters, once = keys_of(name)
    requests = ("GET", token), ("ZRANGE", queue, "0", "0"), ("HGET", waiters, "x"), ("HGET", once, "x")
    for words in requests:
        try:
            session.ask(words, limit())
        except ServerError as error:
            if error.code not in (_MAY_NOT, "WRONGTYPE"):
                raise error.failure() from None
            if error.code == "WRONGTYPE":
                yield bad(f"the key {words[1]} is another program's", "delete it, or take another name")


def _writes(session: Session, name: str, limit: Limit) -> Iterator[Finding]:
    """A server may be full, lack replicas, or be unable to save: no script tells that before it writes."""
    key = channels_of(name, _ANY)[1]  # a channel's name, which no key has
    try:
        session.ask(["SET", key, "", "XX"], limit())
    except ServerError as error:
        if error.code not in (_MAY_NOT, "READONLY"):  # these have been told already
            raise error.failure() from None
    else:
        yield good("the server takes writes")


def _user(address: Address) -> Finding:
    if address.password:
        return good(f"we are the user {address.user or 'default'}")
    return warning(
        "the server asks for no password: anybody who reaches it can take or break a lock",
        "give it users (ACL SETUSER), or have its port reached by those alone who may",
    )


def _encryption(address: Address) -> Finding:
    if address.insecure:
        return warning(
            "TLS is spoken, and no certificate is checked: it isn't sure who answers",
            "name the authority in ssl_ca_certs, and leave ssl_cert_reqs out",
        )
    if address.tls:
        return good("TLS is spoken, and the server's certificate is checked")
    hosts = [host for host, _ in address.sentinels or address.nodes] or [address.host]
    if all(host[:1] == "/" or host in ("localhost", "::1") or host.startswith("127.") for host in hosts):
        return good("redis is on this machine, so TLS isn't needed")
    return warning(
        "what we say to redis is not encrypted, nor is it sure who answers",
        f"say {address.scheme.replace('redis', 'rediss')}://",
    )
