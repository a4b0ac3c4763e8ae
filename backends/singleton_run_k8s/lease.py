"""Reading Leases, and making those to write, by client-go's record and rules. Nothing is sent from here.

A Lease is a dict, the object as the API server gives it. It is never changed in place.
"""

from __future__ import annotations

from singleton_run.api import control as controls
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
CONTROL, CHANGE, TOKEN = f"{DOMAIN}/control", f"{DOMAIN}/control-change", f"{DOMAIN}/token"
MARK, KEY = f"{DOMAIN}/mark", f"{DOMAIN}/key"
MANAGED = {"app.kubernetes.io/managed-by": "singleton-run"}
LONGEST_RECORD = 4096
MARGIN = 2.0
"""Seconds added to a lease that is judged by the stamps of several API servers: their clocks may differ."""

_API = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}


def taken(lease: Lease | None, name: str, holder: str, ttl: float, now: float, stored_as: str) -> Lease:
    """The Lease to write so that `holder` has it: a new one, or the present one taken over.

    A holder that asks again keeps its acquireTime and the count of transitions, as with client-go.
    """
    stamp = timestamps.micro_time(now)
    spec: dict[str, Any] = {"leaseTransitions": 0} if lease is None else dict(lease.get("spec") or {})
    if lease is not None and not is_held_by(lease, holder):
        spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec["acquireTime"] = stamp
    spec.setdefault("acquireTime", stamp)
    spec.update(holderIdentity=holder, leaseDurationSeconds=toolbox.whole_seconds(ttl), renewTime=stamp)
    base = lease or {**_API, "metadata": {"name": stored_as}}
    # The server gives the token with its answer to this.
    told = {TOKEN: ""} if _note(base, TOKEN) else {}
    return _written(base, spec, {NAME: name, GENERATION: "0", **told})


def renewed(lease: Lease, token: int, ttl: float, generation: int, now: float) -> Lease:
    """The Lease to write so that its holder has it for another `ttl` seconds. It tells the holder's token."""
    seconds = toolbox.whole_seconds(ttl)
    spec = {**lease["spec"], "leaseDurationSeconds": seconds, "renewTime": timestamps.micro_time(now)}
    notes = {GENERATION: str(generation), TOKEN: f"{token} {spec.get('acquireTime')}"}
    return _written(lease, spec, notes)


def recorded(lease: Lease, record: Mapping[str, Any]) -> Lease:
    """The Lease to write with `record` beside it. Its time is not renewed."""
    return _written(lease, lease["spec"], {RECORD: _text(record)})


def released(
    lease: Lease, token: int, record: Mapping[str, Any] | None, generation: int, keep: float, now: float
) -> Lease:
    """The Lease to write so that its holder gives it back, and nobody gets it for `keep` more seconds.

    While it is kept, its last holder's name stays on it, with an annotation by which nobody renews it.
    """
    stamp = timestamps.micro_time(now)
    spec = {**lease["spec"], "renewTime": stamp, "leaseDurationSeconds": toolbox.whole_seconds(keep) or 1}
    if not keep:
        spec.update(holderIdentity="", acquireTime=stamp)
    notes = {RELEASED: f"{token} {spec.get('acquireTime')}", GENERATION: str(generation)}
    if record is not None:
        notes[RECORD] = _text(record)
    return _written(lease, spec, notes)


def freed(lease: Lease, now: float) -> Lease:
    """The Lease to write so that its holder has it no more, though it has given nothing back."""
    stamp = timestamps.micro_time(now)
    spec = {**(lease.get("spec") or {}), "holderIdentity": "", "leaseDurationSeconds": 1}
    return _written(lease, {**spec, "renewTime": stamp, "acquireTime": stamp}, {})


def steered(lease: Lease | None, name: str, stored_as: str, control: Mapping[str, Any], change: str) -> Lease:
    """The Lease to write with `control` beside it: the present one, or a new one that nobody holds.

    `change` is a text that no other change of the control has.
    """
    base = lease or {**_API, "metadata": {"name": stored_as}}
    notes = {NAME: name, CONTROL: toolbox.dumps(control), CHANGE: change}
    return _written(base, base.get("spec") or {}, notes)


def marked(stored_as: str, name: str, key: str, mark: Mapping[str, Any]) -> Lease:
    """The object that marks `key` as done: a Lease that nobody holds."""
    notes = {KEY: f"{name} {key}".encode("ascii", "backslashreplace").decode(), MARK: toolbox.dumps(mark)}
    labels = {**MANAGED, MARK: "true"}
    return {**_API, "metadata": {"name": stored_as, "labels": labels, "annotations": notes}, "spec": {}}


def is_held_by(lease: Lease, holder: str) -> bool:
    """Whether `holder` has it and hasn't given it back. It may have expired all the same."""
    return bool(holder) and holder_of(lease) == holder and not is_kept(lease)


def holder_of(lease: Lease) -> str:
    """The holder's name; empty for nobody."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def is_kept(lease: Lease) -> bool:
    """Whether its holder gave it back, and others get it only when it expires."""
    acquired = (lease.get("spec") or {}).get("acquireTime")
    return bool(holder_of(lease)) and _note(lease, RELEASED).partition(" ")[2] == str(acquired)


def is_of(lease: Lease, holder: str, acquired: str, generation: int) -> bool:
    """Whether it is still a grant's: held by that holder since that time, and by no later keeper."""
    since = (lease.get("spec") or {}).get("acquireTime")
    return is_held_by(lease, holder) and since == acquired and generation_of(lease) <= generation


def was_released_by(lease: Lease, token: int, generation: int) -> bool:
    """Whether the grant with that token was the last to be given back, by a keeper of this generation."""
    return _note(lease, RELEASED).partition(" ")[0] == str(token) and generation_of(lease) == generation


def generation_of(lease: Lease) -> int:
    """The generation of the keeper that wrote it last."""
    number = _note(lease, GENERATION)
    return int(number) if number.isascii() and number.isdigit() else 0


def token_of(lease: Lease) -> int:
    """The fencing token of the write that gave this Lease. Raises ValueError if its version is no number."""
    return int(lease["metadata"]["resourceVersion"])


def known_token(lease: Lease) -> int | None:
    """The present holder's token, as its last renewal or its record tells it; None where neither does."""
    token, _, since = _note(lease, TOKEN).partition(" ")
    if since and since == str((lease.get("spec") or {}).get("acquireTime")) and token.isdecimal():
        return int(token)
    record = record_of(lease)
    if record is None or record["holder"] != holder_of(lease):
        return None
    return int(record["token"])


def control_text(lease: Lease) -> str | None:
    """The control beside it, as it is written; None without one."""
    text = (lease["metadata"].get("annotations") or {}).get(CONTROL)
    return None if text is None else str(text)


def control_of(lease: Lease) -> Mapping[str, Any] | None:
    """The control beside it; None without one."""
    text = control_text(lease)
    return None if text is None else controls.parsed(text)


def is_paused(lease: Lease) -> bool:
    """Whether there is a pause beside it, be it over or not."""
    control = control_of(lease)
    return control is not None and control["pause"] is not None


def control_version(lease: Lease | None) -> str:
    """A text that names the control beside it, also one that was written by hand; empty without one."""
    if lease is None or (text := control_text(lease)) is None:
        return ""
    return toolbox.digest([_note(lease, CHANGE), text])


def is_later(lease: Lease, other: Lease) -> bool:
    """Whether it is a later version of the same Lease than the other."""
    return token_of(lease) > token_of(other)


def record_of(lease: Lease) -> Mapping[str, Any] | None:
    """The record beside it, if there is one."""
    text = record_text(lease)
    return parsed(text) if text else None


def record_text(lease: Lease) -> str | None:
    """The same as text."""
    return _note(lease, RECORD) or None


def mark_of(lease: Lease) -> Mapping[str, Any]:
    """The mark in the object of a key. Raises Refused for a damaged one."""
    return parsed_mark(_note(lease, MARK), f"kubernetes: the mark in the Lease {lease['metadata']['name']}")


def name_of(lease: Lease) -> str:
    """The name of the lock, as the user gave it."""
    return _note(lease, NAME) or str(lease["metadata"]["name"])


def duration_of(lease: Lease, default: float) -> float:
    """The seconds for which a renewal holds it; `default` where the Lease doesn't have them."""
    seconds = (lease.get("spec") or {}).get("leaseDurationSeconds")
    return float(seconds) if isinstance(seconds, int) and seconds > 0 else default


def is_whole(value: object) -> bool:
    """Whether `value` is usable as a Lease: each field that is read unchecked is there, and of its type."""
    if not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        return False
    metadata, spec = value["metadata"], value.get("spec") or {}
    texts = [metadata.get(word) for word in ("name", "namespace", "uid", "resourceVersion")]
    tables = [spec, metadata.get("annotations") or {}, metadata.get("labels") or {}]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(one, dict) for one in tables):
        return False
    return isinstance(spec.get("leaseTransitions") or 0, int)


def stamp_of(lease: Lease) -> float | None:
    """The Unix time of the last write of its renewTime, by the API server's clock; None if unknown.

    Several clients may own that field: the latest write counts.
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
    """A Lease as it was last seen (None: there is none), and when it expires.

    `seen` is the boot clock's reading since which its record is unchanged, as client-go's observedTime.
    `expires` is the reading at which its holder has it no more, by client-go's rule or by the server's
    stamps; None for a free one.
    """

    __slots__ = ("expires", "lease", "seen")

    def __init__(self, lease: Lease | None, seen: float, expires: float | None) -> None:
        self.lease = lease
        self.seen = seen
        self.expires = expires

    def is_free(self, holder: str, now: float) -> bool:
        """Whether `holder` may take it now: nobody has it, it has expired, or `holder` has it already."""
        if self.lease is None or self.expires is None or is_held_by(self.lease, holder):
            return True
        return now >= self.expires


def observe(
    lease: Lease | None, before: Observation | None, now: float, default: float, date: float | None
) -> Observation:
    """The observation of `lease`, read when the boot clock showed `now`, after the observation `before`.

    `date` is the Unix time that the API server told with it, cut off to whole seconds; None to do without.
    `default` is the duration, in seconds, of a Lease that has none.
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
    """The record as JSON. Its earliest runs are left out until it is short enough."""
    text = toolbox.dumps(record)
    runs = list(record.get("runs") or ())
    while len(text) > LONGEST_RECORD and runs:
        runs.pop()
        text = toolbox.dumps({**record, "runs": runs})
    return text


def _written(lease: Lease, spec: Mapping[str, Any], notes: Mapping[str, str]) -> Lease:
    """The Lease to send, with another spec and more annotations, without the list of its fields' owners."""
    metadata = {word: value for word, value in lease["metadata"].items() if word != "managedFields"}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
    metadata["labels"] = {**(metadata.get("labels") or {}), **MANAGED}
    return {**lease, "metadata": metadata, "spec": dict(spec)}
