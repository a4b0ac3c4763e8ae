"""HTTP over real sockets: every step has its limit, and what one address can't answer another may."""

from __future__ import annotations

import _socket
import _ssl
import contextlib
import os
import socket
import ssl
import threading
import urllib.parse
from typing import TYPE_CHECKING

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from singleton_run.api.deadline import Deadline, Interrupted, Timeout
from singleton_run.api.http import proxy as proxies
from singleton_run.api.http.client import Client, Endpoint
from singleton_run.api.http.connection import Connection
from singleton_run.api.http.tls import Tls
from singleton_run.api.http.wire import Broken, Socket
from singleton_run.api.url import host_and_port, unquoted
from singleton_run.errors import Refused, Unavailable
from singleton_run.system import calls
from tests.support.harness import until
from tests.support.ports import free_port
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from singleton_run.api.http.connection import Answer

    Reply = Callable[["Request"], list[bytes] | None]

# What a call may take where it is to succeed, and where it is to fail.
LONG, SHORT = 20.0, 0.5
# A loaded machine needs something on top of a limit.
SLACK = 5.0
LACKING = 12345
"""A family of addresses that no kernel has."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Request:
    """What a server was asked: on its how manyth connection, and on that as how manyth."""

    def __init__(self, connection: int, number: int, head: str, body: bytes) -> None:
        self.connection = connection
        self.number = number
        self.line = head.partition("\r\n")[0]
        self.head = head
        self.body = body


class Server:
    """An HTTP server. It sends the pieces that `reply` gives for a request; for None it hangs up."""

    def __init__(self, reply: Reply, context: ssl.SSLContext | None = None) -> None:
        self._reply = reply
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[Request] = []
        self._connections: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                number = len(self._connections)
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
            self._answer_all(connection, number)
            connection.close()

    def _answer_all(self, connection: socket.socket, number: int) -> None:
        count = 0
        with connection.makefile("rb") as source:
            while head := _head(source.readline):
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
                count += 1
                request = Request(number, count, head, source.read(length))
                self.requests.append(request)
                pieces = self._reply(request)
                if pieces is None:
                    return
                for piece in pieces:
                    connection.sendall(piece)

    def close(self) -> None:
        """Hang up on everybody."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _head(readline: Callable[[], bytes]) -> str:
    lines = []
    while (line := readline()) not in (b"\r\n", b""):
        lines.append(line)
    return b"".join(lines).decode("latin-1")


def always(*pieces: bytes) -> Reply:
    """A reply of these pieces, whatever is asked."""

    def reply(_: Request) -> list[bytes]:
        return list(pieces)

    return reply


@contextlib.contextmanager
def serving(reply: Reply, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(reply, context)
    try:
        yield server
    finally:
        server.close()


def soon(limit: float = LONG) -> Deadline:
    return Deadline.after(limit)


def ask(client: Client, limit: float = LONG, path: str = "/") -> Answer:
    return client.request("POST", path, {}, b"{}", soon(limit))


_clients: list[Client] = []


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while _clients:
        _clients.pop().close()


def client_of(*endpoints: Endpoint) -> Client:
    """A client that is closed when the test is over."""
    client = Client("the service", endpoints)
    _clients.append(client)
    return client


def local(*ports: int) -> Client:
    return client_of(*(Endpoint("127.0.0.1", port) for port in ports))


def fails_in_time(client: Client, limit: float = SHORT) -> str:
    """The text of the Unavailable that a request ends in, within its limit."""
    start = calls.now()
    with pytest.raises(Unavailable) as caught:
        ask(client, limit)
    assert calls.now() < start + limit + SLACK
    assert "\n" not in str(caught.value)
    return str(caught.value)


# One server.


def test_requests_share_one_connection() -> None:
    with serving(always(OK)) as server:
        client = local(server.port)
        for number in range(3):
            assert ask(client, path=f"/{number}").body == b"ok"
        assert [(request.connection, request.line) for request in server.requests] == [
            (1, f"POST /{number} HTTP/1.1") for number in range(3)
        ]
        assert server.requests[0].body == b"{}"


@pytest.mark.parametrize(
    "goodbye", [None, [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"]]
)
def test_a_connection_that_the_server_gave_up_is_replaced(goodbye: list[bytes] | None) -> None:
    with serving(lambda request: [OK] if request.number == 1 else goodbye) as server:
        client = local(server.port)
        statuses = [ask(client).status for _ in range(4)]
        assert statuses == [200] * 4
        assert server.requests[-1].connection > 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:4\r\n\r\nbody",
    ],
)
@given(data=st.data())
@settings(max_examples=20)
def test_an_answer_is_the_same_however_it_is_cut_in_pieces(answer: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=6)))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    connection = Connection(_Canned([*pieces, *pieces]))
    for _ in range(2):
        got = connection.exchange(b"", soon())
        assert (got.status, got.body, connection.reusable) == (200, b"body", True)


class _Canned:
    """A wire from which those pieces come; an empty one stands for a pause."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Nobody listens."""

    def receive(self, deadline: Deadline) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if not piece:
            raise Timeout
        return piece

    def close(self) -> None:
        """Nothing is open."""


@given(
    lines=st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line), min_size=1),
    data=st.data(),
)
def test_lines_are_the_same_however_they_are_chunked_cut_and_interrupted(
    lines: list[bytes], data: st.DataObject
) -> None:
    text = b"".join(line + b"\n" for line in lines)
    sizes = data.draw(st.lists(st.integers(1, 7)))
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for size in [*sizes, len(text)]:
        chunk, text = text[:size], text[size:]
        answer += b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunk else b""
    answer += b"0\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=9)))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    pauses = data.draw(st.sets(st.integers(0, len(pieces))))
    wire = _Canned(
        [
            part
            for number, piece in enumerate(pieces)
            for part in ([b"", piece] if number in pauses else [piece])
        ]
    )
    connection = Connection(wire)
    got: list[bytes] = []
    begun = False
    while True:
        try:
            if not begun:
                _begin(connection)
                begun = True
            line = connection.line(soon())
        except Timeout:
            continue
        if line is None:
            break
        got.append(line)
    assert got == lines


def _begin(connection: Connection) -> None:
    """A head that was interrupted is of no use: begin again, with what has come already."""
    connection.start(b"", soon())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"x" * 200_000,
    ],
)
def test_what_is_no_answer_is_unavailable(answer: bytes) -> None:
    def reply(request: Request) -> list[bytes] | None:
        server._connections[0].sendall(answer)  # noqa: SLF001 - the test's own
        return None

    with serving(reply) as server:
        assert fails_in_time(local(server.port), LONG)


def test_every_answer_of_whatever_status_is_given() -> None:
    with serving(always(b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx")) as server:
        answer = ask(local(server.port))
        assert (answer.status, answer.body) == (404, b"x")


# Limits.


def test_a_server_that_never_answers_is_unavailable_in_time() -> None:
    with serving(always()) as server:
        assert "no answer in time" in fails_in_time(local(server.port))


def test_a_server_that_stops_in_the_middle_of_an_answer_is_unavailable_in_time() -> None:
    with serving(always(OK[:-1])) as server:
        fails_in_time(local(server.port))


def test_a_connection_that_is_never_taken_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        # One more than fits into the kernel's queue: the next is not answered at all.
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            fails_in_time(local(port))


def test_a_server_that_takes_nothing_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = local(listener.getsockname()[1])
        start = calls.now()
        with pytest.raises(Unavailable):
            client.request("POST", "/", {}, bytes(50_000_000), soon(SHORT))
        assert calls.now() < start + SHORT + SLACK


def test_after_a_late_answer_the_next_request_gets_its_own() -> None:
    def reply(request: Request) -> list[bytes]:
        return [OK.replace(b"ok", b"%02d" % request.number)]

    with serving(reply) as server, proxy(server.port) as between:
        client = local(between.port)
        assert ask(client).body == b"01"
        between.slow(SHORT * 2)
        with pytest.raises(Unavailable):
            ask(client, SHORT)
        between.mend()
        assert ask(client).body == b"01", "not the second of the first connection"


def test_a_wake_interrupts_a_request() -> None:
    woken, wake = os.pipe()
    os.write(wake, b".")
    with serving(always()) as server, pytest.raises(Interrupted):
        local(server.port).request("POST", "/", {}, b"", Deadline.after(LONG, woken))
    os.close(woken)
    os.close(wake)


def test_a_stream_is_read_on_after_an_interruption() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    with serving(always(head)) as server:
        stream = local(server.port).stream("GET", "/", {}, b"", soon())
        with pytest.raises(Timeout):
            stream.line(soon(0.05))
        server._connections[0].sendall(b"5\r\n\ntwo\n\r\n")  # noqa: SLF001 - the test's own
        assert [stream.line(soon()) for _ in range(2)] == [b"one", b"two"]
        server.close()
        with pytest.raises(Broken):
            stream.line(soon())
        stream.close()


def test_a_stream_that_is_refused_has_the_whole_answer() -> None:
    with serving(always(OK.replace(b"200", b"403"))) as server:
        stream = local(server.port).stream("GET", "/", {}, b"", soon())
        assert (stream.status, stream.answer.body) == (403, b"ok")
        stream.close()


# Several addresses.


def test_the_next_endpoint_is_asked_when_one_is_not_there_and_then_kept() -> None:
    with serving(always(OK)) as server:
        client = local(free_port(), server.port)
        assert [ask(client).body for _ in range(3)] == [b"ok"] * 3
        assert {request.connection for request in server.requests} == {1}


def test_an_endpoint_that_hangs_costs_its_share_only() -> None:
    with serving(always()) as deaf, serving(always(OK)) as server:
        client = local(deaf.port, deaf.port, server.port)
        assert ask(client, 3.0).body == b"ok"
        assert len(deaf.requests) == 2


def test_an_endpoint_that_is_not_well_is_passed_by() -> None:
    ill = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nill"
    with serving(always(ill)) as first, serving(always(OK)) as server:
        client = local(first.port, server.port)
        assert ask(client).body == b"ok"
        stream = client.stream("GET", "/", {}, b"", soon())
        stream.close()
        assert stream.route == client.route
        assert ask(local(first.port, first.port)).body == b"ill"


def test_all_that_failed_are_named() -> None:
    ports = free_port(), free_port()
    text = fails_in_time(local(*ports))
    one, other = (f"127.0.0.1:{port}: connection refused" for port in ports)
    assert text == f"the service: {one}; {other}"


def test_an_endpoint_that_comes_back_is_asked_again() -> None:
    with serving(always(OK)) as server, proxy(server.port) as between:
        client = local(between.port)
        assert ask(client).body == b"ok"
        between.cut()
        fails_in_time(client)
        between.mend()
        assert ask(client).body == b"ok"


# Names.


class Names:
    """What the system's resolver says, and how long it hangs before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] = []
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()
        self._real = _socket.getaddrinfo
        monkeypatch.setattr(_socket, "getaddrinfo", self._ask)

    def _ask(self, host: bytes, port: int, *rest: int) -> object:
        if host != b"service.test":
            return self._real(host, port, *rest)
        if rest[-1]:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        self.asked += 1
        self.answers.wait()
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        found = [self._real(address.encode(), port, *rest) for address in self.addresses]
        return [entry for entries in found for entry in entries]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names(monkeypatch)
    yield names
    names.answers.set()


def test_a_name_is_resolved_once(names: Names) -> None:
    names.addresses = ["127.0.0.1"]
    with serving(lambda request: None if request.number > 1 else [OK]) as server:
        client = client_of(Endpoint("service.test", server.port))
        for _ in range(4):
            assert ask(client).body == b"ok"
        assert server.requests[-1].connection > 2
    assert names.asked == 1


def test_a_resolver_that_hangs_is_unavailable_in_time_and_asked_only_once(names: Names) -> None:
    names.answers.clear()
    names.addresses = ["127.0.0.1"]
    with serving(always(OK)) as server:
        client = client_of(Endpoint("service.test", server.port))
        for _ in range(3):
            fails_in_time(client, 0.1)
        names.answers.set()
        assert ask(client).body == b"ok"
    assert names.asked == 1


def test_a_name_that_does_not_exist_is_unavailable(names: Names) -> None:
    assert "resolved" in fails_in_time(client_of(Endpoint("service.test", 1)), LONG)


def test_the_last_addresses_serve_on_while_the_resolver_hangs(names: Names) -> None:
    names.addresses = ["127.0.0.1"]
    with serving(always(OK)) as server, proxy(server.port) as between:
        client = client_of(Endpoint("service.test", between.port))
        assert ask(client).body == b"ok"
        names.answers.clear()
        between.cut()
        fails_in_time(client)
        between.mend()
        assert ask(client).body == b"ok"


def test_addresses_that_nobody_answers_at_any_more_are_looked_up_again(names: Names) -> None:
    names.addresses = ["127.0.0.2"]
    with serving(always(OK)) as server:
        client = client_of(Endpoint("service.test", server.port))
        fails_in_time(client)
        names.addresses = ["127.0.0.1"]
        # The lookup is in the background: some of the next requests may still go to the old address.
        until(lambda: _answers(client), "the new address to be used")


def _answers(client: Client) -> bool:
    try:
        return ask(client).body == b"ok"
    except Unavailable:
        return False


def test_every_address_of_a_name_is_tried(names: Names) -> None:
    names.addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
    with serving(always(OK)) as server:
        client = client_of(Endpoint("service.test", server.port))
        assert [ask(client).body for _ in range(2)] == [b"ok", b"ok"]


def test_addresses_can_be_handed_to_another_process(names: Names) -> None:
    with serving(always(OK)) as server:
        client = client_of(Endpoint("service.test", server.port))
        client.recall([["service.test", server.port, [[int(socket.AF_INET), ["127.0.0.1", server.port]]]]])
        assert ask(client).body == b"ok"
    assert names.asked == 0


def test_an_address_of_a_family_that_this_machine_lacks_is_passed_over() -> None:
    """As with IPv6 switched off, or forbidden by systemd's RestrictAddressFamilies."""
    with serving(always(OK)) as server:
        addresses = [[LACKING, ["::1", server.port]], [int(socket.AF_INET), ["127.0.0.1", server.port]]]
        client = client_of(Endpoint("service.test", server.port))
        client.recall([["service.test", server.port, addresses]])
        assert ask(client).body == b"ok"
        client = client_of(Endpoint("service.test", server.port))
        client.recall([["service.test", server.port, addresses[:1]]])
        assert "address family not supported" in fails_in_time(client)


# TLS.


class Authority:
    """Signs certificates for the servers and clients of the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.path = self.write("ca", self._ca.cert_pem.bytes())

    def write(self, name: str, data: bytes) -> str:
        path = self._folder / f"{name}.pem"
        path.write_bytes(data)
        return str(path)

    def server(self, *names: str, asks_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        if asks_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self._ca.configure_trust(context)
        return context

    def client(self) -> tuple[str, str]:
        signed = self._ca.issue_cert("client.example")
        return (
            self.write("cert", signed.cert_chain_pems[0].bytes()),
            self.write("key", signed.private_key_pem.bytes()),
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["the C part of ssl", "ssl itself"])
def each_ssl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "ssl itself":
        monkeypatch.delattr(_ssl, "_SSLContext")  # as if Python had changed


def secure(port: int, tls: Tls, host: str = "localhost") -> Client:
    return client_of(Endpoint(host, port, tls))


@pytest.mark.usefixtures("each_ssl")
class TestTls:
    """The same by the C part of ssl and by the module."""

    def test_a_trusted_server_is_spoken_to(self, authority: Authority) -> None:
        body = bytes(range(256)) * 2000
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with serving(always(answer), authority.server("localhost")) as server:
            client = secure(server.port, Tls(authority.path))
            for _ in range(2):
                assert client.request("POST", "/", {}, body, soon()).body == body
            assert server.requests[1].body == body
            assert server.requests[1].connection == server.requests[0].connection

    def test_who_hangs_up_after_the_handshake_is_not_asked_for_tls(self, authority: Authority) -> None:
        with serving(lambda _: None, authority.server("localhost")) as server:
            said = fails_in_time(secure(server.port, Tls(authority.path)), LONG)
            assert said.endswith("it closed the connection before it said anything")
            assert server.requests

    def test_a_stream_over_tls(self, authority: Authority) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        with serving(always(head, b"4\r\none\n\r\n"), authority.server("localhost")) as server:
            stream = secure(server.port, Tls(authority.path)).stream("GET", "/", {}, b"", soon())
            assert stream.line(soon()) == b"one"
            with pytest.raises(Timeout):
                stream.line(soon(0.05))
            server.close()
            with pytest.raises(Broken):
                stream.line(soon())
            stream.close()

    def test_an_authority_that_is_not_ours_is_refused(self, authority: Authority, tmp_path: Path) -> None:
        with serving(always(OK), authority.server("localhost")) as server:
            for trusted in (Tls(Authority(tmp_path).path), Tls()):
                with pytest.raises(Refused, match="not trusted"):
                    ask(secure(server.port, trusted))
            assert server.requests == []

    def test_another_name_is_refused_unless_it_is_expected(self, authority: Authority) -> None:
        with serving(always(OK), authority.server("etcd.example")) as server:
            for host in ("localhost", "127.0.0.1"):
                with pytest.raises(Refused, match="not trusted"):
                    ask(secure(server.port, Tls(authority.path), host))
            assert ask(secure(server.port, Tls(authority.path, server_name="etcd.example"))).body == b"ok"

    def test_an_address_can_be_the_name(self, authority: Authority) -> None:
        with serving(always(OK), authority.server("127.0.0.1")) as server:
            assert ask(secure(server.port, Tls(authority.path), "127.0.0.1")).body == b"ok"

    def test_the_server_may_ask_who_we_are(self, authority: Authority) -> None:
        with serving(always(OK), authority.server("localhost", asks_client=True)) as server:
            with pytest.raises(Refused, match="certificate"):
                ask(secure(server.port, Tls(authority.path)))
            assert ask(secure(server.port, Tls(authority.path, *authority.client()))).body == b"ok"

    def test_insecure_trusts_anybody(self, authority: Authority) -> None:
        with serving(always(OK), authority.server("etcd.example")) as server:
            assert ask(secure(server.port, Tls(insecure=True))).body == b"ok"

    def test_a_server_without_tls_is_refused(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=_say, args=(listener, b"HTTP/1.1 400 Bad Request\r\n\r\n")).start()
            with pytest.raises(Refused, match="doesn't speak TLS"):
                ask(secure(listener.getsockname()[1], Tls(insecure=True)))

    def test_a_handshake_without_end_is_unavailable_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            fails_in_time(secure(listener.getsockname()[1], Tls(insecure=True)))

    def test_files_of_no_use_are_refused(self, authority: Authority, tmp_path: Path) -> None:
        cert, key = authority.client()
        _, other = Authority(tmp_path).client()
        rubbish = authority.write("rubbish", b"rubbish")
        for arguments in (
            (str(tmp_path / "none"),),
            (rubbish,),
            (authority.path, cert, str(tmp_path / "none")),
            (authority.path, cert, rubbish),
            (authority.path, cert, other),
        ):
            with pytest.raises(Refused) as caught:
                Tls(*arguments)
            assert "\n" not in str(caught.value)
        Tls(authority.path, cert, key)


def _say(listener: socket.socket, text: bytes) -> None:
    """Answer one connection with that, whatever it says."""
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(text)
    connection.close()


# A proxy.


def _tunnel(target: int, said: list[str]) -> Server:
    """A proxy that answers CONNECT and then carries bytes to `target`, whatever was asked for."""

    def reply(request: Request) -> list[bytes]:
        said.append(request.head)
        connection = server._connections[-1]  # noqa: SLF001 - the test's own
        further = socket.create_connection(("127.0.0.1", target))
        for source, sink in ((connection, further), (further, connection)):
            threading.Thread(target=_carry, args=(source, sink), daemon=True).start()
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        done.wait()
        return []

    done = threading.Event()
    server = Server(reply)
    return server


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_https_goes_through_the_proxy_that_the_environment_names(authority: Authority) -> None:
    said: list[str] = []
    with serving(always(OK), authority.server("etcd.example")) as server:
        tunnel = _tunnel(server.port, said)
        environ = {"HTTPS_PROXY": f"http://user:p%40ss@127.0.0.1:{tunnel.port}"}
        proxy = proxies.choose("etcd.example", 2379, environ)
        client = client_of(Endpoint("etcd.example", 2379, Tls(authority.path), proxy))
        assert [ask(client).body for _ in range(2)] == [b"ok", b"ok"]
        tunnel.close()
    assert len(said) == 1
    assert said[0].startswith("CONNECT etcd.example:2379 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwQHNz" in said[0]


def test_a_proxy_that_says_no_is_unavailable(authority: Authority) -> None:
    with serving(always(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")) as tunnel:
        proxy = proxies.choose("etcd.example", 2379, {"https_proxy": f"127.0.0.1:{tunnel.port}"})
        client = client_of(Endpoint("etcd.example", 2379, Tls(authority.path), proxy))
        assert "407" in fails_in_time(client, LONG)


@pytest.mark.parametrize(
    ("host", "port", "exempt", "direct"),
    [
        ("etcd.example", 1, "", False),
        ("localhost", 1, "", True),
        ("127.8.8.8", 1, "", True),
        ("::1", 1, "", True),
        ("etcd.example", 1, "*", True),
        ("etcd.example", 1, "other.example, etcd.example", True),
        ("ETCD.example", 1, "etcd.EXAMPLE", True),
        ("a.etcd.example", 1, "etcd.example", True),
        ("a.etcd.example", 1, ".etcd.example", True),
        ("a.etcd.example", 1, "*.etcd.example", True),
        ("etcd.example", 1, ".etcd.example", False),
        ("notetcd.example", 1, "etcd.example", False),
        ("etcd.example", 1, "etcd.example:1", True),
        ("etcd.example", 2, "etcd.example:1", False),
        ("10.1.2.3", 1, "10.0.0.0/8", True),
        ("11.1.2.3", 1, "10.0.0.0/8", False),
        ("10.1.2.3", 1, "10.1.2.3", True),
        ("10.1.2.30", 1, "10.1.2.3", False),
        ("10.1.2.3", 1, "3", False),
        ("fd00::17", 1, "fd00::/8", True),
        ("fd00::17", 1, "10.0.0.0/8", False),
        ("etcd.example", 1, "10.0.0.0/8", False),
        ("etcd.example", 1, "10.0.0.0/x,,", False),
    ],
)
def test_no_proxy(host: str, port: int, exempt: str, direct: bool) -> None:
    environ = {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": exempt}
    chosen = proxies.choose(host, port, environ)
    assert (chosen is None) == direct
    assert chosen is None or (chosen.host, chosen.port) == ("proxy.example", 3128)


@pytest.mark.parametrize(
    "text", ["https://proxy.example:3128", "socks5://proxy.example", "http://:80", "http://a:b"]
)
def test_a_proxy_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="HTTPS_PROXY"):
        proxies.choose("etcd.example", 1, {"HTTPS_PROXY": text})


# URLs.


@given(st.text())
def test_unquoted_is_the_opposite_of_quoting(text: str) -> None:
    text = text.encode(errors="replace").decode()
    assert unquoted(urllib.parse.quote(text, safe="")) == text


@pytest.mark.parametrize("text", ["%", "%1", "%zz", "a%2", "% 1", "%+1"])
def test_a_lone_percent_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        unquoted(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("host", ("host", 7)),
        ("host:1", ("host", 1)),
        ("[::1]", ("::1", 7)),
        ("[::1]:65535", ("::1", 65535)),
        ("10.0.0.1:22", ("10.0.0.1", 22)),
    ],
)
def test_host_and_port(text: str, parts: tuple[str, int]) -> None:
    assert host_and_port(text, 7) == parts


@pytest.mark.parametrize(
    "text",
    ["", ":1", "host:", "host:0", "host:65536", "host:x", "h:1:2", "[::1", "[]", "[::1]x", "a b", "a\r\nb"],
)
def test_what_is_no_host_and_port_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        host_and_port(text, 7)


def test_a_socket_that_can_not_be_made_leaves_nothing_open() -> None:
    port = free_port()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(Broken):
        Socket((int(socket.AF_INET), ("127.0.0.1", port)), soon())
    assert set(os.listdir("/proc/self/fd")) == before
