"""The suite that every lock backend has to pass, ours and those of others. It needs pytest.

The test file of a backend describes where the backend is and how to disturb it. All cases come from here:

    import pytest
    from singleton_run.errors import Refused, Unavailable
    from singleton_run.testing import Fault, LeasedConformance, Site

    class TestEtcd(LeasedConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def site(cls, server: Server) -> Site:
            return Site(
                opener="singleton_run_etcd:open_backend",
                lock=f"etcd://{server.address}",
                ttl=2.0,
                fifo=True,
                watches=True,
                delete=server.delete_lock,  # (name): delete the lock by hand
                take=server.take_lock,  # (name): give the lock to another by hand
                outage=server.stopped,  # () -> context manager, within which the server doesn't answer
                restart=server.restart,  # (): kill the server, and start it again on its data
                faults=[
                    Fault("nobody listens", Unavailable, "etcd://127.0.0.1:1"),
                    Fault("wrong password", Refused, f"etcd://user:{WRONG}@{server.address}", secret=WRONG),
                ],
            )

`LeasedConformance` is for a lock under a lease on a server. `Conformance` is the part of it that also holds
for a lock that lasts as long as its holder's process, such as `file`. See `docs/backends.md`, and `Site` for
each field of the description.

How it works: each backend object of a case lives in a process of its own (a *peer*), as it does in
production, and the test tells the peer what to do. So a call that hangs fails its case after a time and
doesn't hang the suite, and a crash is a real SIGKILL. Each case uses new lock names: one server is enough for
all cases, and nothing has to be cleaned up between them.
"""

# ruff: noqa: E402 - pytest has to be told before the modules with the assertions are imported

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("singleton_run.testing.suite", "singleton_run.testing.leased")

from singleton_run.testing.leased import LeasedConformance
from singleton_run.testing.peer import Crew, Peer
from singleton_run.testing.site import Fault, Site
from singleton_run.testing.suite import Conformance

__all__ = ["Conformance", "Crew", "Fault", "LeasedConformance", "Peer", "Site"]
