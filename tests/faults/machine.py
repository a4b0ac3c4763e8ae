"""Group 5: the machine that the wrapper runs on."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING

import pytest

from tests.faults.fault import REDIS, Fault, Strike
from tests.faults.sites.site import fill, need_root, small_disk, with_clock
from tests.support.harness import full_pipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.scene import Scene

SERVERS = ("etcd", "etcd+grpc", "postgres", "pgbouncer", "k8s-lease", *REDIS)
HELPERS = ("front", "guard", "keeper")


def _clock_file(scene: Scene) -> Path:
    return Path(scene.directory / "clock")


def _clocked(scene: Scene) -> dict[str, str]:
    return with_clock(_clock_file(scene))


def _step(seconds: int) -> Strike:
    """The wall clock of all contenders leaps, and leaps back later."""

    def strike(scene: Scene) -> None:
        _clock_file(scene).write_text(f"{seconds:+d}\n")
        scene.hit += 1
        scene.wait(scene.chance.choice((0.3, 3.0, scene.ttl + 1.5)))
        _clock_file(scene).write_text("+0\n")

    return strike


def _take_descriptors(scene: Scene) -> None:
    """One of our processes, or each of them, can't open anything for a while."""
    chosen = scene.chance.choice((("front",), ("guard",), ("keeper",), HELPERS))
    _limit(scene, resource.RLIMIT_NOFILE, _descriptors, chosen if scene.site.leased else ("front", "guard"))


def _descriptors(process: int) -> int:
    """As many as it has, up to the first gap; but 8, for poll(2) takes no more than the limit."""
    used = {int(entry) for entry in os.listdir(f"/proc/{process}/fd")}
    return max(8, min(set(range(len(used) + 1)) - used))


def _take_memory(scene: Scene) -> None:
    """The keeper gets no more memory for a while, as with `ulimit -v`."""
    _limit(scene, resource.RLIMIT_AS, lambda process: 1 << 20, ("keeper",))


def _limit(scene: Scene, limit: int, value: Callable[[int], int], roles: tuple[str, ...]) -> None:
    before: dict[int, tuple[int, int]] = {}
    for process in scene.roles(*roles).values():
        try:
            before[process] = resource.prlimit(process, limit)
            resource.prlimit(process, limit, (value(process), before[process][1]))
        except (ProcessLookupError, FileNotFoundError):
            continue
        scene.hit += 1
    scene.wait(scene.chance.choice((0.3, 3.0, scene.ttl + 1.5)))
    for process, old in before.items():
        try:
            resource.prlimit(process, limit, old)
        except ProcessLookupError:
            continue


def _cgroup(scene: Scene, controller: str) -> Path:
    """A control group of the scene's own, removed at its end. Skips where none can be made."""
    need_root("to make a control group")
    first, second = Path("/sys/fs/cgroup", controller), Path("/sys/fs/cgroup")
    group = (first if first.is_dir() else second) / f"{scene.name}-{controller}"
    if not first.is_dir() and controller not in (second / "cgroup.subtree_control").read_text():
        pytest.skip(
            f"needs the control group {controller}: echo +{controller} > {second}/cgroup.subtree_control"
        )
    if not group.exists():
        group.mkdir()
        scene.undo.callback(_remove, group)
    return group


def _remove(group: Path) -> None:
    """Its processes have ended; one that has not been waited for may be in it for a moment."""
    for _ in range(100):
        try:
            group.rmdir()
        except OSError:
            subprocess.run(["sleep", "0.05"], check=True)
        else:
            return


def _out_of_memory(scene: Scene) -> None:
    """The keeper is moved to a control group without memory: the kernel kills it when it needs some."""
    group = _cgroup(scene, "memory")
    for process in scene.roles("keeper").values():
        (group / "cgroup.procs").write_text(str(process))
        scene.hit += 1
    old = group / "memory.limit_in_bytes"
    (old if old.exists() else group / "memory.max").write_text("4096")
    scene.wait(scene.ttl / 3, scene.ttl / 2)


def _in_cgroup(scene: Scene, index: int) -> tuple[str, ...]:
    procs = shlex.quote(str(_cgroup(scene, "pids") / "cgroup.procs"))
    return ("sh", "-c", f'echo $$ > {procs} && exec "$@"', "sh")


def _no_processes(scene: Scene) -> None:
    """No contender can fork for a while, and one of ours that would have to be replaced is killed."""
    (_cgroup(scene, "pids") / "pids.max").write_text("1")
    scene.hit += 1
    if scene.chance.random() < 0.6:
        scene.send(SIGKILL, scene.chance.choice(("guard", "keeper") if scene.site.leased else ("guard",)))
    scene.wait(scene.chance.choice((0.3, 3.0, scene.ttl + 1.5)))


def _processes_again(scene: Scene) -> None:
    (_cgroup(scene, "pids") / "pids.max").write_text("max")


def _mount_small(scene: Scene) -> None:
    scene.undo.enter_context(small_disk(scene.directory / "locks", 1))
    (scene.directory / "locks").chmod(0o700)


def _fill_directory(scene: Scene) -> None:
    """The directory of the locks has no room for a while."""
    filler = fill(scene.directory / "locks")
    scene.hit += 1
    scene.wait(0.3, 2.0)
    filler.unlink()


def _forbid_writing(scene: Scene) -> None:
    """The directory of the locks is read-only for all who open something in it."""
    need_root("to make a directory read-only")
    locks = str(scene.directory / "locks")
    subprocess.run(["mount", "--bind", locks, locks], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", locks], check=True)
    scene.hit += 1
    scene.wait(0.3, 2.0)
    subprocess.run(["umount", "--lazy", locks], check=True)


def _full_pipe(scene: Scene) -> int:
    """The end to write to of a pipe that is full, and that nobody reads."""
    if scene.pipe is None:
        scene.pipe = read, write = full_pipe()
        scene.undo.callback(os.close, read)
        scene.undo.callback(os.close, write)
    return scene.pipe[1]


def _kill_one(scene: Scene) -> None:
    """Something that there is much to say about."""
    scene.send(SIGKILL, scene.chance.choice(HELPERS if scene.site.leased else ("front", "guard")))


CLOSED = ("sh", "-c", 'exec "$@" 2>&-', "sh")

ROWS = [
    Fault("wall clock a day forward", 5, _step(86400), environ=_clocked),
    Fault("wall clock a day back", 5, _step(-86400), environ=_clocked),
    Fault("keeper out of memory: killed", 5, _out_of_memory, on=SERVERS),
    Fault("keeper out of memory: refused", 5, _take_memory, on=SERVERS, waits_lease=True),
    Fault("no descriptors", 5, _take_descriptors, waits_lease=True),
    Fault("no processes", 5, _no_processes, wrap=_in_cgroup, heal=_processes_again, waits_lease=True),
    Fault("directory full", 5, _fill_directory, on=("file",), prepare=_mount_small),
    Fault("directory read-only", 5, _forbid_writing, on=("file",)),
    Fault("stderr a full pipe, one of ours killed", 5, _kill_one, stderr=_full_pipe, speaks=False),
    Fault("stderr closed, one of ours killed", 5, _kill_one, wrap=lambda scene, index: CLOSED, speaks=False),
]
