"""A client of one service at several endpoints: what one can't answer, the next is asked.

Every call ends in its time, name resolution included. A name is looked up once; the addresses
found serve on, and are looked up again only, in the background, when none of them answers.
A request whose answer was lost is sent again, so it must be one that may be done twice.
"""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import Late, Patience
from singleton_run.api.http.connection import Broken, Connection, Socket, Untrusted
from singleton_run.api.resolve import Lookup, literal
from singleton_run.errors import UNUSABLE, Refused, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from singleton_run.api.http.connection import Answer, Wire
    from singleton_run.api.http.proxy import Proxy
    from singleton_run.api.http.tls import Tls
    from singleton_run.api.resolve import Address

    Result = TypeVar("Result", "Answer", "Stream")
    Place = tuple[str, int]
    # A name may have several values: each is sent in a line of its own.
    Headers = Mapping[str, str | Sequence[str]]

# What a gateway or a load balancer says for a server behind it that is not well.
_NOT_HERE = (502, 503, 504)


class Endpoint:
    """Where the service is: host, port, and how TLS is done there (None: it isn't)."""

    __slots__ = ("host", "name", "proxy", "tls", "via")

    def __init__(self, host: str, port: int, tls: Tls | None = None, proxy: Proxy | None = None) -> None:
        self.host = host
        self.tls = tls
        self.proxy = proxy
        self.via: Place = (host, port) if proxy is None else (proxy.host, proxy.port)
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if TYPE_CHECKING:
    Route = tuple[Endpoint, Address]


class Stream:
    """An answer that goes on: `line` by line. `answer` is whole if it is an error."""

    def __init__(self, connection: Connection, answer: Answer, route: Route) -> None:
        self._connection = connection
        self.status = answer.status
        self.answer = answer
        self.route = route

    def line(self, patience: Patience) -> bytes:
        """The next line. Raises Broken, also at the end; after Late, Woken go on."""
        line = self._connection.line(patience)
        if line is None:
            raise Broken("the server ended the stream")
        return line

    def close(self) -> None:
        """Never raises."""
        self._connection.close()


class Client:
    """Asks first where it was answered last: `route`. `addresses` are known, by host and port.

    `service` is what the user knows it by: every failure begins with that.
    """

    def __init__(self, service: str, endpoints: Sequence[Endpoint]) -> None:
        self._service = service
        self._endpoints = list(endpoints)
        self._connection: tuple[Connection, Route] | None = None
        self._lookups: dict[Place, Lookup] = {}
        self.route: Route | None = None
        self.addresses: dict[Place, list[Address]] = {}

    def request(
        self, method: str, path: str, headers: Headers, body: bytes, patience: Patience, key: str = ""
    ) -> Answer:
        """The answer to a request, of whatever status. Raises Unavailable, Refused, Woken.

        `key` is what it is about, for a trace, where the path doesn't say that.
        """

        def ask(route: Route, share: Patience) -> Answer:
            return self._exchange(route, _format(method, path, route[0], headers, body), share)

        return self._told(lambda: self._anywhere(ask, patience), method, path, key)

    def stream(
        self, method: str, path: str, headers: Headers, body: bytes, patience: Patience, key: str = ""
    ) -> Stream:
        """The same for an answer to read line by line, on a connection of its own."""

        def ask(route: Route, share: Patience) -> Stream:
            connection = _connect(route, share)
            try:
                answer = connection.begin(_format(method, path, route[0], headers, body), share)
                if answer.status != 200:
                    connection.rest(answer, share)
                    connection.close()
            except BaseException:
                connection.close()
                raise
            return Stream(connection, answer, route)

        return self._told(lambda: self._anywhere(ask, patience), method, path, key)

    def _told(self, work: Callable[[], Result], method: str, path: str, key: str) -> Result:
        """Do `work`, and have the trace tell of the request that it is."""

        def told(result: Result) -> str:
            return f"{result.status} from {self.route[0].name if self.route else 'nobody'}"

        return toolbox.request(work, method, lambda: f"{path} {key}" if key else path, told)

    def known(self) -> list[Any]:
        """The addresses that were found, for `recall` in a fresh process; survives JSON."""
        return [[*place, addresses] for place, addresses in self.addresses.items()]

    def recall(self, known: Sequence[Any]) -> None:
        """Use what `known` gave, unless something newer was found out."""
        for host, port, addresses in known:
            found = [(family, tuple(address)) for family, address in addresses]
            self.addresses.setdefault((host, port), found)

    def close(self) -> None:
        """Drop the connection. Never raises."""
        if self._connection is not None:
            self._connection[0].close()
            self._connection = None

    def _anywhere(self, ask: Callable[[Route, Patience], Result], patience: Patience) -> Result:
        """Ask at one address after the other; each gets its share of the time that is left."""
        failures: dict[str, Exception] = {}
        last: Result | None = None
        for left in range(len(self._endpoints), 0, -1):
            endpoint = self._endpoints[0]
            share = patience.share(left)
            try:
                addresses = self._find(endpoint.via, share)
            except (Broken, Late) as error:
                failures[endpoint.name] = error
                addresses = []
            for more in range(len(addresses), 0, -1):
                try:
                    last = ask((endpoint, addresses[0]), share.share(more))
                except (Broken, Late) as error:
                    failures[endpoint.name] = error
                    self.close()
                else:
                    if last.status not in _NOT_HERE:
                        self.route = endpoint, addresses[0]
                        return last
                addresses.append(addresses.pop(0))
            if addresses:
                self._look_up_again(endpoint.via)
            self._endpoints.append(self._endpoints.pop(0))
        if last is not None:
            return last
        places = "; ".join(f"{name}: {error}" for name, error in failures.items())
        text = f"{self._service}: {places}"
        if all(isinstance(error, Untrusted) for error in failures.values()):
            raise Refused(text, UNUSABLE)
        raise Unavailable(text)

    def _exchange(self, route: Route, request: bytes, patience: Patience) -> Answer:
        if self._connection is not None and self._connection[1] != route:
            self.close()
        if self._connection is not None:
            try:
                return self._ask(self._connection[0], request, patience)
            except Broken:
                # The server closes a connection that was idle for long: that says nothing about it.
                self.close()
        connection = _connect(route, patience)
        self._connection = connection, route
        return self._ask(connection, request, patience)

    def _ask(self, connection: Connection, request: bytes, patience: Patience) -> Answer:
        done = False
        try:
            answer = connection.exchange(request, patience)
            done = connection.reusable
        finally:
            if not done:
                self.close()
        return answer

    def _find(self, place: Place, patience: Patience) -> list[Address]:
        """The addresses of a host: those that are known, unless a lookup has found others since."""
        known = self.addresses.get(place) or literal(*place)
        lookup = self._lookups.get(place)
        if not known:
            lookup = self._look_up(place)
            lookup.wait(patience)
        if lookup is not None and lookup.done:
            del self._lookups[place]
            lookup.close()
            known = lookup.addresses or known
        if not known:
            raise Broken(f"the name can't be resolved ({lookup.error if lookup else 'it is empty'})")
        self.addresses[place] = known
        return known

    def _look_up(self, place: Place) -> Lookup:
        if place not in self._lookups:
            self._lookups[place] = Lookup(*place)
        return self._lookups[place]

    def _look_up_again(self, place: Place) -> None:
        """In the background: the addresses may have changed. Until it is done the old ones serve."""
        if not literal(*place):
            self._look_up(place)


def proxy_to(host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy by which HTTPS_PROXY and NO_PROXY have a host reached, None for none. Raises Refused."""
    if not (environ.get("HTTPS_PROXY") or environ.get("https_proxy")):
        return None
    from singleton_run.api.http.proxy import choose

    return choose(host, port, environ)


def _connect(route: Route, patience: Patience) -> Connection:
    endpoint, address = route
    wire: Wire = Socket(address, patience)
    try:
        if endpoint.proxy is not None:
            endpoint.proxy.tunnel(wire, endpoint.name, patience)
        if endpoint.tls is not None:
            wire = endpoint.tls.wrap(wire, endpoint.host, patience)
    except BaseException:
        wire.close()
        raise
    return Connection(wire)


def _format(method: str, path: str, endpoint: Endpoint, headers: Headers, body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {endpoint.name}"]
    for name, values in headers.items():
        lines += [f"{name}: {value}" for value in ([values] if isinstance(values, str) else values)]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
