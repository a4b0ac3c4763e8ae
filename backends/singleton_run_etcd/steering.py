"""The calls for people: look at a lock, change its control, free it. No call of a turn needs this module."""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.contract import Look
from singleton_run_etcd import keys
from singleton_run_etcd.backend import lease_end, record_of
from singleton_run_etcd.client import Op
from singleton_run_etcd.keys import Keys, all_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.api.deadline import Deadline
    from singleton_run_etcd.client import Compare, Server


def look(server: Server, among: Keys, name: str, deadline: Deadline) -> Look:
    """See `contract.Backend`. A lease that has ended takes its key along, so no state is EXPIRED."""
    ranges = [all_below(among.queue(name)), Op("range", among.record(name)), Op("range", among.control(name))]
    places, record, control = server.txn([], ranges, [], deadline).found
    state, holder = Look.FREE, None
    if places:
        first = places[0]
        state = Look.KEPT if keys.is_kept(first) else Look.HELD
        # A foreign client's key may have no lease.
        holder = keys.held(first, lease_end(server, first, deadline) if first.lease else None)
        keys.dated(holder, record_of(record))
    return Look(
        state,
        holder,
        record_of(record),
        control=keys.control_of(control),
        version=str(control[0].modified) if control else "",
        waiting=[keys.held(place) for place in places[1:]],
    )


def steer(
    server: Server, among: Keys, name: str, version: str, control: Mapping[str, Any], deadline: Deadline
) -> bool:
    """See `contract.Backend`. Whoever gets the lock after the first of the two steps has read the control."""
    key = among.control(name)
    is_same: list[Compare] = [("modified", key, int(version or "0"))]
    put = Op("put", key, value=toolbox.dumps(control))
    outcome = server.txn(is_same, [put, among.oldest(name)], [], deadline)
    if not outcome.succeeded:
        return False
    for holder in outcome.found[1]:
        # A touch of a key that is gone would be an error.
        server.txn([("create", holder.key, holder.created)], [Op("touch", holder.key)], [], deadline)
    return True


def free(server: Server, among: Keys, name: str, seen: Look, deadline: Deadline) -> bool:
    """See `contract.Backend`. The lease of the key ends by itself."""
    found, _ = server.range(among.oldest(name), deadline)
    if seen.holder is None or not found:
        return False
    key, there = found[0].key, keys.held(found[0])
    if (there.holder, there.token) != (seen.holder.holder, seen.holder.token):
        return False
    return server.txn([("create", key, there.token)], [Op("delete", key)], [], deadline).succeeded
