"""What the module `os` has beside the kernel's calls, as far as a plain call needs it.

The modules on the way to the command import `posix`, in which those calls are, by the name of `os`. Importing
`os` itself makes thirty abstract classes, which takes a seventh of all that we execute.
"""

from __future__ import annotations

import posix
import sys

_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()


def fsencode(text: str) -> bytes:
    """The bytes that the kernel has for this argument, path or variable."""
    return text.encode(_ENCODING, _ERRORS)


def fsdecode(data: bytes) -> str:
    """The text for these bytes of the kernel's; `fsencode` makes the same bytes of it."""
    return data.decode(_ENCODING, _ERRORS)


environ = {fsdecode(name): fsdecode(value) for name, value in posix.environ.items()}
"""The variables that this process was started with."""
