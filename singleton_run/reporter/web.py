"""A web server that is told something: one address of http or https, with a time limit for each request."""

from __future__ import annotations

import os

from singleton_run import __version__
from singleton_run.api.deadline import Deadline
from singleton_run.api.http.client import Client, Endpoint, proxy_to
from singleton_run.call.told_whom import taken_apart
from singleton_run.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 10.0
"""How long one request may take, in seconds."""
_AGAIN = (408, 425, 429)


class Letter:
    """A request to send: `more` goes between the address's path and its query, `query` behind that."""

    __slots__ = ("body", "headers", "method", "more", "query")

    def __init__(
        self,
        method: str,
        more: str = "",
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.method = method
        self.more = more
        self.query = query
        self.body = body
        self.headers = dict(headers or {})


class Answered:
    """How a request went: the server took it, or `trouble` says why not. `again`: another try may help."""

    __slots__ = ("again", "trouble")

    def __init__(self, trouble: str = "", *, again: bool = False) -> None:
        self.trouble = trouble
        self.again = again


class Target:
    """The server at `url`. The certificate of https is verified; HTTPS_PROXY and NO_PROXY hold.

    `place` is its host and port, for messages: the rest of an address may be a secret.
    """

    def __init__(self, url: str) -> None:
        scheme, host, port, self._path, self._query = taken_apart(url)
        tls = proxy = None
        if scheme == "https":
            from singleton_run.api.http.tls import Tls

            tls, proxy = Tls(), proxy_to(host, port, os.environ)
        endpoint = Endpoint(host, port, tls, proxy)
        self.place = endpoint.name
        self._client = Client("", [endpoint])

    def send(self, letter: Letter) -> Answered:
        """Send a request, and wait for the answer for LIMIT seconds. It never raises Failure."""
        path = (self._path + letter.more) or "/"
        query = "&".join(part for part in (self._query, letter.query) if part)
        headers = {"User-Agent": f"singleton-run/{__version__}", "Accept": "*/*", **letter.headers}
        if letter.method == "POST" and not letter.body:
            headers["Content-Length"] = "0"
        where = f"{path}?{query}" if query else path
        try:
            answer = self._client.request(letter.method, where, headers, letter.body, Deadline.after(LIMIT))
        except Failure as failure:
            return Answered(str(failure).removeprefix(": "), again=True)
        if answer.status < 300:
            return Answered()
        again = answer.status >= 500 or answer.status in _AGAIN
        return Answered(f"{self.place} answers {answer.status}", again=again)
