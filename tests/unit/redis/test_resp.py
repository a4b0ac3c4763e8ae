"""Redis' protocol: what is sent, and what is read of whole answers, of pieces, and of what is no Redis."""

from __future__ import annotations

import hashlib

import pytest

from singleton_run.api.http.wire import Broken
from singleton_run_redis.errors import ServerError
from singleton_run_redis.resp import NotYet, Push, Reader, packed
from singleton_run_redis.scripts import SCRIPT, SHA

VALUES = {
    b"+OK\r\n": b"OK",
    b":-7\r\n": -7,
    b"(12345678901234567890\r\n": 12345678901234567890,
    b"$5\r\na\r\nbc\r\n": b"a\r\nbc",
    b"$0\r\n\r\n": b"",
    b"$-1\r\n": None,
    b"*-1\r\n": None,
    b"_\r\n": None,
    b"#t\r\n": True,
    b"#f\r\n": False,
    b",1.5\r\n": b"1.5",
    b"=7\r\ntxt:abc\r\n": b"abc",
    b"*3\r\n:1\r\n*1\r\n$1\r\nx\r\n_\r\n": [1, [b"x"], None],
    b"~1\r\n:1\r\n": [1],
    b"%2\r\n$1\r\na\r\n:1\r\n*0\r\n:2\r\n": {b"a": 1, "[]": 2},
    b"|1\r\n+ttl\r\n:9\r\n:5\r\n": 5,
}


def test_commands_are_packed_word_by_word() -> None:
    assert packed([("GET", "ä"), ("TIME",)]) == b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xa4\r\n*1\r\n$4\r\nTIME\r\n"


@pytest.mark.parametrize("data", VALUES)
def test_a_value_is_read_however_it_is_cut(data: bytes) -> None:
    for end in range(1, len(data)):
        reader = Reader()
        reader.feed(data[:end])
        with pytest.raises(NotYet):
            reader.next()
        reader.feed(data[end:] + b"+next\r\n")
        assert reader.next() == VALUES[data]
        assert reader.next() == b"next"
        with pytest.raises(NotYet):
            reader.next()


@pytest.mark.parametrize("data", [b"-NOPERM it may not\r\n", b"!18\r\nNOPERM it may not.\r\n"])
def test_an_error_has_its_code(data: bytes) -> None:
    reader = Reader()
    reader.feed(data)
    error = reader.next()
    assert isinstance(error, ServerError)
    assert (error.code, error.text) == ("NOPERM", "it may not")


def test_a_push_is_told_from_an_answer() -> None:
    reader = Reader()
    reader.feed(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n")
    push = reader.next()
    assert isinstance(push, Push)
    assert push.words == [b"message", b"c", b""]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"HTTP",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"*x\r\n",
        b"$1x\r\n",
        b"*1\r\n" * 100,
        b"+" + b"x" * 70000,
    ],
)
def test_what_is_no_redis_is_broken(data: bytes) -> None:
    reader = Reader()
    reader.feed(data)
    with pytest.raises(Broken):
        reader.next()


def test_the_script_s_digest_is_that_of_the_script() -> None:
    assert hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest() == SHA
