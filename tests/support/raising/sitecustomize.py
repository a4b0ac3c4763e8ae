"""Makes a function of singleton-run fail in every process: put its folder first on PYTHONPATH.

RAISE_AT is the function's qualified name, and RAISE the exception's, if it isn't RuntimeError. What is raised
has a text that nobody is to see.
"""

from __future__ import annotations

import builtins
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

_AT = os.environ["RAISE_AT"]
_RAISED = getattr(builtins, os.environ.get("RAISE", "RuntimeError"))


def _fail(frame: FrameType, event: str, _: Any) -> None:
    code = frame.f_code
    if event == "call" and code.co_qualname == _AT and "singleton_run" in code.co_filename:
        message = "a secret"
        raise _RAISED(message)


sys.setprofile(_fail)
