"""What has to be right before anything is contacted: the packages are there, and the address is free."""

from __future__ import annotations

import errno
import os
import select
import sys

from singleton_run.api.resolve import literal
from singleton_run.errors import UNUSABLE, USAGE, Failure
from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any

    from singleton_run.call.settings import Settings
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

PACKAGE = "prometheus_client"
UNIX = "unix:"
_TAKEN_FOR = 2.0
_AGAIN_MILLISECONDS = 20
_BACKLOG = 64
_SHOWN = 200


def prepare(settings: Settings) -> int:
    """Check what the reporter needs. Returns the descriptor that listens at --metrics-addr, -1 without it.

    Raises Failure.
    """
    if settings.metrics_addr is None and settings.metrics_file is None:
        return -1
    option = "--metrics-file" if settings.metrics_addr is None else "--metrics-addr"
    if not _is_installed(PACKAGE):
        raise Failure(UNUSABLE, f"{option} needs the package prometheus-client: {_remedy()}")
    if settings.metrics_file is not None:
        _check_file(settings.metrics_file)
    return -1 if settings.metrics_addr is None else listen(settings.metrics_addr).detach()


def _is_installed(package: str) -> bool:
    """Whether the package can be imported, without doing it: it is the reporter's."""
    if "_singleton_run" in sys.builtin_module_names:
        import _imp

        return _imp.is_frozen(package)
    from _frozen_importlib_external import PathFinder

    from singleton_run import late_site

    if PathFinder.find_spec(package) is None:
        late_site.load()
    return PathFinder.find_spec(package) is not None


def _remedy() -> str:
    if "_singleton_run" in sys.builtin_module_names:
        return (
            "it isn't in this executable, so use the package of Python (pip install 'singleton-run[metrics]')"
        )
    return "pip install 'singleton-run[metrics]'"


def _check_file(path: str) -> None:
    """Make a file beside `path`, as each write will, and remove it. Raises Failure."""
    part = f"{path}.{os.getpid()}"
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        os.unlink(part)
    except OSError as error:
        shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
        why = f"{error.strerror}: name a file in a directory that we may write to"
        raise Failure(UNUSABLE, f"--metrics-file {shown!r}: {why}") from None


def listen(address: str) -> _socket.socket:
    """A socket that listens there, closed on exec. Raises Failure.

    An address that is taken is tried for two seconds: the call before us may be about to let it go.
    """
    until = calls.now() + _TAKEN_FOR
    while True:
        try:
            return _unix(address[len(UNIX) :]) if address.startswith(UNIX) else _tcp(address)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", 0) != errno.EADDRINUSE or calls.now() >= until:
                why = getattr(error, "strerror", None) or str(error)
                raise Failure(
                    UNUSABLE, f"--metrics-addr {address}: {why}: give an address that is free"
                ) from None
        select.poll().poll(_AGAIN_MILLISECONDS)


def _tcp(address: str) -> _socket.socket:
    host, _, port = address.rpartition(":")
    host = {"": "::", "localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]"))
    found = literal(host, int(port))
    if not found:
        raise Failure(USAGE, f"--metrics-addr: {host!r} is no address of this machine: give an IP address")
    family, place = found[0]
    try:
        return _bound(family, place)
    except OSError as error:
        if host != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _bound(_socket.AF_INET, ("0.0.0.0", int(port)))  # noqa: S104 - asked for: no host is any


def _bound(family: int, place: tuple[Any, ...] | str) -> _socket.socket:
    made = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if family != _socket.AF_UNIX:
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            made.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        made.bind(place)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _unix(path: str) -> _socket.socket:
    """Bind the path. A socket there that nobody listens on any more is replaced."""
    try:
        return _bound(_socket.AF_UNIX, path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
    finally:
        probe.close()
    return _bound(_socket.AF_UNIX, path)


def stop_listening(descriptor: int, address: str) -> None:
    """Let the address go, although a reporter that hangs still has the socket."""
    listener = _socket.socket(fileno=descriptor)
    try:
        listener.shutdown(_socket.SHUT_RDWR)
    except OSError:
        pass
    if address.startswith(UNIX):
        try:
            os.unlink(address[len(UNIX) :])
        except OSError:
            pass
    listener.close()
