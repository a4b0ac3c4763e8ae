"""--on: a command for each event, outside the command's tree, one after the other, each with a time limit."""

from __future__ import annotations

import os
import select

from singleton_run import durations
from singleton_run.call.options import OPTIONS
from singleton_run.guard.command_environment import changed, given
from singleton_run.report.telling import News, message, word
from singleton_run.system import calls, fastjson, libc, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.report.events import Event
    from singleton_run.reporter.sinks import Place

MOST = 1000
_SHELL = "/bin/sh"
_TERM, _KILL = 15, 9
_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a command that has run for too long."""
_LOOK = 0.05
"""Seconds between two looks for the end of a command."""
_SHOWN = 200
_NAMES = {"run": "ID"}


class Hooks:
    """See `sinks.Sink`. `waiting` has the commands that are still to be run, each with its event."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._settings = place.settings
        self._news = News()
        self._waiting: list[tuple[dict[str, Any], str]] = []
        self._runs: _Run | None = None
        variables = {name for option in OPTIONS for name in option.variables}
        self._environ = changed(given(), {}, without=variables)

    def hear(self, event: Event) -> None:
        """Have its commands run."""
        if not self._news.has(event):
            return
        told = message(event, self._settings)
        for which, command in self._settings.on:
            if which == word(event.event) and len(self._waiting) < MOST:
                self._waiting.append((told, command))
        self._go_on()

    def finish(self) -> None:
        """Nothing more comes; what is left is run."""

    def busy(self) -> bool:
        """Whether a command runs, or is still to be run."""
        return bool(self._runs or self._waiting)

    def _go_on(self) -> None:
        while self._waiting and self._runs is None:
            told, command = self._waiting.pop(0)
            environ = changed(self._environ, variables(told))
            try:
                self._runs = _Run(self._place, told, command, environ, self._ended)
            except OSError as error:
                self._say(told, f"the command can't be started: {error.strerror}")

    def _ended(self, run: _Run, trouble: str) -> None:
        self._runs = None
        if trouble:
            self._say(run.told, trouble)
        _reap_orphans()
        self._go_on()

    def _say(self, told: dict[str, Any], text: str) -> None:
        self._place.log.say("warning", "undelivered", text=f"--on {told['event']}: {text}")


class _Run:
    """A command that runs for the event `told`. It is ended after --on-timeout."""

    def __init__(
        self, place: Place, told: dict[str, Any], command: str, environ: list[bytes], ended: Any
    ) -> None:
        self.told = told
        self._loop = place.loop
        self._limit = place.settings.on_timeout
        self._ended = ended
        self._said = b""
        self._too_long = False
        self._process, self._output = _spawn(place.directory, command, environ, told)
        self._descriptor = -1
        self._loop.watch(self._output, select.EPOLLIN, lambda _: self._hear())
        self._watch()
        self._timer = self._loop.at(calls.now() + self._limit, self._stop)

    def _watch(self) -> None:
        """Have the command's end told, or look for it where the kernel gives no descriptor of a process."""
        try:
            self._descriptor = libc.pidfd_open(self._process)
        except OSError:
            self._loop.at(calls.now() + _LOOK, self._look)
        else:
            self._loop.watch(self._descriptor, select.EPOLLIN, lambda _: self._end())

    def _look(self) -> None:
        if os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self._end()
        else:
            self._loop.at(calls.now() + _LOOK, self._look)

    def _hear(self) -> None:
        """Keep the end of what it prints."""
        try:
            while data := os.read(self._output, 65536):
                self._said = (self._said + data)[-_SHOWN:]
        except BlockingIOError:
            return
        self._loop.forget(self._output)

    def _stop(self) -> None:
        self._too_long = True
        processes.send(-self._process, _TERM)
        self._timer = self._loop.at(calls.now() + _GRACE, self._kill)

    def _kill(self) -> None:
        processes.send(-self._process, _KILL)

    def _end(self) -> None:
        _, code = os.waitpid(self._process, 0)
        status = os.waitstatus_to_exitcode(code)
        self._hear()
        self._loop.cancel(self._timer)
        if self._too_long:  # what it has started is in its group
            processes.send(-self._process, _KILL)
        self._loop.forget(self._output)
        os.close(self._output)
        if self._descriptor >= 0:
            self._loop.forget(self._descriptor)
            os.close(self._descriptor)
        self._ended(self, self._trouble(status))

    def _trouble(self, status: int) -> str:
        if self._too_long:
            return f"the command ran for longer than {durations.text(self._limit)} and was ended"
        if status == 0:
            return ""
        how = f"ended with {status}" if status > 0 else f"was ended by signal {-status}"
        lines = self._said.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"the command {how}" + (f": {last}" if last else "")


def variables(told: dict[str, Any]) -> dict[str, str]:
    """The event as variables: SINGLETON_EVENT, SINGLETON_STATUS and so on; one without a value is empty."""
    return {
        f"SINGLETON_{_NAMES.get(fact, fact.upper())}": "" if value is None else _text(value)
        for fact, value in told.items()
        if fact != "id"
    }


def _text(value: object) -> str:
    return str(value).replace("\0", "") if isinstance(value, str | int) else f"{value:.3f}"


def _spawn(directory: str, command: str, environ: list[bytes], told: dict[str, Any]) -> tuple[int, int]:
    """Start the command in that directory, with the event on standard input.

    Its process id, and the descriptor that its output comes from.
    """
    given_to, write = os.pipe()
    output, taken_from = os.pipe()
    os.set_blocking(write, False)
    os.set_blocking(output, False)
    standard = (given_to, taken_from, taken_from)
    how = processes.Command(
        _SHELL, ["sh", "-c", command], set(), own_session=True, alone=False, standard=standard
    )
    try:
        os.write(write, fastjson.dumps(told).encode() + b"\n")
        _go_to(directory)
        process = how.spawn(environ)
    except OSError:
        os.close(output)
        raise
    finally:
        calls.leave_directory()
        for descriptor in (given_to, write, taken_from):
            os.close(descriptor)
    return process, output


def _go_to(directory: str) -> None:
    """Change to the directory, if it is still there."""
    try:
        os.chdir(directory)
    except OSError:
        calls.leave_directory()


def _reap_orphans() -> None:
    """Wait for what earlier commands have left behind and has ended: the kernel has made us its parent."""
    for process in processes.children():
        try:
            found = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None and not processes.name(process).startswith("singleton-run"):
                os.waitpid(process, os.WNOHANG)
        except ChildProcessError:
            continue
