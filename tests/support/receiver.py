"""A web server for tests that are told something: it keeps every request, and answers as it is told to."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.support.harness import until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MOST_OUTPUT = 10_000


class Request(NamedTuple):
    """One request: `query` has the last value of each word."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The object in its body."""
        return dict(json.loads(self.body))


class Receiver:
    """A server at `url`. It answers with `status`; with None it never does, until it is closed."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.status: int | None = 200
        self.requests: list[Request] = []
        self.refused: list[Request] = []
        self.closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                query = {word: values[-1] for word, values in parse_qs(parts.query).items()}
                status = receiver.take(Request(self.command, parts.path, query, self.headers, body))  # type: ignore[arg-type] # a mapping of texts
                if status is None:
                    receiver.closing.wait()
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = do_HEAD = _answer  # noqa: N815 - http.server has these names

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.place = f"127.0.0.1:{self._server.server_port}"
        self.url = f"{scheme}://{self.place}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def take(self, request: Request) -> int | None:
        """Keep a request; the status to answer with, None for no answer."""
        status = self.status
        (self.requests if status is not None and status < 300 else self.refused).append(request)
        return status

    def has(self, count: int) -> list[Request]:
        """So many requests that were answered well, once they have come."""
        until(lambda: len(self.requests) >= count, f"{count} requests, of which there are {self.requests}")
        return self.requests[:count]

    def close(self) -> None:
        """End it."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Checks(Receiver):
    """healthchecks.io's protocol: a check at /UUID, which is started, and ends with a status.

    An address that it doesn't know is 404, a `rid` that is no UUID 400, as there.
    """

    def __init__(self) -> None:
        self.uuid = "5d2f9b1e-0c3a-4f6e-9d57-6a1c2b3d4e5f"
        self.pings: list[tuple[str, str, bytes]] = []
        super().__init__()
        self.check = f"{self.url}/{self.uuid}"

    def take(self, request: Request) -> int | None:
        """Understand a ping: (start, an exit status or '' for success; the run's id; the output)."""
        status = super().take(request)
        if status is None or status >= 300:
            return status
        start = f"/{self.uuid}"
        kind = request.path.removeprefix(start).strip("/")
        known = kind in ("", "start", "fail", "log") or (kind.isdecimal() and int(kind) < 256)
        if not request.path.startswith(start) or not known:
            return 404
        rid = request.query.get("rid", "")
        if rid and not _UUID.fullmatch(rid):
            return 400
        self.pings.append((kind, rid, request.body[:MOST_OUTPUT]))
        return 200

    def pinged(self, count: int) -> list[tuple[str, str, bytes]]:
        """So many pings, once they have come."""
        until(lambda: len(self.pings) >= count, f"{count} pings, of which there are {self.pings}")
        return self.pings[:count]
