"""Has every fork of singleton-run refused while the file NO_FORK exists, and written down in that file.

Put its folder first on PYTHONPATH.
"""

from __future__ import annotations

import errno
import os
import posix

_fork = os.fork


def _refused() -> int:
    try:
        with open(os.environ["NO_FORK"], "r+") as file:
            file.write("refused")
    except FileNotFoundError:
        return _fork()
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


os.fork = posix.fork = _refused
