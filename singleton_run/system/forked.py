"""A forked process of ours: it does its work and ends, and leaves a line in place of a traceback."""

from __future__ import annotations

import os

from singleton_run.errors import fault
from singleton_run.system.stderr import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def forked(work: Callable[[], None]) -> int:
    """Do `work` in a forked process, which then ends; its process id.

    The process never returns; status 1 says that the work failed. Raises OSError if the fork is refused.
    """
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except OSError as error:
        last_words(f"a process of ours had to end: this machine refuses what a run takes ({error.strerror})")
    except Exception as error:  # noqa: BLE001 - a traceback is of no use to who reads it
        last_words(f"a process of ours had to end, which is a fault of singleton-run: {fault(error)}")
    finally:
        os._exit(1)
