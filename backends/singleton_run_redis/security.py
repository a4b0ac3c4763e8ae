"""TLS as an address asks for it, and what may be wrong where one side speaks it and the other doesn't."""

from __future__ import annotations

from singleton_run.api.deadline import Timeout
from singleton_run.api.http.wire import Broken, Untrusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.tls import Tls
    from singleton_run.api.http.wire import Wire
    from singleton_run_redis.address import Address

NO_HANDSHAKE = "no answer to the TLS handshake in time: is TLS spoken there?"
# What to do, by a word in OpenSSL's own text; the first that fits counts. An alert is about us.
_ADVICE = {
    "alert": "does the server ask for a certificate of ours (ssl_certfile)?",
    "mismatch": "it must have the host that we dial, or the name in ssl_server_name",
    "expired": "renew it on the server",
    "not trusted": "name its authority in ssl_ca_certs",
}


def settings(address: Address) -> Tls | None:
    """The settings of TLS, None without. Raises Refused (78) for files that can't be used."""
    if not address.tls:
        return None
    from singleton_run.api.http.tls import Tls

    return Tls(address.ca, address.cert, address.key, address.server_name, insecure=address.insecure)


def secured(tls: Tls | None, wire: Wire, host: str, deadline: Deadline) -> Wire:
    """The wire with TLS on it, whose certificate must be that of `host`; the wire itself without settings.

    Raises Untrusted, Broken, Interrupted.
    """
    if tls is None:
        return wire
    try:
        return tls.wrap(wire, host, deadline)
    except Untrusted as error:
        raise advised(error) from None
    except Timeout:
        # Redis waits for more where TLS is spoken to a port without it.
        raise Broken(NO_HANDSHAKE) from None


def advised(error: Untrusted) -> Untrusted:
    """The same error, with what to do."""
    advice = next((text for word, text in _ADVICE.items() if word in str(error)), "")
    return Untrusted(f"{error}: {advice}") if advice else error


def no_greeting(error: Broken, *, tls: bool) -> Broken:
    """Why a connection broke that was made and never used."""
    if isinstance(error, Untrusted):
        return advised(error)
    # A certificate of ours is only missed after the handshake, and the server's word of it may be lost.
    hint = "does it ask for a certificate of ours (ssl_certfile)?" if tls else "is it Redis, and without TLS?"
    return Broken(f"{error}: {hint}")


def why(before: Exception, error: Exception) -> Exception:
    """Of two failures at addresses of one host the one to tell of: a certificate that isn't trusted."""
    return before if isinstance(before, Untrusted) else error
