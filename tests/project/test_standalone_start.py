"""What the executable has in the place of modules that each start of CPython loads."""

from __future__ import annotations

import codecs
import encodings
import importlib.util
from typing import TYPE_CHECKING, Any

import pytest
from sources import HERE

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = "a\u00e9\u20ac\U0001f600z".encode()


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"start_{name}", HERE / f"start/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def search() -> Iterator[Any]:
    module = load("encodings")
    yield module
    codecs.unregister(module.search_function)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_utf_8_is_decoded_in_pieces_as_codecs_does(search: Any, size: int) -> None:
    ours, theirs = search.IncrementalDecoder(), codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(TEXT), size):
        piece = TEXT[start : start + size]
        assert ours.decode(piece) == theirs.decode(piece)
        assert ours.getstate() == theirs.getstate()
    assert ours.decode(b"", final=True) == ""


@pytest.mark.parametrize("errors", ["strict", "replace", "surrogateescape"])
@pytest.mark.parametrize("data", [b"\xff", b"a\xe2\x82", b"\xed\xa0\x80", b"ok"])
def test_what_is_no_utf_8_is_treated_as_codecs_does(search: Any, data: bytes, errors: str) -> None:
    def outcome(decoder: Any) -> object:
        try:
            return decoder.decode(data, True)
        except UnicodeDecodeError as error:
            return error.args

    assert outcome(search.IncrementalDecoder(errors)) == outcome(
        codecs.getincrementaldecoder("utf-8")(errors)
    )


def test_a_decoder_goes_on_from_its_state(search: Any) -> None:
    one, other = search.IncrementalDecoder(), search.IncrementalDecoder()
    one.decode(b"\xe2\x82")
    other.setstate(one.getstate())
    assert other.decode(b"\xac") == "\u20ac"
    one.reset()
    assert one.decode(b"a") == "a"


def test_utf_8_has_what_codecs_knows_of_it(search: Any) -> None:
    ours, theirs = search.search_function("utf-8"), codecs.lookup("utf-8")
    assert ours.name == theirs.name
    assert ours.encode("\u20ac") == theirs.encode("\u20ac")
    assert ours.decode(TEXT) == theirs.decode(TEXT)
    assert ours.incrementalencoder("replace").encode("a\ud800") == b"a?"
    assert ours.streamreader is theirs.streamreader


@pytest.mark.parametrize("name", ["UTF8", "latin-1", "iso8859_1", "us-ascii", "idna", "utf_8_sig", "cp437"])
def test_another_encoding_is_found_by_its_names(search: Any, name: str) -> None:
    assert search.search_function(name.lower()).name == codecs.lookup(name).name


@pytest.mark.parametrize("name", ["none", "aliases", "a.b", ".", ""])
def test_what_is_no_encoding_is_not_found(search: Any, name: str) -> None:
    assert search.search_function(name) is None


@pytest.mark.parametrize("name", ["UTF-8", "iso 8859--1", "a.b", "-x-", "f\u00fcnf"])
def test_a_name_is_made_plain_as_python_does(search: Any, name: str) -> None:
    assert search.normalize_encoding(name) == encodings.normalize_encoding(name)
