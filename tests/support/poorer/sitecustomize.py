"""Makes this Python one that was built for an older system: put its folder first on PYTHONPATH.

WITHOUT names what `os` and `posix` lack. The word `setsid` takes away that argument of posix_spawn alone.
"""

from __future__ import annotations

import os
import posix
from typing import Any

_spawn = os.posix_spawn


def _without_setsid(*arguments: Any, **options: Any) -> int:
    if options.get("setsid"):
        raise NotImplementedError
    return _spawn(*arguments, **options)


for _name in os.environ["WITHOUT"].split():
    if _name == "setsid":
        os.posix_spawn = posix.posix_spawn = _without_setsid
    else:
        delattr(os, _name)
        delattr(posix, _name)
