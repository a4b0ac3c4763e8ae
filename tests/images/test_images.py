"""The executable that needs no Python in images of all kinds, started as Docker and Kubernetes do it.

A root directory is laid out in a folder and entered: process 1 of a namespace, a root that is read-only, a
user without a name and any capability, /proc, /dev/null, and tmpfs where the container may write.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.images import roots
from tests.support import standalone
from tests.support.harness import GIVEN, LIMIT, PROGRAM, TREE, Run, below, title, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.images.roots import Root
    from tests.servers.etcd import Etcd

NEW = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
CONTAINER = [*NEW, sys.executable, "-I", "-S", str(TREE / "tests" / "support" / "container.py")]
pytestmark = pytest.mark.skipif(
    subprocess.run([*NEW, "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0,
    reason="namespaces and mounts need root: sudo, or docker run --privileged",
)
USER = 12345
IMAGES = ("scratch", "busybox", "alpine", "debian", "glibc", "java")
OF_DOCKER = ["--lock", "file:///run/locks", "--name", "job"]


@pytest.fixture(scope="module")
def executable() -> Path:
    """The one that is tested."""
    return Path(PROGRAM[0]) if GIVEN else standalone.executable()


@pytest.fixture(scope="module", params=IMAGES)
def root(request: pytest.FixtureRequest, executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """An image that has the executable as /singleton-run."""
    folder = tmp_path_factory.mktemp(request.param) / "root"
    if request.param == "scratch":
        return roots.scratch(folder, executable)
    lay_out: Callable[[Path], Root] = getattr(roots, request.param)
    root = lay_out(folder)
    root.put(executable, "/singleton-run")
    return root


@pytest.fixture
def contained(tmp_path: Path) -> Iterator[Contained]:
    """A test's containers."""
    contained = Contained(tmp_path)
    yield contained
    contained.end()


class Contained:
    """Starts containers, and ends what is left of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runs: list[Run] = []

    def start(
        self, root: Root, *argv: str, mounts: tuple[str, ...] = ("tmpfs:/run",), user: int = USER
    ) -> Run:
        """Start a program as process 1 of a container of this image. Its environment is an engine's."""
        words = [str(root.folder), str(user), *root.mounts, *mounts]
        environ = {"PATH": "/usr/local/bin:/usr/bin:/bin:/sbin:/usr/sbin", "HOSTNAME": "c0ffee"}
        run = Run([*CONTAINER, *words, "--", *argv], self._directory, environ={**environ, "HOME": "/"})
        self._runs.append(run)
        return run

    def end(self) -> None:
        """Kill what still runs: with process 1 goes all of its container."""
        for run in self._runs:
            run.popen.kill()
            run.popen.wait(LIMIT)


def first(run: Run) -> int:
    """The process id, out here, of the container's process 1."""
    return next(each for each in below(run.pid) if title(each).startswith("singleton-run: front of"))


def test_a_command_runs_and_its_status_is_the_container_s(contained: Contained, root: Root) -> None:
    run = contained.start(root, "/singleton-run", *OF_DOCKER, "--", *root.command)
    assert run.wait() == root.status, run.said
    assert root.says in run.out.decode() + run.said
    assert "singleton-run:" not in run.said


@pytest.mark.parametrize("root", [image for image in IMAGES if image != "java"], indirect=True)
def test_a_stop_of_the_container_reaches_the_command(contained: Contained, root: Root) -> None:
    run = contained.start(root, "/singleton-run", *OF_DOCKER, "--", *root.wait)
    until(lambda: root.says.encode() in run.out, f"the command to run; {run.said}")
    os.kill(first(run), signal.SIGTERM)
    assert run.wait() == root.status, run.said


@pytest.mark.parametrize("root", ["busybox", "debian"], indirect=True)
def test_a_crontab_runs_as_process_1(contained: Contained, root: Root, tmp_path: Path) -> None:
    file = tmp_path / "shared" / "crontab"
    file.parent.mkdir()
    file.parent.chmod(0o755)
    orphan = "(sleep 0.1 &)"
    file.write_text(
        f"# singleton-run: name=often leftovers=ignore\n* * * * * * {orphan}; echo $SINGLETON_SLOT\n"
        "# singleton-run: name=long\n* * * * * * trap 'echo stopped; exit' TERM; echo; sleep 600 & wait\n"
    )
    file.chmod(0o644)
    call = ["/singleton-run", "crontab", "/shared/crontab", "--lock", "file:///run/locks"]
    there = ("tmpfs:/run", f"ro:{file.parent}:/shared")
    run = contained.start(root, *call, "--output", "prefix", mounts=there)
    until(lambda: run.out.count(b"[often ") >= 3 and b"[long " in run.out, f"output; {run.said}")
    until(lambda: run.out.count(b"[often ") >= 5, f"more output; {run.said}")
    parent = next(each for each in below(run.pid) if title(each).startswith("singleton-run: crontab"))
    os.kill(parent, signal.SIGTERM)
    assert run.wait() == 0, run.said
    slots = [line.partition("] ")[2] for line in run.out.decode().splitlines() if "[often " in line]
    assert len(slots) == len(set(slots))
    assert "] stopped" in run.out.decode()


@pytest.mark.servers
def test_of_two_containers_one_runs(contained: Contained, root: Root, etcd_server: Etcd) -> None:
    lock = ["--lock", f"etcd://{etcd_server.address}", "--name", root.folder.parent.name, "-v"]
    one = contained.start(root, "/singleton-run", *lock, "--every", "1h", "--", *root.command, mounts=())
    one.hears("the next slot")
    other = contained.start(
        root, "/singleton-run", *lock, "--every", "1h", "--no-loop", "--", *root.command, mounts=()
    )
    assert other.wait() == 0, other.said
    assert root.says in one.out.decode() + one.said
    assert root.says not in other.out.decode() + other.said
    os.kill(first(one), signal.SIGTERM)
    assert one.wait() == 0, one.said


def test_what_an_image_can_not_change_is_installed_before(
    contained: Contained, root: Root, executable: Path, tmp_path: Path
) -> None:
    """As the initContainer of a Pod does it, into an emptyDir."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    ours = roots.scratch(tmp_path / "ours", executable)
    shared = f"rw:{tmp_path}/shared:/shared"
    installing = contained.start(ours, "/singleton-run", "install", "/shared", mounts=(shared,), user=65532)
    assert installing.wait() == 0, installing.said
    (root.folder / "singleton-run").rename(tmp_path / "away")
    try:
        there = ("tmpfs:/run", f"ro:{tmp_path}/shared:/shared")
        run = contained.start(root, "/shared/singleton-run", *OF_DOCKER, "--", *root.command, mounts=there)
        assert run.wait() == root.status, run.said
    finally:
        (tmp_path / "away").rename(root.folder / "singleton-run")


@pytest.mark.parametrize("user", [0, USER])
def test_without_a_place_to_write_it_is_one_line(contained: Contained, root: Root, user: int) -> None:
    run = contained.start(root, "/singleton-run", "--name", "job", "--", *root.command, mounts=(), user=user)
    assert run.wait() == 78, run.said
    assert run.said.count("\n") == 1, run.said
    assert "--lock file:///DIRECTORY" in run.said


def test_the_image_is_the_executable_and_nothing_else(executable: Path) -> None:
    source, place = roots.copied(executable)
    lines = roots.DOCKERFILE.read_text(encoding="utf-8").splitlines()
    steps = [line.split()[0] for line in lines if line and not line.startswith("#")]
    assert steps == ["FROM", "ARG", "COPY", "USER", "ENTRYPOINT"]
    assert "FROM scratch" in lines
    assert f'ENTRYPOINT ["{place}"]' in lines
    assert GIVEN or source == executable.name
