"""The suite that every lock backend must pass, ours and those of others. Needs pytest.

A backend's test file describes where the backend is and how to hurt it, and has the rest for free:

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
                delete=server.delete_lock,  # (name): what a person does by hand
                take=server.take_lock,  # (name): make it another's, by hand
                outage=server.stopped,  # () -> context manager: within it the server doesn't answer
                restart=server.restart,  # (): killed, and started again on its data
                faults=[
                    Fault("nobody listens", Unavailable, "etcd://127.0.0.1:1"),
                    Fault("wrong password", Refused, f"etcd://user:{WRONG}@{server.address}", secret=WRONG),
                ],
            )

`LeasedConformance` is for a lock under a lease on some server. `Conformance` is the part of it that
also holds for a lock which lasts as long as its holder's process, as that of `file`.
See `docs/backends.md`, and `Site` for every word of the description.

How it works: each backend object of a case lives in a process of its own (a *peer*), as it would
in production, and is told what to do by the test. So a call that hangs fails its case after
`Site.patience` instead of hanging the suite, and a crash is a real SIGKILL. Cases use names of their
own, so that one server will do for all of them, and nothing has to be cleaned away between them.
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
