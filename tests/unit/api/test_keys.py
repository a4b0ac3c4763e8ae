"""Keys as a server's names have them: every text has its own."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleton_run.api.keys import plain


@given(st.text(st.characters(exclude_categories=[])))
def test_a_key_can_be_read_back(key: str) -> None:
    text = plain(key)
    assert unquote_to_bytes(text).decode(errors="surrogatepass") == key
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(" /\\'\"#*?")


@pytest.mark.parametrize(
    ("key", "text"),
    [("v1.2-rc_3", "v1.2-rc_3"), ("a/b", "a%2Fb"), ("a%2Fb", "a%252Fb"), ("\u00e9", "%C3%A9")],
)
def test_a_plain_key_stays_as_it_is(key: str, text: str) -> None:
    assert plain(key) == text
