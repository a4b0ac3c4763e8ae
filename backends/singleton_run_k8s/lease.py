"""What a Lease says, and what is written into it: client-go's record and rules. Nothing here is sent.

A Lease is the object as the API server gives it, a dict. It is never changed in place.
"""

from __future__ import annotations

from singleton_run.api import timestamps, toolbox
from singleton_run.api.record import parsed, parsed_mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Lease = dict[str, Any]

DOMAIN = "singleton-run.dev"
NAME, RECORD = f"{DOMAIN}/name", f"{DOMAIN}/record"
GENERATION, RELEASED = f"{DOMAIN}/generation", f"{DOMAIN}/released"
MARK, KEY = f"{DOMAIN}/mark", f"{DOMAIN}/key"
MANAGED = {"app.kubernetes.io/managed-by": "singleton-run"}
LONGEST_RECORD = 4096
MARGIN = 2.0
"""What is added to a lease that is judged by the API servers' stamps: their clocks may differ."""

_API = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}


def taken(lease: Lease | None, name: str, holder: str, ttl: float, now: float, stored_as: str) -> Lease:
    """The Lease to write for `holder` to have it: a new one, or what is there, taken over.

    Whoever has it already and asks again keeps time and count, as with client-go.
    """
    stamp = timestamps.micro_time(now)
    spec: dict[str, Any] = {"leaseTransitions": 0} if lease is None else dict(lease.get("spec") or {})
    if lease is not None and not is_held_by(lease, holder):
        spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec["acquireTime"] = stamp
    spec.setdefault("acquireTime", stamp)
    spec.update(holderIdentity=holder, leaseDurationSeconds=toolbox.whole_seconds(ttl), renewTime=stamp)
    base = lease or {**_API, "metadata": {"name": stored_as}}
    return _written(base, spec, {NAME: name, GENERATION: "0"})


def renewed(lease: Lease, ttl: float, generation: int, now: float) -> Lease:
    """The Lease to write for its holder to go on."""
    seconds = toolbox.whole_seconds(ttl)
    spec = {**lease["spec"], "leaseDurationSeconds": seconds, "renewTime": timestamps.micro_time(now)}
    return _written(lease, spec, {GENERATION: str(generation)})


def recorded(lease: Lease, record: Mapping[str, Any]) -> Lease:
    """The Lease to write for `record` to be beside it; its time goes on as it did."""
    return _written(lease, lease["spec"], {RECORD: _text(record)})


def released(
    lease: Lease, token: int, record: Mapping[str, Any] | None, generation: int, keep: float, now: float
) -> Lease:
    """The Lease to write for its holder to give it back, so that nobody has it for `keep` more seconds.

    One that is kept has its last holder's name on it, and is marked as one that nobody may renew.
    """
    stamp = timestamps.micro_time(now)
    spec = {**lease["spec"], "renewTime": stamp, "leaseDurationSeconds": toolbox.whole_seconds(keep) or 1}
    if not keep:
        spec.update(holderIdentity="", acquireTime=stamp)
    notes = {RELEASED: f"{token} {spec.get('acquireTime')}", GENERATION: str(generation)}
    if record is not None:
        notes[RECORD] = _text(record)
    return _written(lease, spec, notes)


def marked(stored_as: str, name: str, key: str, mark: Mapping[str, Any]) -> Lease:
    """The object that says of `key` that it is done: a Lease that nobody holds."""
    notes = {KEY: f"{name} {key}".encode("ascii", "backslashreplace").decode(), MARK: toolbox.dumps(mark)}
    labels = {**MANAGED, MARK: "true"}
    return {**_API, "metadata": {"name": stored_as, "labels": labels, "annotations": notes}, "spec": {}}


def is_held_by(lease: Lease, holder: str) -> bool:
    """Whether `holder` has it, and hasn't given it back; that its time may be over is another matter."""
    return bool(holder) and holder_of(lease) == holder and not is_kept(lease)


def holder_of(lease: Lease) -> str:
    """Whose name is on it; empty for nobody's."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def is_kept(lease: Lease) -> bool:
    """Whether its holder gave it back, to be had by others only when its time is over."""
    acquired = (lease.get("spec") or {}).get("acquireTime")
    return bool(holder_of(lease)) and _note(lease, RELEASED).partition(" ")[2] == str(acquired)


def is_of(lease: Lease, holder: str, acquired: str, generation: int) -> bool:
    """Whether it is still that grant's: of that holder, since that time, and no later keeper's."""
    since = (lease.get("spec") or {}).get("acquireTime")
    return is_held_by(lease, holder) and since == acquired and generation_of(lease) <= generation


def was_released_by(lease: Lease, token: int, generation: int) -> bool:
    """Whether the grant of that token is the last that was given back, by this keeper."""
    return _note(lease, RELEASED).partition(" ")[0] == str(token) and generation_of(lease) == generation


def generation_of(lease: Lease) -> int:
    """Which of its holder's keepers wrote it last."""
    number = _note(lease, GENERATION)
    return int(number) if number.isascii() and number.isdigit() else 0


def token_of(lease: Lease) -> int:
    """The fencing token of the write that gave this Lease. Raises ValueError where it is no number."""
    return int(lease["metadata"]["resourceVersion"])


def record_of(lease: Lease) -> Mapping[str, Any] | None:
    """The record beside it, if there is one."""
    text = _note(lease, RECORD)
    return parsed(text) if text else None


def mark_of(lease: Lease) -> Mapping[str, Any]:
    """The mark in the object of a key. Raises Refused for a damaged one."""
    return parsed_mark(_note(lease, MARK), f"kubernetes: the mark in the Lease {lease['metadata']['name']}")


def name_of(lease: Lease) -> str:
    """The name of the lock, as it was given."""
    return _note(lease, NAME) or str(lease["metadata"]["name"])


def duration_of(lease: Lease, default: float) -> float:
    """How long its holder has it from a renewal on, in seconds; `default` where it doesn't say so."""
    seconds = (lease.get("spec") or {}).get("leaseDurationSeconds")
    return float(seconds) if isinstance(seconds, int) and seconds > 0 else default


def is_whole(value: object) -> bool:
    """Whether this can be worked with as a Lease: what is read without a look is there, and of its kind."""
    if not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        return False
    metadata, spec = value["metadata"], value.get("spec") or {}
    texts = [metadata.get(word) for word in ("name", "namespace", "uid", "resourceVersion")]
    tables = [spec, metadata.get("annotations") or {}, metadata.get("labels") or {}]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(one, dict) for one in tables):
        return False
    return isinstance(spec.get("leaseTransitions") or 0, int)


def stamp_of(lease: Lease) -> float | None:
    """When its renewTime was last written, in Unix seconds by the API server's clock; None if unknown.

    Of several who own that field the latest.
    """
    found = []
    try:
        for entry in lease["metadata"].get("managedFields") or ():
            fields = entry.get("fieldsV1") or {}
            if "f:renewTime" in (fields.get("f:spec") or {}):
                found.append(timestamps.unix_time(entry.get("time")))
    except (AttributeError, TypeError):
        return None
    known = [stamp for stamp in found if stamp is not None]
    return max(known) if known and len(known) == len(found) else None


class Observation:
    """A Lease as it was last seen, None if there is none, and when it is over for those who look on.

    `seen` is the boot-clock reading since which its record is known to be unchanged. `expires` is the one
    from which on its holder has it no more, by this rule or by the server's stamps; None for a free one.
    """

    __slots__ = ("expires", "lease", "seen")

    def __init__(self, lease: Lease | None, seen: float, expires: float | None) -> None:
        self.lease = lease
        self.seen = seen
        self.expires = expires

    def is_free(self, holder: str, now: float) -> bool:
        """Whether `holder` may take it now: nobody has it, or no longer, or `holder` itself."""
        if self.lease is None or self.expires is None or is_held_by(self.lease, holder):
            return True
        return now >= self.expires


def observe(
    lease: Lease | None, before: Observation | None, now: float, default: float, date: float | None
) -> Observation:
    """What is to be thought of `lease`, got at boot-clock reading `now`, after it was seen as `before`.

    `date` is the Unix time that the API server told with it (a whole second that has begun), None to do
    without. `default` is the duration of one that doesn't say its own.
    """
    if lease is None or not holder_of(lease):
        return Observation(lease, now, None)
    duration = duration_of(lease, default)
    same = before is not None and before.lease is not None and before.lease.get("spec") == lease.get("spec")
    seen, expires = (before.seen, before.expires) if before is not None and same else (now, None)
    ends = [seen + duration, *([] if expires is None else [expires])]
    stamp = stamp_of(lease) if date is not None else None
    if stamp is not None and date is not None:
        ends.append(now + (stamp + duration + MARGIN - date))
    return Observation(lease, seen, min(ends))


def _note(lease: Lease, name: str) -> str:
    return str((lease["metadata"].get("annotations") or {}).get(name) or "")


def _text(record: Mapping[str, Any]) -> str:
    """The record as JSON, without as many of its earliest runs as it takes to be short enough."""
    text = toolbox.dumps(record)
    runs = list(record.get("runs") or ())
    while len(text) > LONGEST_RECORD and runs:
        runs.pop()
        text = toolbox.dumps({**record, "runs": runs})
    return text


def _written(lease: Lease, spec: Mapping[str, Any], notes: Mapping[str, str]) -> Lease:
    """The same Lease with another spec and more annotations, to be sent. Who owns which field is not."""
    metadata = {word: value for word, value in lease["metadata"].items() if word != "managedFields"}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
    metadata["labels"] = {**(metadata.get("labels") or {}), **MANAGED}
    return {**lease, "metadata": metadata, "spec": dict(spec)}
