"""`redis_py.py URL NAME TTL COMMAND…`: a command under redis-py's Lock, renewed by a thread.

The library renews nothing by itself: this is the most that a script of a few lines makes of it.
"""

from __future__ import annotations

import subprocess
import sys
import threading

from redis import Redis


def main() -> int:
    """Take the lock, run the command, give the lock back."""
    url, name, ttl, *command = sys.argv[1:]
    lock = Redis.from_url(url).lock(name, timeout=float(ttl), thread_local=False)
    over = threading.Event()

    def renew() -> None:
        while not over.wait(float(ttl) / 3):
            lock.reacquire()

    with lock:
        threading.Thread(target=renew, daemon=True).start()
        status = subprocess.call(command)
        over.set()
    return status


if __name__ == "__main__":
    sys.exit(main())
