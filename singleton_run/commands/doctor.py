"""`doctor [NAME]`: looks at all that a lock needs, on this machine and on its server, and changes nothing.

One line for each thing: `ok`, `warn` or `BAD`, what was found, and what to do. `--setup` prints nothing but
what an administrator runs on the server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from singleton_run import lease_times
from singleton_run.api import registry, toolbox
from singleton_run.api.finding import Finding, warning
from singleton_run.call import settings
from singleton_run.call.fast_parser import Values, fill
from singleton_run.call.output import refuse, say, show
from singleton_run.commands import machine, timing
from singleton_run.commands.connection import LIMIT, checked_name, let_interrupt, outside
from singleton_run.errors import UNUSABLE, Failure, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import NoReturn

    from singleton_run.api.contract import Backend
    from singleton_run.call.fast_parser import Value
    from singleton_run.call.settings import Settings

_OPTIONS = ("lock", "ttl", "kill_after")
_VARIABLES = tuple(f"SINGLETON_RUN_{option.upper()}" for option in _OPTIONS)
_COLOURS = {Finding.GOOD: "32", Finding.WARNING: "33", Finding.BAD: "1;31"}
# The lock that is read for the time of a round trip if nobody names one.
_ANY = "doctor"
_TIMES = 5


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """Say what is found, one line each, and end: with 0 if nothing is bad, else with 78."""
    try:
        name = checked_name(given) if given.get("name") is not None else ""
        if given.get("setup"):
            _show_setup(_asked(given, environ), environ, name)
        let_interrupt()
        _examine(given, environ, name)
    except Failure as failure:
        refuse(str(failure), failure.status)
    except ValueError as error:
        refuse(str(error))


def _examine(given: Mapping[str, Value], environ: Mapping[str, str], name: str) -> NoReturn:
    report = _Report()
    failure: Failure | None = None
    asked: Settings | None = None
    try:
        asked = _asked(given, environ)
    except Failure as found:
        if found.status != UNUSABLE:
            raise
        failure = found
    report.take(machine.examine(environ))
    if failure is not None:
        report.take([_failed(failure)])
    elif asked is not None:
        _examine_lock(report, asked, environ, name)
    raise SystemExit(UNUSABLE if report.is_bad else 0)


def _examine_lock(report: _Report, asked: Settings, environ: Mapping[str, str], name: str) -> None:
    """Report what is found about the lock: first by the settings alone, then by its backend."""
    kernel_held = registry.is_kernel_held(asked.scheme)
    if not kernel_held:
        report.take(timing.without_server(asked.ttl, asked.kill_after))
    elif environ.get("KUBERNETES_SERVICE_HOST"):
        todo = "say --lock with a lock that the cluster shares"
        report.take([warning("this is a pod, and a lock of the kernel's is one per container", todo)])
    try:
        backend = registry.open_backend(asked.lock_address, environ)
    except Failure as failure:
        report.take([_failed(failure)])
        return
    try:
        if not hasattr(backend, "examine"):
            report.take([_unknown(asked.scheme)])
        else:
            report.take(backend.examine(name, asked.ttl, LIMIT))
        if not kernel_held:
            report.take(_trips(backend, name, asked.ttl, told=report.is_bad))
        said = getattr(backend, "warning", None)
        if said is not None:
            report.take([Finding(Finding.WARNING, said[1])])
    finally:
        backend.close()


def _show_setup(asked: Settings, environ: Mapping[str, str], name: str) -> NoReturn:
    """Print what an administrator runs, and end. Nothing else is on stdout."""
    let_interrupt()
    backend = registry.open_backend(asked.lock_address, environ)
    try:
        if not hasattr(backend, "setup"):
            refuse(f"there is nothing that we know to set up for --lock {asked.scheme}", 0)
        text = backend.setup(name, LIMIT)
    finally:
        backend.close()
    show(text)


def _asked(given: Mapping[str, Value], environ: Mapping[str, str]) -> Settings:
    """The settings of a run with these options. Raises Failure as `settings.check`, ValueError."""
    options = {word: given[word] for word in _OPTIONS if given.get(word) is not None}
    variables = {word: text for word, text in environ.items() if word in _VARIABLES}
    return settings.check(Values(fill(options, variables), [""]), outside(environ))


class _Report:
    """Prints findings as they come. `is_bad`: one of them was bad."""

    def __init__(self) -> None:
        self.is_bad = False
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "dumb")
        self._colours = {} if plain or not os.isatty(1) else _COLOURS

    def take(self, findings: Iterator[Finding] | list[Finding]) -> None:
        """Print each of `findings`. A failure in the middle is the last of them, and is bad."""
        try:
            for finding in findings:
                self._print(finding)
        except Failure as failure:
            self._print(_failed(failure))

    def _print(self, finding: Finding) -> None:
        self.is_bad |= finding.grade == Finding.BAD
        line = one_line(f"{finding.text}: {finding.todo}" if finding.todo else finding.text)
        colour = self._colours.get(finding.grade)
        grade = f"{finding.grade:4}" if colour is None else f"\033[{colour}m{finding.grade:4}\033[m"
        say(f"{grade} {line}\n")


def _failed(failure: Failure) -> Finding:
    """An error as a finding: its line says what to do."""
    return Finding(Finding.BAD, str(failure))


def _unknown(scheme: str) -> Finding:
    return warning(
        f"the lock {scheme} can't be looked at more closely",
        "its package has no `examine`, so version and permissions are unknown here",
    )


def _trips(backend: Backend, name: str, ttl: float, *, told: bool) -> Iterator[Finding]:
    """The time of a round trip and the server's clock. `told`: something bad was said, which may be why."""
    limit = lease_times.request_limit(ttl)
    times = []
    try:
        for _ in range(_TIMES):
            began = toolbox.now()
            backend.read(name or _ANY, LIMIT)
            times.append(toolbox.now() - began)
    except Failure:
        if told:
            return
        raise
    yield timing.trip(sorted(times)[_TIMES // 2], limit)
    yield timing.clock(backend.offset())
