"""TLS on a wire, with our certificate and the authorities that we trust. Loaded only for https.

`_ssl`, the C part of the ssl module, does all of the checking. The module around it, which takes 11 ms to
import, is used where `_ssl` has no context of its own.
"""

from __future__ import annotations

from singleton_run.api.http.wire import Broken, Untrusted
from singleton_run.errors import UNUSABLE, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl as _ssl
    from collections.abc import Callable
    from typing import Any, TypeVar

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.wire import Wire

    Result = TypeVar("Result")
else:
    try:
        import _ssl
    except ImportError:
        import ssl as _ssl

_PIECE = 65536
_REQUIRED, _NONE = 2, 0
_NOT_TLS = ("wrong version number", "packet length too long", "record layer failure", "http request")


class Tls:
    """The settings of TLS connections. The constructor raises Refused (78) for files that can't be used.

    `ca`, `cert` and `key` are paths of PEM files, empty for none. Without `ca` the system's authorities are
    trusted. `server_name` is the name that the certificate must have in place of the host's. With `insecure`
    the certificate is not checked.
    """

    def __init__(
        self, ca: str = "", cert: str = "", key: str = "", server_name: str = "", *, insecure: bool = False
    ) -> None:
        self.server_name = server_name
        context = self._context = _context()
        if insecure:
            context.check_hostname = False
            context.verify_mode = _NONE
        elif ca:
            _use(ca, lambda: context.load_verify_locations(ca))
        else:
            context.set_default_verify_paths()
        if cert:
            _use(cert, lambda: context.load_cert_chain(cert, key or cert, _no_password))

    def wrap(self, wire: Wire, host: str, deadline: Deadline) -> SecureWire:
        """Shake hands with the other side. Raises Untrusted, Broken, Timeout, Interrupted."""
        secure = self.begin(wire, host)
        secure.agree(deadline)
        return secure

    def begin(self, wire: Wire, host: str) -> SecureWire:
        """TLS on a wire, with the handshake still to come: `SecureWire.agree`. Raises Untrusted."""
        return SecureWire(wire, self._context, self.server_name or host)


def _use(path: str, load: Callable[[], object]) -> None:
    try:
        load()
    except _ssl.SSLError as error:
        raise Refused(
            f"the certificate file {path} or its key can't be used: {_why(error)}", UNUSABLE
        ) from None
    except OSError as error:
        raise Refused(f"the certificate file {path} or its key: {error.strerror}", UNUSABLE) from None
    except ValueError as error:
        raise Refused(f"{path!r} or its key can't be a file: {error}", UNUSABLE) from None


def _context() -> Any:
    """A context for clients, which checks certificate and name."""
    if hasattr(_ssl, "_SSLContext"):
        context = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)  # noqa: SLF001 - ssl.SSLContext without enums
        if context.check_hostname and context.verify_mode == _REQUIRED:
            return context
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _no_password() -> str:
    """An empty password, for an encrypted key: without this OpenSSL would ask at the terminal."""
    return ""


class SecureWire:
    """TLS over another wire. See `wire.Wire`.

    Where that wire never waits, and raises BlockingIOError in place of that, `agree` and `receive` may be
    called again after it.
    """

    def __init__(self, wire: Wire, context: Any, host: str) -> None:
        self._wire = wire
        self._incoming = _ssl.MemoryBIO()
        self._outgoing = _ssl.MemoryBIO()
        wrap = getattr(context, "_wrap_bio", None)
        try:
            if wrap is not None:
                self._tls = wrap(self._incoming, self._outgoing, False, server_hostname=host)
            else:
                self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        except (ValueError, TypeError) as error:  # a name that can't be one
            raise Untrusted(str(error)) from None

    def agree(self, deadline: Deadline) -> None:
        """Shake hands."""
        try:
            self._do(self._tls.do_handshake, deadline)
        except _ssl.SSLError:
            raise Broken("it closed the connection during the TLS handshake: is TLS spoken there?") from None

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of `data`: OpenSSL takes it at once, because the memory that it writes to has no limit."""
        self._do(lambda: self._tls.write(data), deadline)

    def receive(self, deadline: Deadline) -> bytes:
        """The bytes that have come; empty at the end."""
        try:
            return self._do(lambda: bytes(self._tls.read(_PIECE)), deadline)
        except _ssl.SSLError:
            return b""

    def close(self) -> None:
        """Close the wire below, without a TLS alert, which the other side need not read."""
        self._wire.close()

    def _do(self, work: Callable[[], Result], deadline: Deadline) -> Result:
        """Do `work`, a call of OpenSSL's, and carry bytes between it and the wire until it is done.

        Raises SSLError if the other side has closed, Untrusted for every other error of TLS.
        """
        while True:
            try:
                result = work()
            except _ssl.SSLWantReadError:
                self._flush(deadline)
                self._feed(deadline)
            except (_ssl.SSLZeroReturnError, _ssl.SSLEOFError):
                raise
            except _ssl.SSLError as error:
                raise Untrusted(_why(error)) from None
            else:
                self._flush(deadline)
                return result

    def _feed(self, deadline: Deadline) -> None:
        data = self._wire.receive(deadline)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self, deadline: Deadline) -> None:
        data = self._outgoing.read()
        if data:
            self._wire.send(data, deadline)


def _why(error: Any) -> str:
    """OpenSSL's error in plain words. Its own are like `[SSL: CERTIFICATE_VERIFY_FAILED] certificate …`."""
    verify = getattr(error, "verify_message", "")
    if verify:
        return f"its certificate is not trusted ({verify})"
    reason = (getattr(error, "reason", "") or str(error)).lower().replace("_", " ")
    if reason in _NOT_TLS:
        return "what answers there doesn't speak TLS"
    return f"TLS failed ({reason})"
