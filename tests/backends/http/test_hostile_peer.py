"""What answers in etcd's place may say what it likes: that is unavailable or refused, and no crash."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleton_run.api import registry
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import Failure, Lost, Refused, Unavailable
from singleton_run.system import calls
from tests.support.harness import Lab, below, gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from singleton_run.api.contract import Backend

TTL = 6.0
SOON = 0.3


class Peer:
    """A server that answers every request with `answer`, and hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listening.accept()[0]
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    connection.recv(65536)
                    connection.sendall(self.answer)
                except OSError:
                    continue

    def close(self) -> None:
        """Serve nobody any more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def http(body: bytes, head: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """An answer with a body."""
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def every_call(backend: Backend, wake: int) -> list[Callable[[], object]]:
    """Every call of the contract that asks the server."""
    handle = {"lease": 5, "since": 1.0, "known": []}
    grant = Grant("n", "h:1", 7, TTL, handle)
    held = Held(handle={"ttl": TTL, "predecessor": "n/5", "revision": 1})
    return [
        lambda: backend.acquire("n", "h:1", TTL, SOON),
        lambda: backend.wait(held, calls.now() + SOON, wake),
        lambda: backend.leave(SOON),
        lambda: backend.read("n", SOON),
        lambda: backend.list(SOON),
        lambda: backend.renew(grant, SOON),
        lambda: backend.hold(grant, calls.now() + SOON / 10, wake),
        lambda: backend.write(grant, {}, SOON),
        lambda: backend.release(grant, {}, SOON),
    ]


@contextmanager
def pipe() -> Iterator[int]:
    """A descriptor that never is readable."""
    wake, end = os.pipe()
    try:
        yield wake
    finally:
        os.close(wake)
        os.close(end)


def survives(lock: str) -> list[Failure]:
    """Make every call; what was raised is of the kinds that the contract knows."""
    failures: list[Failure] = []
    with pipe() as wake:
        backend = registry.open_backend(lock, {})
        for call in every_call(backend, wake):
            try:
                call()
            except (Unavailable, Refused, Lost) as failure:
                failures.append(failure)
        backend.close()
    assert all(str(failure).isprintable() for failure in failures)
    return failures


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "nothing": b"",
    "noise": bytes(range(256)) * 10,
    "a status that is none": "HTTP/1.1 20² OK\r\n\r\n".encode("latin-1"),
    "a status without end": b"HTTP/1.1 " + b"2" * 100_000,
    "no status": b"HTTP/1.1 \r\n\r\n",
    "only interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    "a head without end": OK + b"x: y\r\n" * 100_000,
    "a length that is none": OK + "Content-Length: ²\r\n\r\n{}".encode("latin-1"),
    "a negative length": OK + b"Content-Length: -5\r\n\r\n{}",
    "a length without end": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "more than it has": OK + b"Content-Length: 100\r\n\r\n{}",
    "more than anybody has": OK + b"Content-Length: 9999999999\r\n\r\n{}",
    "a negative chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n",
    "a chunk without end": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n{}",
    "a chunk with underscores": OK + b"Transfer-Encoding: chunked\r\n\r\n0_2\r\n{}\r\n0\r\n\r\n",
    "a line without end": OK + b"Transfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + b"x" * (1 << 20)) * 9,
    "no JSON": http(b"<html>"),
    "cut JSON": http(b'{"header":{"revis'),
    "no UTF-8": http(b'{"header":"\xff"}'),
    "a nest": http(b"[" * 100_000),
    "digits": http(b'{"header":{"revision":' + b"9" * 6000 + b"}}"),
    "a terminal's": http(
        b'{"error":"\\u001b[2J\\nx","code":2,"message":"\\u001b[2J\\nx"}', OK[:9] + b"500 No"
    ),
    "a refusal without end": http(
        json.dumps({"code": 7, "message": "x" * 10**6}).encode(), OK[:9] + b"403 No"
    ),
    "an infinite code": http(b'{"code":1e999}', OK[:9] + b"500 No"),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_none_is_a_failure(peer: Peer, answer: bytes) -> None:
    peer.answer = answer
    failures = survives(f"etcd://127.0.0.1:{peer.port}")
    assert len(failures) >= 6
    assert all(len(str(failure)) < 5000 for failure in failures)


WORDS = [
    "header revision succeeded responses response_range response_put kvs key value create_revision lease",
    "result TTL error code grpc_code message canceled events compact_revision cancel_reason token",
]
KEYS = st.sampled_from(" ".join(WORDS).split())
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 9),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "1", "-1", "x", "bi81", "é", "\r\nX: y", "1e9", "9" * 5000, "bg=="]),
)
SHAPES = st.recursive(LEAVES, lambda deeper: st.lists(deeper) | st.dictionaries(KEYS, deeper), max_leaves=25)
ENTRY = st.fixed_dictionaries(
    {"key": LEAVES, "create_revision": LEAVES}, optional={"value": LEAVES, "lease": LEAVES}
)
RANGE = st.fixed_dictionaries({"response_range": st.fixed_dictionaries({"kvs": st.lists(ENTRY, max_size=2)})})
NEARLY = st.fixed_dictionaries(
    {"header": st.just({"revision": "5"}), "responses": st.lists(RANGE, max_size=5), "result": SHAPES},
    optional={"succeeded": LEAVES, "token": LEAVES},
)


@settings(max_examples=150)
@given(
    st.one_of(SHAPES, NEARLY),
    st.sampled_from([b"200 OK", b"200 OK", b"403 No", b"500 No", b"503 No"]),
    st.booleans(),
)
def test_json_of_another_shape_is_a_failure_or_an_answer(
    peer: Peer, value: Any, status: bytes, user: bool
) -> None:
    peer.answer = http(json.dumps(value).encode() + b"\n", b"HTTP/1.1 " + status)
    survives(f"etcd://{'user:word@' if user else ''}127.0.0.1:{peer.port}")


@pytest.mark.parametrize("scheme", ["etcd", "etcd+grpc", "postgresql"])
def test_a_call_that_meets_it_ends_in_one_line(tmp_path: Path, peer: Peer, scheme: str) -> None:
    answers = list(ANSWERS.values()) if scheme == "etcd" else [ANSWERS["noise"], ANSWERS["no JSON"]]
    answers += [
        http(b'{"header":{"revision":"1"},"responses":[5]}'),
        b"E\0\0\0\x20SFATAL\0C28000\0M\x1b[2J\0\0",
    ]
    with Lab(tmp_path) as lab:
        lab.lock = f"{scheme}://127.0.0.1:{peer.port}"
        for answer in answers:
            peer.answer = answer
            run = lab.start("-n", "-q", command=["touch", "ran"])
            assert run.wait() in (69, 77, 78), run.said
            assert run.said.count("\n") == 1, run.said
            assert run.said.rstrip("\n").isprintable()
        assert not (lab.directory / "ran").exists()
        assert all(gone(process) for run in lab.runs for process in below(run.pid))
