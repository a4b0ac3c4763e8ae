"""The keys of a lock, and their values.

PREFIX/NAME/LEASE                 somebody's place in the queue for lock NAME, as `etcdctl lock` makes it
singleton-run/record/PREFIX/NAME  the record
singleton-run/control/PREFIX/NAME  the control; its mod revision is its version
singleton-run/once/PREFIX/NAME/KEY  the mark of a key that is done
"""

from __future__ import annotations

import posix as os

from singleton_run.api import toolbox
from singleton_run.api.contract import Held
from singleton_run.errors import UNUSABLE, Refused
from singleton_run_etcd.client import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from singleton_run_etcd.client import KeyValue

_RECORDS = "singleton-run/record/"
_CONTROLS = "singleton-run/control/"
_MARKS = "singleton-run/once/"
_OURS = "singleton-run"
_KEPT = '{"kept":'
"""The beginning of the value of a key that is kept after its turn."""


class Keys:
    """The names of the keys of locks below `prefix`, which is empty or ends in a slash."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def check(self, name: str) -> None:
        """Raise Refused (78) for a lock whose queue would be the folder of the records."""
        if not self._prefix and name == _OURS:
            raise Refused(f"in etcd the name {_OURS!r} is taken by the records: choose another", UNUSABLE)

    def queue(self, name: str) -> str:
        """The folder, with a slash at its end, of all who hold or wait for the lock `name`."""
        return f"{self._prefix}{name}/"

    def place(self, name: str, lease: int) -> str:
        """The key of the holder or waiter that has this lease."""
        return f"{self.queue(name)}{lease:x}"

    def record(self, name: str) -> str:
        """The key of the record; for an empty name the folder of all records."""
        return f"{_RECORDS}{self._prefix}{name}"

    def control(self, name: str) -> str:
        """The key of the control; for an empty name the folder of all controls."""
        return f"{_CONTROLS}{self._prefix}{name}"

    def oldest(self, name: str) -> Op:
        """The range that has the holder's place."""
        return all_below(self.queue(name), limit=1)

    def mark(self, name: str, key: str) -> str:
        """The key of the mark of `key`."""
        from singleton_run.api.keys import plain

        # The last part has no slash, so no two pairs of name and key get the same.
        return f"{_MARKS}{self._prefix}{name}/{plain(key)}"

    def queues(self) -> list[Op]:
        """The ranges that have the places of every lock, among other keys perhaps."""
        if self._prefix:
            return [all_below(self._prefix, keys_only=True)]
        # Each character that a lock's name may begin with is from + to z, and none is a slash.
        ends = (("+", "/"), ("0", "{"))
        return [Op("range", start, end=end, keys_only=True) for start, end in ends]

    def name_of(self, entry: KeyValue) -> str:
        """The lock in whose queue `entry` is a place; empty for another key."""
        name, _, last = entry.key.removeprefix(self._prefix).rpartition("/")
        return name if entry.lease and last == f"{entry.lease:x}" else ""


def all_below(folder: str, **how: Any) -> Op:
    """A range of all keys that begin with `folder`, which ends in a slash: the character after that is 0."""
    return Op("range", folder, end=folder[:-1] + "0", **how)


def new_lease() -> int:
    """A random lease id. The client chooses it, so that a request may be sent twice."""
    return int.from_bytes(os.urandom(8), "big") >> 1 or 1


def lease_of(holder: str, queue: str) -> int:
    """The lease id of a holder's first place in a queue: another process of the same turn goes on with it."""
    return toolbox.hashed([holder, queue]) >> 17 or 1


def generation_prefix(generation: int) -> str:
    """The beginning of a key's value while a keeper of this generation has it: it sorts by generation."""
    return f'{{"generation":"{generation:08}'


def value(holder: str, since: float, generation: int) -> str:
    """The value of a place in the queue. `since` is in Unix seconds."""
    rest = toolbox.dumps({"holder": holder, "since": since})
    return f'{generation_prefix(generation)}",{rest[1:]}'


def kept_value(holder: str, since: float) -> str:
    """The value of a key that no keeper has any more: it sorts behind those of every generation."""
    return toolbox.dumps({"kept": True, "holder": holder, "since": since})


def is_kept(entry: KeyValue) -> bool:
    """Whether the key is kept after its turn."""
    return entry.value.startswith(_KEPT)


def held(
    entry: KeyValue,
    until: float | None = None,
    handle: dict[str, Any] | None = None,
    control: Mapping[str, Any] | None = None,
) -> Held:
    """Who has the place `entry`, and under which token. Of a foreign client only the lease id is known."""
    try:
        found = toolbox.loads(entry.value)
        holder, since = str(found["holder"]), found["since"]
    except (ValueError, TypeError, KeyError):
        holder, since = f"etcd lease {entry.lease:x}", None
    return Held(holder, since=since, until=until, handle=handle, token=entry.created, control=control)


def dated(held: Held, record: Mapping[str, Any] | None) -> Held:
    """`held`, since the start of its run where `record` is of that run.

    A place in the queue tells when it was taken, and who waited got the lock later.
    """
    if record is not None and record["token"] == held.token and record["start"] is not None:
        held.since = record["start"]
    return held


def control_of(found: Sequence[KeyValue]) -> Mapping[str, Any] | None:
    """The control in what a range of its key has found, None without one."""
    if not found:
        return None
    from singleton_run.api.control import parsed

    return parsed(found[0].value)
