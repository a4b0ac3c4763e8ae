"""`open_backend` with redis-py imported: where fifty processes are forked from one, once is enough."""

from __future__ import annotations

import singleton_run_redis.backend
from singleton_run_redis import open_backend

__all__ = ["open_backend", "singleton_run_redis"]
