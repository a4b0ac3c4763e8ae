"""Events about a Lease, for `kubectl describe lease`. The lock never waits for one."""

from __future__ import annotations

import time

from singleton_run.api import timestamps
from singleton_run.api.deadline import Interrupted
from singleton_run.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.api.deadline import Deadline
    from singleton_run_k8s.client import Api
    from singleton_run_k8s.lease import Lease


class Events:
    """The `pending` Events about a `lease`, which is None while none is known.

    None are pending once the server has refused one.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._refused = False
        self.lease: Lease | None = None
        self.pending: list[dict[str, Any]] = []

    def note(self, event: str, message: str, *, warning: bool = False) -> None:
        """Have an Event about the Lease sent when there is time. `event` is its name, as the log has it."""
        if self.lease is None or self._refused:
            return
        metadata = self.lease["metadata"]
        second = timestamps.micro_time(time.time()).partition(".")[0] + "Z"
        self.pending.append(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "involvedObject": {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    "uid": metadata["uid"],
                    "resourceVersion": metadata["resourceVersion"],
                },
                "reason": "LeaderElection",
                "action": event,
                "message": message,
                "type": "Warning" if warning else "Normal",
                "source": {"component": "singleton-run"},
                "firstTimestamp": second,
                "lastTimestamp": second,
                "count": 1,
            }
        )

    def note_control(self, before: Mapping[str, Any], control: Mapping[str, Any]) -> None:
        """Have Events sent about a pause that begins or ends with `control`, and an order to release."""
        pause, order = control.get("pause"), control.get("release")
        if pause != before.get("pause"):
            text = f"paused by {pause['by'] or 'somebody'}" if pause else "resumed"
            self.note("paused" if pause else "resumed", text)
        if order and order != before.get("release"):
            self.note("revoked", f"{order['holder']} is to release the lease, by {order['by']}", warning=True)

    def send(self, deadline: Deadline) -> None:
        """Send the pending Events. One that can't be sent now is dropped. Never raises."""
        waiting, self.pending = self.pending, []
        for event in waiting:
            if self._refused:
                return
            try:
                self._refused = not self._api.create_event(event, deadline)
            except Failure:
                self._refused = True
            except Interrupted:
                return
