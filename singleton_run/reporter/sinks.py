"""Those who are told of events, as far as the call asks for them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from singleton_run.call.settings import Settings
    from singleton_run.report.events import Event
    from singleton_run.report.log import Log
    from singleton_run.reporter.loop import Loop
    from singleton_run.reporter.vitals import Vitals
else:
    Protocol = object


class Sink(Protocol):
    """One who is told of events. None of these calls may wait: what takes time goes by the `Loop`."""

    def hear(self, event: Event) -> None:
        """Something has happened."""

    def finish(self) -> None:
        """The front has ended: nothing more happens. Deliver what is left, and stop listening."""

    def busy(self) -> bool:
        """Whether something is left to deliver. After `finish` the reporter ends when nobody is busy."""


class Place:
    """What a sink works with: its `settings`, the `loop`, the `log` for the user, and the `vitals`.

    `front` is the front's process id.
    """

    def __init__(self, settings: Settings, loop: Loop, log: Log, vitals: Vitals, front: int) -> None:
        self.settings = settings
        self.loop = loop
        self.log = log
        self.vitals = vitals
        self.front = front


def wanted(place: Place, *, over: bool) -> list[Sink]:
    """The sinks that the call asks for. `over` says that the front has ended already."""
    made: list[Sink] = []
    for make in _MAKERS:
        sink = make(place, over)
        if sink is not None:
            made.append(sink)
    return made


_MAKERS: tuple[Callable[[Place, bool], Sink | None], ...] = ()
