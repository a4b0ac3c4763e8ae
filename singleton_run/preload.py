"""Loads the modules on the way to the command, faster than the import statement.

It only saves time: a module that isn't loaded here is imported where it is needed. A module comes from the
same compiled file, and by the same rule: that file must have the time and size of its source. `load` leaves
out the search of the import statement (which folder, which kind of file, which lock). That search is three
quarters of all that Python executes on our way to the command: 2.3 of 23 ms.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Each module comes after all that it imports: one that is imported before its turn is imported as usual.
CALL = (
    "singleton_run.call.__init__",
    "singleton_run.api.__init__",
    "singleton_run.api.registry",
    "singleton_run.call.options",
    "singleton_run.call.fast_parser",
    "singleton_run.call.executable",
    "singleton_run.names",
    "singleton_run.api.lock_address",
    "singleton_run.durations",
    "singleton_run.lease_times",
    "singleton_run.call.settings",
    "singleton_run.system.__init__",
    "singleton_run.system.libc",
    "singleton_run.system.calls",
)
TURN = (
    "singleton_run.system.fastjson",
    "singleton_run.system.messages",
    "singleton_run.system.pipes",
    "singleton_run.system.processes",
    "singleton_run.system.shared_page",
    "singleton_run.system.stderr",
    "singleton_run.system.forked",
    "singleton_run.api.record",
    "singleton_run.api.contract",
    "singleton_run.api.toolbox",
    "singleton_run.api.timestamps",
    "singleton_run.report.__init__",
    "singleton_run.report.log",
    "singleton_run.job",
    "singleton_run.guard.__init__",
    "singleton_run.guard.command_environment",
    "singleton_run.guard.decisions",
    "singleton_run.guard.process",
    "singleton_run.front.__init__",
    "singleton_run.front.keeper_watch",
    "singleton_run.front.ending",
    "singleton_run.front.guard_watch",
    "singleton_run.front.waiting",
    "singleton_run.front.decisions",
    "singleton_run.front.children",
    "singleton_run.front.guard_link",
    "singleton_run.front.receivers",
    "singleton_run.front.process",
    "singleton_run.front.terminal",
    "singleton_run.front.turn_effects",
    "singleton_run.front.kernel_lock_handle",
    "singleton_run.front.start",
)
_ROOT = os.path.dirname(os.path.dirname(globals().get("__file__", "")))  # a frozen module has no file
_CACHED = f".{sys.implementation.cache_tag}.pyc"
_HEAD = MAGIC_NUMBER + bytes(4)


def load(names: Iterable[str], first: Iterable[str] = ()) -> None:
    """Load these modules, in this order; `.__init__` is a package. Passes over a module that isn't compiled.

    `first` are a package's modules that its `__init__` imports. They are loaded when the package exists, and
    before its `__init__` is executed.
    """
    if not _ROOT or sys.flags.optimize or sys.pycache_prefix:  # the compiled files are elsewhere
        return
    for name in names:
        package, _, file = name.rpartition(".")
        if (package if file == "__init__" else name) in sys.modules:
            continue
        folder = f"{_ROOT}/{package.replace('.', '/')}"
        source, cached = f"{folder}/{file}.py", f"{folder}/__pycache__/{file}{_CACHED}"
        try:
            code = _compiled(source, cached)
        except OSError:
            continue
        if code is None:
            continue
        if file == "__init__":
            _execute(code, package, source, cached, folder, first)
        else:
            _execute(code, name, source, cached)


def _compiled(source: str, cached: str) -> memoryview | None:
    """The code in a compiled file; None if the file doesn't fit its source. Raises OSError."""
    descriptor = os.open(cached, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    found = os.stat(source)
    time, size = int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF
    head = _HEAD + time.to_bytes(4, "little") + size.to_bytes(4, "little")
    return memoryview(data)[16:] if data[:16] == head else None


def _execute(
    code: memoryview, name: str, source: str, cached: str, folder: str = "", first: Iterable[str] = ()
) -> None:
    """Make a module and execute its code. For a package, `folder` is its folder; `first` is as in `load`."""
    above, _, last = name.rpartition(".")
    spec = ModuleSpec(name, SourceFileLoader(name, source), origin=source, is_package=bool(folder))
    spec.has_location, spec.cached = True, cached
    module = sys.modules[name] = type(sys)(name)
    module.__dict__.update(__spec__=spec, __loader__=spec.loader, __file__=source, __cached__=cached)
    module.__package__ = name if folder else above
    if folder:
        module.__path__ = spec.submodule_search_locations = [folder]
    try:
        load(first)
        exec(marshal.loads(code), module.__dict__)  # noqa: S102, S302 - as the import statement does
    except BaseException:
        del sys.modules[name]
        raise
    if above:
        setattr(sys.modules[above], last, module)
