"""Where the lock is: real servers, each opened in the state of being (`world`) that a fault asks for.

`plain` is opened once for many rounds, every other one for one round.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.sites import etcd, file, k8s, postgres, redis

if TYPE_CHECKING:
    from collections.abc import Iterator

SITES: dict[str, Any] = {
    "file": file,
    "etcd": etcd,
    "etcd+grpc": etcd,
    "postgres": postgres,
    "pgbouncer": postgres,
    "k8s-lease": k8s,
    "redis": redis,
    "redis+sentinel": redis,
    "redis+cluster": redis,
    "redis+quorum": redis,
}
PLAIN = "plain"


@contextmanager
def opened(site: str, world: str) -> Iterator[Any]:
    """The site of that name in that state. Skips where it can't be had."""
    with (
        tempfile.TemporaryDirectory(prefix="faults-site-", ignore_cleanup_errors=True) as folder,
        SITES[site].opened(site, world, Path(folder)) as place,
    ):
        yield place
