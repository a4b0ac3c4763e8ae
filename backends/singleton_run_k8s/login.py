"""A login, of whatever kind: the way to the API server, and the credentials."""

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
        """One kind of login."""

        def access(self, deadline: Deadline) -> Access:
            """The way to the server, made at the first call. Raises Unavailable, Refused, Interrupted."""

        def authorization(self, deadline: Deadline) -> str:
            """The present value of the header `Authorization`, empty for none. Raises the same."""

        def headers(self) -> Mapping[str, Sequence[str]]:
            """Further headers of every request, each name with its values: the user to act as."""

        def missing_credentials(self) -> str:
            """The reason why there are no credentials, as a sentence; empty where there are some."""

        def renew(self, refused: str, deadline: Deadline) -> bool:
            """Log in anew after the server refused that header; false if the login gives the same again."""

        def close(self) -> None:
            """Drop every connection. Never raises."""


class Access:
    """The way to the API server. `path` goes before every request's path; `namespace` is the login's own."""

    __slots__ = ("client", "namespace", "path", "place")

    def __init__(self, url: str, namespace: str, tls: Tls | None, proxy: Proxy | None) -> None:
        host, port, self.path = parts(url)
        self.place = authority(host, port)
        self.namespace = checked(namespace)
        self.client = Client("kubernetes", [Endpoint(host, port, tls, proxy)])


def parts(url: str) -> tuple[str, int, str]:
    """Host, port and path of an API server's address. Raises Refused (78)."""
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
    """The proxy on the way to that address, by HTTPS_PROXY and NO_PROXY. Raises Refused (78)."""
    host, port, _ = parts(url)
    return proxy_to(host, port, environ) if url.startswith("https://") else None
