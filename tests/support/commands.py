"""What a backend promises, asked of the whole program: commands are started under its locks and judged.

The suite `singleton_run.testing` asks the same of a backend object, in much more detail. Here nothing is
imported from what is tested, so that it can be a file without Python.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import DENIED, HELD, LOST, UNAVAILABLE, UNUSABLE, Refused
from tests.support.harness import LONG, PROGRAM, Lab, Run, environment, kill_tree, send, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from singleton_run.testing import Fault, Site

SHORT = "6s"
"""The shortest lease that a command may have."""

INTERRUPTED = 128 + signal.SIGTERM
CONTENDERS = 6


class SiteLab(Lab):
    """A lab whose locks are at a site."""

    def __init__(self, directory: Path, site: Site) -> None:
        super().__init__(directory)
        self.site = site
        self.lock = site.lock

    def call(self, *options: str, command: list[str] | None = None) -> Run:
        """Start a command under the lock, in the site's environment."""
        environ = around(self.site.environ)
        return self.start(*options, command=command or self.job(), environ=environ)

    def hold(self, ttl: str = LONG) -> Run:
        """Start a command that goes on, and wait until it runs."""
        jobs = self.evidence.count("ready")
        run = self.call("--ttl", ttl, command=self.long_job())
        self.ready(jobs + 1)
        return run

    def wait_behind(self, ttl: str = LONG) -> Run:
        """Start a command that finds the lock held, and waits for it."""
        run = self.call("--ttl", ttl)
        run.hears("waiting for lock")
        return run

    def another(self) -> None:
        """Whoever comes next gets the lock at once, runs alone, and ends well."""
        run = self.call("--wait", "60s")
        assert run.wait() == 0, run.said

    def wrong(self, fault: Fault) -> Run:
        """A call that meets this fault, once it has ended."""
        argv = [*PROGRAM, "--lock", fault.lock, "--name", self.name, "--wait", "0", "--", *self.job()]
        with fault.during():
            run = Run(argv, self.directory, environ=around(fault.environ))
            self.runs.append(run)
            run.wait()
        return run


def around(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a call at a site."""
    return environment(**environ)


class Commands:
    """The cases for every backend. A subclass has a fixture `site` (scope class, or wider)."""

    @pytest.fixture
    def lab(self, site: Site, tmp_path: Path) -> Iterator[SiteLab]:
        """A lock at the site."""
        with SiteLab(tmp_path, site) as lab:
            yield lab

    def test_another_is_told_who_has_it(self, lab: SiteLab) -> None:
        holder = lab.hold()

        def told() -> str:
            other = lab.call("-n")
            assert other.wait() == HELD, other.said
            return other.said

        # With a file it is the record that says so, which is written while the command starts.
        until(lambda: f":{holder.pid}:" in told(), "another to be told")
        lab.finish()
        assert holder.wait() == 0, holder.said
        lab.evidence.check(turns=1)

    def test_each_of_many_runs_alone(self, lab: SiteLab) -> None:
        runs = [lab.call() for _ in range(CONTENDERS)]
        assert [run.wait() for run in runs] == [0] * CONTENDERS, [run.said for run in runs]
        lab.evidence.check(turns=CONTENDERS)

    def test_who_waits_is_next_when_the_wrapper_is_killed(self, lab: SiteLab) -> None:
        holder = lab.hold()
        waiter = lab.wait_behind()
        send(signal.SIGKILL, holder.pid)
        assert waiter.wait() == 0, waiter.said
        lab.evidence.check(turns=2)

    def test_who_waits_is_next_when_the_machine_is_lost(self, lab: SiteLab) -> None:
        holder = lab.hold(SHORT)
        waiter = lab.wait_behind()
        kill_tree(holder.pid)
        assert waiter.wait() == 0, waiter.said
        lab.evidence.check(turns=2, unburied=True)

    def test_a_waiter_that_is_lost_holds_nobody_up(self, lab: SiteLab) -> None:
        holder = lab.hold()
        lost, waiter = lab.wait_behind(SHORT), lab.wait_behind()
        kill_tree(lost.pid)
        lab.finish()
        assert holder.wait() == 0, holder.said
        assert waiter.wait() == 0, waiter.said
        lab.evidence.check(turns=2)

    def test_tokens_grow_though_the_lock_is_deleted_by_hand(self, lab: SiteLab) -> None:
        for turns in (1, 2):
            lab.another()
            lab.site.delete(lab.name)
            lab.evidence.check(turns)
        lab.another()
        lab.evidence.check(turns=3)

    def test_a_key_runs_once_until_it_is_forgotten(self, lab: SiteLab) -> None:
        for turns in (1, 1):
            assert lab.call("--once", "v 1/ä").wait() == 0
            lab.evidence.check(turns)
        argv = [*PROGRAM, "forget", "--lock", lab.lock, lab.name, "v 1/ä"]
        for status in (0, 1):
            assert Run(argv, lab.directory, environ=around(lab.site.environ)).wait() == status
        assert lab.call("--once", "v 1/ä").wait() == 0
        lab.evidence.check(turns=2)

    def test_a_slot_is_run_once(self, lab: SiteLab) -> None:
        options = ["--every", "1h", "--no-loop"]
        runs = [lab.call(*options) for _ in range(2)]
        assert [run.wait() for run in runs] == [0, 0], [run.said for run in runs]
        assert lab.call(*options).wait() == 0
        lab.evidence.check(turns=1)

    def test_a_lock_is_kept_without_a_process(self, lab: SiteLab) -> None:
        assert lab.call("--lock-at-least-for", LONG).wait() == 0
        other = lab.call("-n")
        assert other.wait() == HELD, other.said
        lab.evidence.check(turns=1)

    def test_every_fault_is_one_line_and_its_status(self, lab: SiteLab) -> None:
        for fault in lab.site.faults:
            run = lab.wrong(fault)
            statuses = (DENIED, UNUSABLE) if fault.kind is Refused else (UNAVAILABLE,)
            assert run.popen.returncode in statuses, (fault.what, run.said)
            assert "Traceback" not in run.said, fault.what
            lines = run.said.splitlines()
            assert all(line.startswith("singleton-run: ") for line in lines), (fault.what, run.said)
            # Before the one that says why there may be a warning: that a certificate isn't checked.
            assert 1 <= len(lines) <= 2, (fault.what, run.said)
            assert not fault.secret or fault.secret not in run.said
        assert lab.evidence.lines() == []


class LeasedCommands(Commands):
    """And those for a lock under a lease on a server."""

    def test_a_command_whose_lock_is_taken_by_hand_is_stopped(self, lab: SiteLab) -> None:
        run = lab.hold(SHORT)
        assert lab.site.take is not None
        lab.site.take(lab.name)
        assert run.wait() == LOST, run.said
        assert lab.evidence.count("end") == 0

    def test_a_command_whose_server_is_gone_is_stopped(self, lab: SiteLab) -> None:
        run = lab.hold(SHORT)
        assert lab.site.outage is not None
        with lab.site.outage():
            assert run.wait() == LOST, run.said
        lab.another()
        lab.evidence.check(turns=2)

    def test_a_lock_outlives_a_restart_of_the_server(self, lab: SiteLab) -> None:
        run = lab.hold()
        assert lab.site.restart is not None
        lab.site.restart()
        other = lab.call("-n")
        assert other.wait() == HELD, other.said
        lab.finish()
        assert run.wait() == 0, run.said
        lab.another()
        lab.evidence.check(turns=2)
