"""The lock in Kubernetes as its docs tell a new user to have it, in a container where next to nothing is."""

from __future__ import annotations

import base64
import json
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import UNUSABLE
from tests.backends.k8s.test_k8s import account_of_the_examples
from tests.process.test_init_pid1 import AS_SOMEBODY, NEW, SOMEBODY, pytestmark  # noqa: F401 - pytest reads the last
from tests.support.harness import Lab, Run, below, environment, send, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.kubeaccess import Namespace, Pod

INTERRUPTED = 128 + signal.SIGTERM
# $1: the files of the service account, $2: an empty directory, from $4 to --: the directories to hide.
# Then nothing can be written to, and the rest is what runs.
MAKE = """
set -e
mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$1" /run/secrets/kubernetes.io/serviceaccount
empty=$2
shift 2
while [ "$1" != -- ]; do mount --bind "$empty" "$1"; shift; done
shift
awk '{ print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
    mount -o remount,bind,ro "$point" 2>&- || :
done
for place in / /tmp /var/tmp /run /dev/shm "$PWD"; do
    if touch "$place/x" 2>&-; then echo "$place can be written to"; exit 99; fi
done
exec "$@"
"""
# As an image has it that sets nothing.
UNSET = (
    *("HOME", "USER", "LOGNAME", "TZ", "TMPDIR", "LANG", "LC_ALL"),
    *("KUBECONFIG", "POD_NAMESPACE", "NAMESPACE", "HTTPS_PROXY", "https_proxy"),
)


class Container(Lab):
    """singleton-run as process 1 and as an unknown user, with a service account and nothing to write to."""

    def __init__(self, directory: Path, pod: Pod) -> None:
        super().__init__(directory)
        self.lock = "k8s-lease"
        self.pod = pod
        self.empty = self.directory / "empty"
        self.empty.mkdir()
        self.environ = environment(**pod.environ)
        for name in UNSET:
            self.environ.pop(name, None)

    def enter(self, *argv: str) -> Run:
        """Start a program in there."""
        new = [*NEW, "--kill-child", "--mount-proc"]
        make = ["sh", "-c", MAKE, "sh", str(self.pod.folder), str(self.empty), *zones(), "--"]
        run = Run([*new, *make, *AS_SOMEBODY, *argv], self.directory, environ=self.environ)
        self.runs.append(run)
        return run

    def runs_to(self, status: int, *options: str, command: str = "id -u") -> Run:
        """What it has become of a command under the lock, which must end with that status."""
        run = self.enter(*self.argv(*options, command=["sh", "-c", command]))
        assert run.wait() == status, run.said
        return run


def zones() -> list[str]:
    """Where Python finds time zones, as far as there is such a thing here."""
    spec = find_spec("tzdata")
    package = list(spec.submodule_search_locations or []) if spec else []
    return [place for place in ("/usr/share/zoneinfo", *package) if Path(place).is_dir()]


@pytest.fixture(scope="module")
def pod(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    return account_of_the_examples(namespace).pod(tmp_path_factory.mktemp("pod"))


@pytest.fixture
def container(tmp_path: Path, pod: Pod) -> Iterator[Container]:
    with Container(tmp_path, pod) as container:
        yield container


def test_there_is_no_time_zone_in_it(container: Container) -> None:
    """Else the rest of this page would show nothing."""
    script = (
        "from zoneinfo import ZoneInfo, available_timezones as all; print(all()); ZoneInfo('Europe/Berlin')"
    )
    run = container.enter(sys.executable, "-c", script)
    assert run.wait() == 1
    assert run.out == b"set()\n"
    assert "ZoneInfoNotFoundError" in run.said


def test_a_turn(container: Container) -> None:
    run = container.runs_to(0)
    assert (run.out, run.said) == (b"%d\n" % SOMEBODY, "")


def test_two_slots(container: Container) -> None:
    run = container.enter(*container.argv("--every", "2s", command=["sh", "-c", "echo $SINGLETON_SLOT"]))
    until(lambda: run.out.count(b"\n") >= 2, f"two slots; {run.said}")
    send(signal.SIGTERM, below(run.pid)[0])
    assert run.wait() in (0, INTERRUPTED), run.said
    slots = run.out.split()
    assert slots == sorted(set(slots))
    assert run.said == ""


def test_a_key_once(container: Container) -> None:
    first, second = (container.runs_to(0, "--once", "v1") for _ in range(2))
    assert (first.out, second.out) == (b"%d\n" % SOMEBODY, b"")


def test_a_schedule_in_a_time_zone_that_is_not_there(container: Container) -> None:
    run = container.runs_to(UNUSABLE, "--cron", "0 3 * * *", "--tz", "Europe/Berlin")
    assert run.out == b""
    (line,) = run.said.splitlines()
    assert "Europe/Berlin isn't known on this machine: install the package tzdata" in line


def test_a_kubeconfig_with_a_certificate_inside(container: Container, tmp_path: Path) -> None:
    """The official client has to write it to a file."""
    file = container.pod.account.token_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    inside = content["clusters"][0]["cluster"]
    certificate = Path(inside.pop("certificate-authority")).read_bytes()
    inside["certificate-authority-data"] = base64.b64encode(certificate).decode()
    file.write_text(json.dumps(content))
    container.environ["KUBECONFIG"] = str(file)
    run = container.runs_to(UNUSABLE, "--wait", "10s")
    (line,) = run.said.splitlines()
    assert "TMPDIR" in line
