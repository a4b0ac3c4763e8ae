"""In place of Python's `_frozen_importlib_external`, the import of modules from files: here are no files.

Modules come from the executable, where most are compressed. CPython loads this module when it starts. Who
asks for any other of its names, as `importlib.util` does, gets those of the whole module, which is here as
`_whole_importlib_external`.
"""

import _frozen_importlib as _bootstrap
import sys

import _packed  # type: ignore[import-not-found]  # native/packed.c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

# singleton_run.preload imports both at each start, and uses neither here.
MAGIC_NUMBER = b""


class SourceFileLoader:
    """A part of the module's interface."""


class PackedImporter:
    """Imports the modules that are in the executable in compressed form (native/packed.c)."""

    @staticmethod
    def find_spec(name: str, *_: "Any") -> "Any":
        """What the import statement has to know of that module; None if it isn't here."""
        is_package = _packed.is_package(name)
        if is_package is None:
            return None
        loader: Any = PackedImporter
        return _bootstrap.ModuleSpec(name, loader, origin="frozen", is_package=is_package)

    @staticmethod
    def create_module(spec: "Any") -> None:
        """A module as usual."""

    @staticmethod
    def exec_module(module: "ModuleType") -> None:
        """Execute the module's code in it."""
        exec(_packed.code(module.__name__), module.__dict__)  # noqa: S102 - that's what an import is


def _install(bootstrap: "ModuleType") -> None:
    """CPython calls it to add the import from files to sys.meta_path: here they come from the executable."""
    sys.meta_path.append(PackedImporter)


def _set_bootstrap_module(bootstrap: "ModuleType") -> None:
    """A part of the interface: `importlib` calls it where the module isn't frozen."""


def __getattr__(name: str) -> "Any":
    """Any other name. Raises AttributeError."""
    if name.startswith("__"):  # the import statement looks whether there is a `__path__`
        raise AttributeError(name)
    import _frozen_importlib

    import _whole_importlib_external as whole  # type: ignore[import-not-found]

    whole._set_bootstrap_module(_frozen_importlib)  # noqa: SLF001 - as importlib does
    return getattr(whole, name)
