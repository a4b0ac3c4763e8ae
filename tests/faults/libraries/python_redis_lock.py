"""`python_redis_lock.py URL NAME TTL COMMAND…`: a command under python-redis-lock, which renews itself."""

from __future__ import annotations

import subprocess
import sys

import redis_lock
from redis import Redis


def main() -> int:
    """Take the lock, run the command, give the lock back."""
    url, name, ttl, *command = sys.argv[1:]
    with redis_lock.Lock(Redis.from_url(url), name, expire=round(float(ttl)), auto_renewal=True):
        return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
