"""Makes a function of singleton-run fail in every process: put its folder first on PYTHONPATH.

RAISE_AT is the function's qualified name. What is raised has a text that nobody is to see.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

_AT = os.environ["RAISE_AT"]


def _fail(frame: FrameType, event: str, _: Any) -> None:
    code = frame.f_code
    if event == "call" and code.co_qualname == _AT and "singleton_run" in code.co_filename:
        message = "a secret"
        raise RuntimeError(message)


sys.setprofile(_fail)
