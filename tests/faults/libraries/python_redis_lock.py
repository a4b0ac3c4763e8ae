"""`python_redis_lock.py URL NAME TTL COMMAND…`: a command under python-redis-lock, which renews itself."""

from __future__ import annotations

import subprocess
import sys

import redis_lock
from redis import Redis


def main() -> int:
    """Take the lock, run the command, give the lock back."""
    url, name, ttl, *command = sys.argv[1:]
    # It waits in one request for as long as the lock may last, which redis-py by default gives up after 5 s.
    client = Redis.from_url(url, socket_timeout=None)
    with redis_lock.Lock(client, name, expire=round(float(ttl)), auto_renewal=True):
        return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
