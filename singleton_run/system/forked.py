"""Forks a process of ours: it does its work and ends, and an error is one line instead of a traceback."""

from __future__ import annotations

import posix as os

from singleton_run.errors import NO_MEMORY, describe_bug
from singleton_run.system.stderr import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def forked(work: Callable[[], None]) -> int:
    """Do `work` in a forked process, which then ends. Returns the process id, in the caller only.

    The process exits with 0, or with 1 if the work failed. Raises OSError if the fork fails.
    """
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except OSError as error:
        last_words(f"a process of ours had to end: this machine refuses what a run takes ({error.strerror})")
    except MemoryError:
        last_words(f"a process of ours had to end: this machine refuses what a run takes ({NO_MEMORY})")
    except Exception as error:  # noqa: BLE001 - a traceback is of no use to the user
        last_words(f"a process of ours had to end, which is a fault of singleton-run: {describe_bug(error)}")
    finally:
        os._exit(1)
