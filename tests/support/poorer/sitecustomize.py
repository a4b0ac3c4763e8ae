"""Makes this Python one that was built for an older system: put its folder first on PYTHONPATH.

WITHOUT names what `os` lacks. The word `setsid` takes away that argument of posix_spawn alone.
"""

from __future__ import annotations

import os
from typing import Any

_spawn = os.posix_spawn


def _without_setsid(*arguments: Any, **options: Any) -> int:
    if options.get("setsid"):
        raise NotImplementedError
    return _spawn(*arguments, **options)


for _name in os.environ["WITHOUT"].split():
    if _name == "setsid":
        os.posix_spawn = _without_setsid
    else:
        delattr(os, _name)
