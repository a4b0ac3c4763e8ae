"""Start to end of `true`, bare and behind each wrapper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import commands, measure
from tests.support import installs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ROUNDS = 100
PYTHON = "python -c pass"
TRUE = commands.program("true") or "/bin/true"


def table(
    title: str,
    rounds: int,
    candidates: Mapping[str, list[str] | None],
    bases: Mapping[str, Callable[[str], str]],
) -> None:
    """Print how long each command takes, taking turns; one that is None is missing.

    `bases` has further columns by their heads: for a command's name, whose median its own is divided by.
    """
    times = measure.interleaved({name: argv for name, argv in candidates.items() if argv}, rounds)
    rows = []
    for name in candidates:
        if name in times:
            compared = [times.get(base(name)) for base in bases.values()]
            ratios = [measure.ratios(times[name], base)[0] if base else "-" for base in compared]
            rows.append([name, *measure.p50_p99(times[name]), *ratios])
        else:
            rows.append([name, "-", "-", *("-" for _ in bases)])
            rows[-1][-1] = commands.advice(name)
    measure.table(title, ["", "p50 ms", "p99 ms", *bases], rows)


def _candidates(folder: Path) -> dict[str, list[str] | None]:
    flock, tini, dumb_init = (commands.program(name) for name in ("flock", "tini", "dumb-init"))
    return {
        "true": [TRUE],
        PYTHON: [commands.PYTHON, "-c", "pass"],
        "flock -n f true": [flock, "-n", str(folder / "flock"), TRUE] if flock else None,
        "tini -s -- true": [tini, "-s", "--", TRUE] if tini else None,
        "dumb-init true": [dumb_init, TRUE] if dumb_init else None,
        "singleton-run --name b -- true": commands.ours(folder, TRUE),
    }


def _installed(folder: Path) -> dict[str, list[str] | None]:
    """The command of the wheel in each place that it may be put, and that place's own Python."""
    wheel = installs.build_wheel(folder)
    candidates: dict[str, list[str] | None] = {}
    for layout in installs.LAYOUTS:
        command, environ = installs.installed(layout, wheel, folder / layout)
        interpreter = command.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#!")
        base = environ.get("PYTHONUSERBASE")
        env = [commands.program("env") or "/usr/bin/env", f"PYTHONUSERBASE={base}"] if base else []
        own = [str(command), "--lock", f"file://{folder}", "--name", "b", "--", TRUE]
        candidates[f"{PYTHON}, {layout}"] = [*env, interpreter, "-c", "pass"]
        candidates[f"singleton-run, {layout}"] = [*env, *own]
        lent = installs.lend_click(folder / layout)
        script = installs.put_script(command, folder / f"{layout}-script", environ)
        for file in lent:
            file.unlink()
        candidates[f"its script by install, {layout}"] = [*env, str(script), *own[1:]]
    candidates[f"{commands.STANDALONE.name} as the wheel for Linux has it, venv"] = _for_linux(folder, wheel)
    return candidates


def _for_linux(folder: Path, wheel: Path) -> list[str] | None:
    """The command of the wheel for Linux, installed in a virtual environment; None without the executable."""
    if not commands.STANDALONE.exists():
        return None
    linux = installs.build_wheel_for_linux(wheel, commands.STANDALONE)
    command, _ = installs.installed("venv", linux, folder / "linux")
    return [str(command), "--lock", f"file://{folder}", "--name", "b", "--", TRUE]


def report(folder: Path) -> None:
    """Print the tables. The target for singleton-run is 2.5 × `python -c pass`."""
    title = f"Start to end, {ROUNDS} rounds (target: singleton-run <= 2.5 x {PYTHON})"
    table(title, ROUNDS, _candidates(folder), {"x python": lambda _: PYTHON})
    title = f"The same, installed from the wheel (user: behind env), {ROUNDS} rounds"
    table(
        title, ROUNDS, _installed(folder), {"x python": lambda name: f"{PYTHON}, {name.partition(', ')[2]}"}
    )
