"""Loads the modules on the way to the command, faster than the import statement.

It only saves time: a module that isn't loaded here is imported where it is needed. A module comes from the
same compiled file, and by the same rule: that file must have the time and size of its source. In the
executable that needs no Python it comes from the same place in it. `load` leaves out the search of the import
statement (which folder, which kind of file, which lock). That search is three quarters of all that Python
executes on our way to the command: 2.3 of 23 ms.
"""

from __future__ import annotations

import _imp
import marshal
import posix as os
import sys
from _frozen_importlib import FrozenImporter, ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType
    from typing import Any

    Found = tuple[CodeType, ModuleSpec]

# Each module comes after all that it imports: one that is imported before its turn is imported as usual.
CALL = (
    "singleton_run.call.__init__",
    "singleton_run.api.__init__",
    "singleton_run.api.registry",
    "singleton_run.call.options",
    "singleton_run.call.fast_parser",
    "singleton_run.call.executable",
    "singleton_run.system.__init__",
    "singleton_run.system.texts",
    "singleton_run.names",
    "singleton_run.api.lock_address",
    "singleton_run.durations",
    "singleton_run.lease_times",
    "singleton_run.call.settings",
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
KEEPER = (
    "singleton_run.keeper.__init__",
    "singleton_run.keeper.operations",
    "singleton_run.keeper.acquiring",
    "singleton_run.keeper.decisions",
    "singleton_run.keeper.process",
)
_ROOT = globals().get("__file__", "").rpartition("/")[0].rpartition("/")[0]
_IS_FROZEN = "__file__" not in globals()  # a module of the executable that needs no Python has no file
_CACHED = f".{sys.implementation.cache_tag}.pyc"
_HEAD = MAGIC_NUMBER + bytes(4)


def load(names: Iterable[str], first: Iterable[str] = ()) -> None:
    """Load these modules, in this order; `.__init__` is a package. Passes over a module that isn't compiled.

    `first` are a package's modules that its `__init__` imports. They are loaded when the package exists, and
    before its `__init__` is executed.
    """
    if not _IS_FROZEN and (sys.flags.optimize or sys.pycache_prefix):  # the compiled files are elsewhere
        return
    for listed in names:
        name = listed.removesuffix(".__init__")
        if name in sys.modules:
            continue
        is_package = name != listed
        found = _frozen(name, is_package) if _IS_FROZEN else _compiled(name, listed, is_package)
        if found is not None:
            _execute(*found, first if is_package else ())


def _frozen(name: str, is_package: bool) -> Found | None:
    """The code and the spec of a module that is part of this program; None if there is none."""
    try:
        code = _imp.get_frozen_object(name)
    except ImportError:
        return None
    loader: Any = FrozenImporter  # a class, whose functions need no instance
    return code, ModuleSpec(name, loader, origin="frozen", is_package=is_package)


def _compiled(name: str, listed: str, is_package: bool) -> Found | None:
    """The code and the spec of a module with a compiled file that fits its source; None if there is none."""
    folder, _, file = f"{_ROOT}/{listed.replace('.', '/')}".rpartition("/")
    source, cached = f"{folder}/{file}.py", f"{folder}/__pycache__/{file}{_CACHED}"
    try:
        code = _read(source, cached)
    except OSError:
        return None
    if code is None:
        return None
    spec = ModuleSpec(name, SourceFileLoader(name, source), origin=source, is_package=is_package)
    spec.has_location, spec.cached = True, cached
    if is_package:
        spec.submodule_search_locations = [folder]
    return marshal.loads(code), spec  # noqa: S302 - as the import statement does


def _read(source: str, cached: str) -> memoryview | None:
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


def _execute(code: CodeType, spec: ModuleSpec, first: Iterable[str]) -> None:
    """Make a module and execute its code; `first` is as in `load`."""
    name = spec.name
    above, _, last = name.rpartition(".")
    module = sys.modules[name] = type(sys)(name)
    module.__dict__.update(__spec__=spec, __loader__=spec.loader)
    if spec.has_location:
        module.__dict__.update(__file__=spec.origin, __cached__=spec.cached)
    module.__package__ = above
    if spec.submodule_search_locations is not None:
        module.__package__, module.__path__ = name, spec.submodule_search_locations
    try:
        load(first)
        exec(code, module.__dict__)  # noqa: S102 - as the import statement does
    except BaseException:
        del sys.modules[name]
        raise
    if above:
        setattr(sys.modules[above], last, module)
