"""The lock in Redis or Valkey: a few keys for each name, and one script that does every step.

The server's clock decides. Tokens grow with it, so that they also grow over a loss of the data. Who waits
stands in a queue: whoever frees the lock wakes the first one that listens, by PUBLISH in the same step.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run_redis.backend import RedisBackend

__all__ = ["open_backend"]


def open_backend(url: str, environ: Mapping[str, str]) -> RedisBackend:
    """The backend for `redis`, whose address is in REDIS_URL, or for a URL of redis, rediss or unix.

    Nobody is contacted. Raises Refused (78).
    """
    from singleton_run_redis.address import Address
    from singleton_run_redis.backend import RedisBackend

    address = Address(url, environ)
    backend = RedisBackend(address)
    if address.insecure:
        text = "the certificate of redis is not checked: anybody may be answering in its place"
        backend.warning = "error", text
    return backend
