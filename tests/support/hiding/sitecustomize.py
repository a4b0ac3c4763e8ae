"""Makes this Python one without some modules, named in HIDDEN: put its folder first on PYTHONPATH."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_HIDDEN = os.environ["HIDDEN"].split()


class _Hides:
    """A finder that is asked first, and finds that there is no such module."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> None:
        """None for what is not hidden. Raises ModuleNotFoundError."""
        if name in _HIDDEN or name.partition(".")[0] in _HIDDEN:
            message = f"No module named {name!r}"
            raise ModuleNotFoundError(message, name=name)


sys.meta_path.insert(0, _Hides())
for _name in _HIDDEN:
    sys.modules.pop(_name, None)
