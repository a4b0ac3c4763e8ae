"""What `--label-pod` takes: what the API server takes for a label."""

from __future__ import annotations

import pytest

from singleton_run.call.pod_label import check_label


@pytest.mark.parametrize(
    "text",
    ["role=leader", "example.com/role=Leader_1", "a=", f"{'k' * 63}={'v' * 63}", "a.b-c.d/E_f.g=1"],
)
def test_a_label(text: str) -> None:
    assert check_label(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("role", "is not KEY=VALUE"),
        ("=leader", "can't be the key"),
        ("-role=leader", "can't be the key"),
        ("Example.com/role=leader", "can't be the key"),
        ("/role=leader", "can't be the key"),
        ("a..b/role=leader", "can't be the key"),
        (f"{'k' * 64}=v", "can't be the key"),
        ("role=a leader", "can't be the value"),
        ("role=leader-", "can't be the value"),
        (f"role={'v' * 64}", "can't be the value"),
    ],
)
def test_no_label(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_label(text)
