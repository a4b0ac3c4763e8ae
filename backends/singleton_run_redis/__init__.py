"""The lock in Redis or Valkey: a few keys for each name, and one script that does every step.

The server's clock decides. Tokens grow with it, so that they also grow over a loss of the data. Who waits
stands in a queue: whoever frees the lock wakes the first one that listens, by PUBLISH in the same step.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["open_backend"]


def open_backend(url: str, environ: Mapping[str, str]) -> Any:
    """The RedisBackend or QuorumBackend for `redis`, whose address is in REDIS_URL, or for a URL.

    Nobody is contacted. Raises Refused (78).
    """
    from singleton_run_redis.address import Address

    address = Address(url, environ)
    if address.masters:
        from singleton_run_redis.quorum import QuorumBackend

        backend: Any = QuorumBackend(address.masters)
    else:
        from singleton_run_redis.backend import RedisBackend

        backend = RedisBackend(address)
    if address.insecure:
        text = "the certificate of redis is not checked: anybody may be answering in its place"
        backend.warning = "error", text
    return backend
