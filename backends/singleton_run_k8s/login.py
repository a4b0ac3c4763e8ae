"""What logging in gives, whichever way it is done."""

from __future__ import annotations

from singleton_run.api.http.client import Client, Endpoint, proxy_to
from singleton_run.api.url import authority, host_and_port
from singleton_run.errors import UNUSABLE, Refused
from singleton_run_k8s.address import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.proxy import Proxy
    from singleton_run.api.http.tls import Tls

    class Login(Protocol):
        """One way to be somebody for an API server."""

        def access(self, deadline: Deadline) -> Access:
            """The way in, made at the first call. Raises Unavailable, Refused, Interrupted."""

        def authorization(self, deadline: Deadline) -> str:
            """What the header `Authorization` says now, empty for nothing. Raises the same."""

        def headers(self) -> Mapping[str, Sequence[str]]:
            """What else is sent with every request, each name with its values: whom to act as."""

        def missing_credentials(self) -> str:
            """Why there are no credentials, as a sentence; empty where there are."""

        def renew(self, refused: str, deadline: Deadline) -> bool:
            """Log in anew after the server refused that header: whether there is something else to try."""

        def close(self) -> None:
            """Drop every connection. Never raises."""


class Access:
    """Where requests go: `path` stands before every path, `namespace` is where the login itself is."""

    __slots__ = ("client", "namespace", "path", "place")

    def __init__(self, url: str, namespace: str, tls: Tls | None, proxy: Proxy | None) -> None:
        host, port, self.path = parts(url)
        self.place = authority(host, port)
        self.namespace = checked(namespace)
        self.client = Client("kubernetes", [Endpoint(host, port, tls, proxy)])


def parts(url: str) -> tuple[str, int, str]:
    """Host, port and path of an API server's address. Raises Refused."""
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    if not separator or scheme not in ("http", "https") or "@" in rest:
        raise Refused("the API server's address is not of the form https://HOST:PORT", UNUSABLE)
    try:
        host, port = host_and_port(place, 443 if scheme == "https" else 80)
    except ValueError as error:
        raise Refused(f"the API server's address: {error}", UNUSABLE) from None
    return host, port, (slash + path).rstrip("/")


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy that HTTPS_PROXY and NO_PROXY say for that address. Raises Refused."""
    host, port, _ = parts(url)
    return proxy_to(host, port, environ) if url.startswith("https://") else None
