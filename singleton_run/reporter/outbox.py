"""What is sent to one web server: one request after the other, each until the server has taken it."""

from __future__ import annotations

from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.reporter.sinks import Place
    from singleton_run.reporter.web import Answered, Letter, Target

MOST = 1000
"""The earliest of more requests than that are dropped."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class Outbox:
    """The requests for `target`, in order. `option` is what the user gave it by.

    A request that fails is tried again, with growing pauses. One that the server refuses is dropped. The user
    is told of the first failure in a row, and of each refusal.
    """

    def __init__(self, place: Place, option: str, target: Target) -> None:
        self._place = place
        self._option = option
        self._target = target
        self._letters: list[Letter] = []
        self._is_sending = False
        self._pause = 0.0

    def add(self, letter: Letter) -> None:
        """Send this after all others."""
        self._letters.append(letter)
        if len(self._letters) > MOST:
            del self._letters[1]  # the first may be on its way
            self._say(f"more than {MOST} wait for {self._target.place}: the earliest are dropped")
        self._go_on()

    def busy(self) -> bool:
        """Whether anything is left to send."""
        return bool(self._letters)

    def _go_on(self) -> None:
        if not self._letters or self._is_sending:
            return
        self._is_sending = True
        letter = self._letters[0]
        self._place.loop.in_thread(lambda: self._target.send(letter), self._sent)

    def _sent(self, answered: Answered | None) -> None:
        trouble = "the request failed" if answered is None else answered.trouble
        if answered is not None and answered.again:
            if not self._pause:
                self._say(f"{trouble}; trying again")
            self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
            self._place.loop.at(calls.now() + self._pause, self._again)
            return
        if trouble:
            self._say(f"{trouble}; this isn't sent again")
        self._pause = 0.0
        del self._letters[0]
        self._again()

    def _again(self) -> None:
        self._is_sending = False
        self._go_on()

    def _say(self, text: str) -> None:
        self._place.log.say("warning", "undelivered", text=f"{self._option}: {text}")
