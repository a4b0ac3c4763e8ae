"""Slots, `--once` and kept locks on a real API server, as replicas in pods have them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from singleton_run.api import registry
from singleton_run.errors import HELD
from tests.servers.kubeaccess import WATCHING
from tests.support.harness import Lab, Run, environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.kubeaccess import Namespace, Pod

INTERRUPTED = 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def pod(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    account = namespace.account("slots", verbs=[*WATCHING, "delete"])
    return account.pod(tmp_path_factory.mktemp("pod"))


class PodLab(Lab):
    """A lab whose lock is a Lease."""

    def __init__(self, directory: Path, namespace: Namespace, pod: Pod) -> None:
        super().__init__(directory)
        self.lock = f"k8s-lease://{namespace.name}?service-account={pod.folder}"
        self.environ = environment(**pod.environ)

    def replica(self, *options: str, command: list[str] | None = None) -> Run:
        """Start a command under the lock, in the pod."""
        return self.start(*options, command=command or self.job(), environ=self.environ)


@pytest.fixture
def lab(namespace: Namespace, pod: Pod, tmp_path: Path) -> Iterator[PodLab]:
    with PodLab(tmp_path, namespace, pod) as lab:
        yield lab


def test_of_three_replicas_one_runs_each_slot(lab: PodLab) -> None:
    runs = [lab.replica("--every", "1s") for _ in range(3)]
    until(lambda: len(lab.evidence.slots()) >= 4, "four slots")
    for run in runs:
        run.popen.terminate()
    assert [run.wait() in (0, INTERRUPTED) for run in runs] == [True] * 3
    times = [slot.time for slot in lab.evidence.slots()]
    assert times == sorted(set(times))
    assert {slot.attempt for slot in lab.evidence.slots()} == {1}
    lab.evidence.check(len(times))


def test_of_ten_that_come_once_one_runs_and_all_end_well(lab: PodLab) -> None:
    runs = [lab.replica("--every", "1h", "--no-loop") for _ in range(10)]
    assert [run.wait() for run in runs] == [0] * 10, [run.said for run in runs]
    lab.evidence.check(1)


def test_of_ten_with_one_key_one_runs_until_it_is_forgotten(lab: PodLab, pod: Pod) -> None:
    runs = [lab.replica("--once", "v1/ä") for _ in range(10)]
    assert [run.wait() for run in runs] == [0] * 10, [run.said for run in runs]
    lab.evidence.check(1)
    backend = registry.open_backend(lab.lock, {**os.environ, **pod.environ})
    assert backend.forget(lab.name, "v1/ä", 5.0)
    backend.close()
    assert lab.replica("--once", "v1/ä").wait() == 0
    lab.evidence.check(2)


def test_a_lock_is_kept_without_a_process(lab: PodLab) -> None:
    assert lab.replica("--lock-at-least-for", "15s").wait() == 0
    until(lambda: not lab.left(), "all processes to end")
    assert lab.replica("-n").wait() == HELD
    later = lab.replica("-v")
    assert later.wait() == 0
    assert "waiting for lock" in later.said
    lab.evidence.check(2)
