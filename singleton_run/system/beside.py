"""The Python command, which the wheel for Linux installs beside the executable.

There the executable is `singleton-run`. Before anything is contacted, it leaves a call that needs what isn't
in it to the Python command of the same wheel: it executes that in its own place. So the process, its
descriptors, arguments and environment stay, and nothing comes back. Only the file of that name in the
executable's own folder is ever executed; a copy of the executable elsewhere has none. A variable has the
executable's version: a Python command of another one, which a copy by hand has left there, refuses the call.
"""

from __future__ import annotations

import posix as os
import sys

from singleton_run import __version__
from singleton_run.errors import UNUSABLE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable, Mapping
else:
    import _signal

NAME = "singleton-run-python"
LEFT_BY = "_SINGLETON_RUN_LEFT_BY"
"""The variable with the version of the executable that has left a call. The Python command takes it away."""
_OURSELVES = "/proc/self/exe"


def take_over(mask: Iterable[int]) -> None:
    """Go on as the Python command, with only the signals in `mask` blocked. Returns where there is none."""
    blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, [])
    try:
        path = _path()
        os.stat(path)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        os.execve(path, sys.orig_argv, {**os.environ, LEFT_BY.encode(): __version__.encode()})
    except OSError:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)


def _path() -> str:
    return f"{os.readlink(_OURSELVES).rpartition('/')[0]}/{NAME}"


def is_there() -> bool:
    """Whether the executable has a Python command beside it."""
    try:
        os.stat(_path())
    except OSError:
        return False
    return True


def check_version() -> None:
    """Called in the Python command. Raises Failure (78) if the executable is of another version."""
    import os as whole

    left_by = whole.environ.pop(LEFT_BY, __version__)
    os.environ.pop(LEFT_BY.encode(), None)
    if left_by != __version__:
        raise Failure(
            UNUSABLE,
            f"singleton-run is of version {left_by}, and {NAME} beside it of {__version__}: install both "
            "anew (pip install --force-reinstall singleton-run), or move the executable to another folder",
        )


def names_auth_provider(environ: Mapping[str, str]) -> bool:
    """Whether a kubeconfig that may be used names an `auth-provider`: the official client knows it."""
    if environ.get("KUBERNETES_SERVICE_HOST") and not environ.get("KUBECONFIG"):
        return False
    import os

    for file in (environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep):
        try:
            with open(os.path.expanduser(file), "rb") as text:
                if b"auth-provider" in text.read():
                    return True
        except OSError:
            continue
    return False
