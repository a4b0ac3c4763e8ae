"""The signature of a webhook, and SHA-256 by our own means, beside Python's."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from singleton_run.reporter.signing import plain_sha256, signature


@given(st.binary(max_size=300))
def test_sha256_is_that_of_the_standard(data: bytes) -> None:
    assert plain_sha256(data) == hashlib.sha256(data).digest()


@given(st.text(st.characters(codec="utf-8"), max_size=100), st.binary(max_size=300))
def test_the_signature_is_an_hmac(secret: str, body: bytes) -> None:
    assert signature(secret, body) == f"sha256={hmac.new(secret.encode(), body, 'sha256').hexdigest()}"
