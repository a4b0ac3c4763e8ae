"""A client of one service at several endpoints: where one gives no answer, the next is asked.

Every call ends by its deadline, the lookup of names included. A request whose answer was lost is sent again,
so callers send only requests that may be done twice.
"""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import Deadline, Timeout
from singleton_run.api.http.connection import Connection
from singleton_run.api.http.wire import Broken, Socket, Untrusted
from singleton_run.api.resolve import AddressBook
from singleton_run.api.servers import in_turn, no_answer
from singleton_run.api.url import authority

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from singleton_run.api.http.connection import Answer
    from singleton_run.api.http.proxy import Proxy
    from singleton_run.api.http.tls import Tls
    from singleton_run.api.http.wire import Wire
    from singleton_run.api.resolve import Address, HostPort

    Result = TypeVar("Result", "Answer", "Stream")
    # A name may have several values: each is sent in a line of its own.
    Headers = Mapping[str, str | Sequence[str]]

# A gateway or a load balancer answers these for a server behind it that doesn't work.
_NOT_HERE = (502, 503, 504)


class Endpoint:
    """A server of the service, spoken to over `tls` (None: plain text) and by a `proxy`, if there is one.

    `name` is its `host:port` for messages, `via` the host and port to connect to.
    """

    __slots__ = ("host", "name", "proxy", "tls", "via")

    def __init__(self, host: str, port: int, tls: Tls | None = None, proxy: Proxy | None = None) -> None:
        self.host = host
        self.tls = tls
        self.proxy = proxy
        self.via: HostPort = (host, port) if proxy is None else (proxy.host, proxy.port)
        self.name = authority(host, port)


if TYPE_CHECKING:
    Route = tuple[Endpoint, Address]


class Stream:
    """An answer read line by line. Where `status` is not 200, `answer` is whole and there are no lines."""

    def __init__(self, connection: Connection, answer: Answer, route: Route) -> None:
        self._connection = connection
        self.status = answer.status
        self.answer = answer
        self.route = route

    def line(self, deadline: Deadline) -> bytes:
        """The next line. Raises Broken, also at the end; after Timeout or Interrupted call it again."""
        line = self._connection.line(deadline)
        if line is None:
            raise Broken("the server ended the stream")
        return line

    def close(self) -> None:
        """Close the connection. Never raises."""
        self._connection.close()


class Client:
    """Asks the endpoint that answered last, then the others; `route` is that endpoint and its address.

    `service` is the name that the user knows: every error begins with it.
    """

    def __init__(self, service: str, endpoints: Sequence[Endpoint]) -> None:
        self._service = service
        self._endpoints = list(endpoints)
        self._connection: tuple[Connection, Route] | None = None
        self._book = AddressBook()
        self.route: Route | None = None

    def request(
        self, method: str, path: str, headers: Headers, body: bytes, deadline: Deadline, key: str = ""
    ) -> Answer:
        """The answer to a request, of whatever status.

        `key` is what it is about, for a trace, where the path doesn't say that.
        Raises Unavailable where no endpoint answers in time, Refused (78) where TLS fails at all of them,
        Interrupted.
        """

        def ask(route: Route, share: Deadline) -> Answer:
            return self._exchange(route, _format(method, path, route[0], headers, body), share)

        return self._told(lambda: self._anywhere(ask, deadline), method, path, key)

    def stream(
        self, method: str, path: str, headers: Headers, body: bytes, deadline: Deadline, key: str = ""
    ) -> Stream:
        """The same for an answer to read line by line, on a connection of its own. The caller closes it."""

        def ask(route: Route, share: Deadline) -> Stream:
            connection = _connect(route, share)
            try:
                answer = connection.start(_format(method, path, route[0], headers, body), share)
                if answer.status != 200:
                    connection.read_body(answer, share)
                    connection.close()
            except BaseException:
                connection.close()
                raise
            return Stream(connection, answer, route)

        return self._told(lambda: self._anywhere(ask, deadline), method, path, key)

    def _told(self, work: Callable[[], Result], method: str, path: str, key: str) -> Result:
        """Do `work`, and have the trace tell of the request that it is."""

        def told(result: Result) -> str:
            return f"{result.status} from {self.route[0].name if self.route else 'nobody'}"

        return toolbox.request(work, method, lambda: f"{path} {key}" if key else path, told)

    def known(self) -> list[Any]:
        """The addresses that were found, for `recall` in a fresh process; survives JSON."""
        return self._book.known()

    def recall(self, known: Sequence[Any]) -> None:
        """Take the addresses that `known` gave, except for hosts that were looked up here."""
        self._book.recall(known)

    def close(self) -> None:
        """Drop the connection. Never raises."""
        if self._connection is not None:
            self._connection[0].close()
            self._connection = None

    def _anywhere(self, ask: Callable[[Route, Deadline], Result], deadline: Deadline) -> Result:
        """Ask at one address after the other, each with its share of the time left."""
        failures: dict[str, Exception] = {}
        last: Result | None = None
        for endpoint, share in in_turn(self._endpoints, deadline):
            try:
                addresses = self._book.find(endpoint.via, share)
            except (LookupError, Timeout) as error:
                failures[endpoint.name] = error
                continue
            for address, part in in_turn(addresses, share):
                try:
                    last = ask((endpoint, address), part)
                except (Broken, Timeout) as error:
                    failures[endpoint.name] = error
                    self.close()
                else:
                    if last.status not in _NOT_HERE:
                        self.route = endpoint, address
                        return last
            self._book.refresh(endpoint.via)
        if last is not None:
            return last
        untrusted = all(isinstance(error, Untrusted) for error in failures.values())
        raise no_answer(self._service, failures, untrusted=untrusted)

    def _exchange(self, route: Route, request: bytes, deadline: Deadline) -> Answer:
        if self._connection is not None and self._connection[1] != route:
            self.close()
        if self._connection is not None:
            try:
                return self._ask(self._connection[0], request, deadline)
            except Broken:
                # A server closes connections that were idle for long. Ask it again on a new one.
                self.close()
        connection = _connect(route, deadline)
        self._connection = connection, route
        return self._ask(connection, request, deadline)

    def _ask(self, connection: Connection, request: bytes, deadline: Deadline) -> Answer:
        done = False
        try:
            answer = connection.exchange(request, deadline)
            done = connection.reusable
        finally:
            if not done:
                self.close()
        return answer


def proxy_to(host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to a host, by HTTPS_PROXY and NO_PROXY; None for none. Raises Refused (78)."""
    if not (environ.get("HTTPS_PROXY") or environ.get("https_proxy")):
        return None
    from singleton_run.api.http.proxy import choose

    return choose(host, port, environ)


def _connect(route: Route, deadline: Deadline) -> Connection:
    endpoint, address = route
    wire: Wire = Socket(address, deadline)
    try:
        if endpoint.proxy is not None:
            endpoint.proxy.tunnel(wire, endpoint.name, deadline)
        if endpoint.tls is not None:
            wire = endpoint.tls.wrap(wire, endpoint.host, deadline)
    except BaseException:
        wire.close()
        raise
    return Connection(wire, secure=endpoint.tls is not None)


def _format(method: str, path: str, endpoint: Endpoint, headers: Headers, body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {endpoint.name}"]
    for name, values in headers.items():
        lines += [f"{name}: {value}" for value in ([values] if isinstance(values, str) else values)]
    if body:
        typed = [] if "Content-Type" in headers else ["Content-Type: application/json"]
        lines += [*typed, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
