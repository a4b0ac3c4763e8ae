"""What `doctor` finds in etcd. A permission is asked for by a transaction that can change nothing.

Its one condition never holds, and etcd checks the permissions for all of a transaction before that.
"""

from __future__ import annotations

import copy
import shlex

from singleton_run.api.deadline import Deadline
from singleton_run.api.finding import Finding, bad, good, warning
from singleton_run.api.url import authority
from singleton_run.errors import UNUSABLE, Failure, Refused
from singleton_run_etcd.client import Op
from singleton_run_etcd.keys import Keys, all_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from singleton_run_etcd.address import Address
    from singleton_run_etcd.client import Compare, Member, Server

    Connect = Callable[[Address], Server]

_ANY = "doctor"
_USER = "singleton-run"
_ASKED = '"${PASSWORD:?set PASSWORD to that of the new user}"'
_NEVER = 1 << 62
"""A create revision that no key has."""
_SETUP = "`singleton-run doctor --setup` with the same words prints what an administrator runs"
_OLDEST, _SAFE_OF_3_5 = (3, 4), (3, 5, 5)


def examine(server: Server, address: Address, connect: Connect, name: str, limit: float) -> Iterator[Finding]:
    """See `contract.Backend`. `server` is the cluster, and `connect` makes one of a part of it."""
    members = []
    for endpoint in address.endpoints:
        member = _member(address, endpoint, connect, limit)
        if not isinstance(member, Failure):
            members.append(member)
        yield from _of_member(endpoint, member, alone=len(address.endpoints) == 1)
    if not members:
        return
    yield _version([member.version for member in members])
    yield from _permissions(server, Keys(address.prefix), name, limit)
    yield _user(address, server.user())
    yield _encryption(address)
    yield _watch(server, Keys(address.prefix).place(name or _ANY, 1), limit)


def setup(address: Address, name: str) -> str:
    """See `contract.Backend`: a script for sh. Raises Refused where no key is named."""
    if not (name or address.prefix):
        raise Refused(
            "which keys? Name the lock (doctor --setup NAME), or have all locks below a prefix "
            "(etcd://HOST:PORT/PREFIX)",
            UNUSABLE,
        )
    role = shlex.quote(f"{_USER}/{address.prefix.rstrip('/') or name}")
    user = shlex.quote(address.user or _USER)
    lines = [f"etcdctl role get {role} >/dev/null 2>&1 || etcdctl role add {role}"]
    lines += [
        f"etcdctl role grant-permission {role} readwrite {shlex.quote(key)}{below and ' --prefix=true'}"
        for key, below in _grants(address.prefix, name)
    ]
    lines += [
        f"etcdctl user get {user} >/dev/null 2>&1 || etcdctl user add {user}:{_ASKED}",
        f"etcdctl user grant-role {user} {role}",
    ]
    return "set -e\n" + "".join(f"{line}\n" for line in lines)


def _grants(prefix: str, name: str) -> list[tuple[str, str]]:
    """Each key that a role needs, and whether all that begin with it are meant ('' for no)."""
    if prefix:
        return [(key, "all") for key in (prefix, *(f"singleton-run/{kind}/{prefix}" for kind in _KINDS))]
    below = {"record": "", "control": "", "once": "/"}
    rest = [(f"singleton-run/{kind}/{name}{below[kind]}", below[kind] and "all") for kind in _KINDS]
    return [(f"{name}/", "all"), *rest]


_KINDS = ("record", "control", "once")


def _member(
    address: Address, endpoint: tuple[str, int, bool], connect: Connect, limit: float
) -> Member | Failure:
    """What the member there tells, or why it doesn't."""
    alone = copy.copy(address)
    alone.endpoints = [endpoint]
    member = connect(alone)
    try:
        return member.status(Deadline.after(limit))
    except Failure as failure:
        return failure
    finally:
        member.close()


def _of_member(
    endpoint: tuple[str, int, bool], member: Member | Failure, *, alone: bool
) -> Iterator[Finding]:
    place = authority(endpoint[0], endpoint[1])
    if isinstance(member, Failure):
        if isinstance(member, Refused):
            yield Finding(Finding.BAD, str(member))
        elif alone:
            yield bad(str(member), f"start it, or name another than {place} (--lock, ETCDCTL_ENDPOINTS)")
        else:
            yield warning(str(member), f"mend {place}, or leave it out: the others are asked meanwhile")
        return
    if member.led:
        yield good(f"the member {place} answers: etcd {member.version}")
    else:
        yield bad(f"the member {place} has no leader", "start the other members, or mend the way to them")
    for error in member.errors:
        yield bad(
            f"the member {place} has an alarm: {error}",
            "see etcdctl alarm list; after NOSPACE compact, defragment, and etcdctl alarm disarm",
        )


def _version(versions: Sequence[str]) -> Finding:
    oldest = min(versions, key=_numbers)
    numbers = _numbers(oldest)
    if numbers[:2] < _OLDEST:
        return bad(f"etcd {oldest} is too old", "take 3.4 or later")
    if numbers[:2] == _SAFE_OF_3_5[:2] and numbers < _SAFE_OF_3_5:
        return warning(
            f"etcd {oldest} ends with a panic if a client goes away at the wrong moment (etcd-io/etcd#14110)",
            "take 3.5.5 or later",
        )
    return good(f"etcd {oldest} is recent enough")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.partition("-")[0].split(".")
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in parts)


def _permissions(server: Server, keys: Keys, name: str, limit: float) -> Iterator[Finding]:
    """Whether each of the lock's keys may be read and written. Raises Unavailable: then nobody can lock."""
    one = name or _ANY
    keys.check(one)
    queue, record, control, mark = keys.queue(one), keys.record(one), keys.control(one), keys.mark(one, _ANY)
    both, write, read = "read and written", "written", "read"
    todo = _SETUP if name else f"{_SETUP}; a role for one lock is seen only with its NAME"
    for shown, how, steps, use in (
        (queue, both, [all_below(queue), Op("put", keys.place(one, 1))], ""),
        (record, both, [Op("range", record), Op("put", record)], ""),
        (control, read, [Op("range", control)], ""),
        (control, write, [Op("put", control)], "pause, resume and release need"),
        (f"{mark.rpartition('/')[0]}/", both, [Op("range", mark), Op("put", mark)], "--once needs"),
    ):
        never: list[Compare] = [("create", steps[-1].key, _NEVER)]
        try:
            server.txn(never, steps, [], Deadline.after(limit))
        except Refused as refused:
            what = warning if use else bad
            yield what(f"{shown} can't be {how}, which {use or 'every run needs'} ({refused})", todo)
        else:
            yield good(f"{shown} can be {how}")


def _user(address: Address, user: str) -> Finding:
    if user:
        return good(f"etcd knows us as the user {user}")
    if address.user:
        return warning(
            f"etcd knows no users, so it doesn't ask who {address.user} is",
            "etcdctl auth enable: until then anybody who reaches it can take or break a lock",
        )
    if address.cert:
        return good("we show etcd a certificate")
    return warning(
        "etcd knows no users: anybody who reaches it can take or break a lock",
        "give it users (etcdctl auth enable), or have its ports reached by those alone who may",
    )


def _encryption(address: Address) -> Finding:
    plain = [host for host, _, secure in address.endpoints if not secure and not _is_here(host)]
    if plain:
        return warning(
            f"what we say to {', '.join(plain)} is not encrypted, nor is it sure who answers",
            "speak TLS (cacert, ETCDCTL_CACERT, https:// before an endpoint)",
        )
    if any(secure for _, _, secure in address.endpoints):
        return good("TLS is spoken")
    return good("etcd is on this machine, so TLS isn't needed")


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _watch(server: Server, key: str, limit: float) -> Finding:
    """Whether a watch opens: without one nobody is told of a release."""
    try:
        server.watch(key, 0, Deadline.after(limit)).close()
    except Failure as failure:
        return bad(f"no watch can be opened ({failure})", "waiters would not hear of a release: see above")
    return good("a watch can be opened: who waits is told at once")
