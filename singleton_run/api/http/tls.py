"""TLS on a wire: who we are, whom we trust. Loaded only for https.

`_ssl`, the C part of the ssl module, does all of the checking; the module around it takes 11 ms to
import and is the fall-back.
"""

from __future__ import annotations

from singleton_run.api.http.connection import Broken, Untrusted
from singleton_run.errors import UNUSABLE, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl as _ssl
    from collections.abc import Callable
    from typing import Any, TypeVar

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.connection import Wire

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
    """What a TLS connection needs. The texts are paths of PEM files, empty for none.

    Without `ca` the system's own authorities are trusted. `server_name` is what the certificate
    must say in place of the host. `insecure` trusts anybody. Raises Refused for files of no use.
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
        """Agree on TLS with the other side. Raises Untrusted, Broken, Timeout, Interrupted."""
        secure = SecureWire(wire, self._context, self.server_name or host)
        secure.agree(deadline)
        return secure


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
    """A client's context that checks certificate and name."""
    if hasattr(_ssl, "_SSLContext"):
        context = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)  # noqa: SLF001 - ssl.SSLContext without enums
        if context.check_hostname and context.verify_mode == _REQUIRED:
            return context
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _no_password() -> str:
    """For a key that needs one: OpenSSL would ask at the terminal."""
    return ""


class SecureWire:
    """TLS over another wire. See `connection.Wire`."""

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
        except ValueError as error:
            raise Untrusted(str(error)) from None

    def agree(self, deadline: Deadline) -> None:
        """Shake hands."""
        try:
            self._do(self._tls.do_handshake, deadline)
        except _ssl.SSLError:
            raise Broken("it closed the connection during the TLS handshake: is TLS spoken there?") from None

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of it: OpenSSL takes the whole, for the memory that it writes to has no end."""
        self._do(lambda: self._tls.write(data), deadline)

    def receive(self, deadline: Deadline) -> bytes:
        """What has come; empty at the end."""
        try:
            return self._do(lambda: bytes(self._tls.read(_PIECE)), deadline)
        except _ssl.SSLError:
            return b""

    def close(self) -> None:
        """Close the wire below; nothing is said to the other side, which need not listen."""
        self._wire.close()

    def _do(self, work: Callable[[], Result], deadline: Deadline) -> Result:
        """Do `work` of OpenSSL's, carrying bytes between it and the wire until it is done.

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
    """In plain words: OpenSSL says `[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: …`."""
    verify = getattr(error, "verify_message", "")
    if verify:
        return f"its certificate is not trusted ({verify})"
    reason = (getattr(error, "reason", "") or str(error)).lower().replace("_", " ")
    if reason in _NOT_TLS:
        return "what answers there doesn't speak TLS"
    return f"TLS failed ({reason})"
