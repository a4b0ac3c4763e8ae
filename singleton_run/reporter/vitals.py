"""A page of memory that tells the reporter how we are, at any moment and however much its pipe has lost.

Front and keeper write it, the reporter reads it: without a lock and without a wait. Each value has 8 aligned
bytes, which the processor writes as a whole. It lasts as long as the front, over all its turns.
"""

from __future__ import annotations

from singleton_run.system.shared_page import Flag, Number, Seconds, Values

BEGINNING, WAITING, HOLDING, LOST, RESTING = range(5)


SIZE = 128
"""The bytes of shared memory that the values take at most."""


class Vitals(Values):
    """The shared values, in a page of their own or in SIZE bytes of `memory`.

    Make it, or have that memory, before the reporter is forked. `phase` is BEGINNING before the first news
    of the lock, then WAITING, HOLDING, LOST or RESTING; LOST lasts until the command that is ended for it
    is gone. `reached` says that we have ever had an answer about the lock, `leased` that the lock is a
    lease, which has to be renewed, `running` that the command runs. `end` is when the lease ends (0.0
    before the first grant of a turn), `reported` when the keeper last began or ended a request, both by the
    boot clock; `since` is when the lock became ours, in Unix seconds. `keeper` is the keeper's process id,
    0 without one. `dropped` counts the events that didn't fit into the pipe.
    """

    phase = Number(0)
    reached = Flag(1)
    leased = Flag(2)
    end = Seconds(3)
    reported = Seconds(4)
    keeper = Number(5)
    dropped = Number(6)
    since = Seconds(7)
    running = Flag(8)
