"""Which slot is started, decided from a record and a time."""

from __future__ import annotations

from typing import Any

from singleton_run.settings import Settings


def asked(**wishes: Any) -> Settings:
    """Settings of a call with a schedule."""
    fields: dict[str, Any] = dict.fromkeys(Settings.__slots__)
    fields.update(
        name="lock",
        ttl=30.0,
        wait=None,
        jitter=0.0,
        loop=True,
        retries=0,
        retry_delay=10.0,
        retry_backoff=1.0,
        retry_interrupted=False,
        keep=0.0,
        scheduled=True,
    )
    return Settings(**{**fields, **wishes})
