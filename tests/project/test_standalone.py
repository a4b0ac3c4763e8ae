"""The executable that needs no Python: what it is made of, and that it runs where there is nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import build
import image
import pytest
import sources

from singleton_run import __version__
from tests.support import harness, standalone

MOST = 14 * 1000 * 1000
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="to change the root directory one has to be root")
_INTERPRETER, _DYNAMIC = 3, 2


@pytest.fixture(scope="module")
def executable() -> Path:
    """Its path."""
    return standalone.executable()


def run(executable: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The executable with these words, and with nothing in its environment but `environ`."""
    return subprocess.run([executable, *words], env=environ, capture_output=True, text=True, check=False)


def under(directory: Path) -> list[str]:
    """What is put before a command that needs a lock: one in a directory of the test's own."""
    return ["--lock", f"file://{directory}", "--name", "a", "--"]


def at(elf: bytes, address: int, size: int) -> bytes:
    """What a process that begins with this file has at that address."""
    (count,) = struct.unpack_from("<H", elf, 56)
    for number in range(count):
        kind, _, offset, start, _, stored, whole, _ = struct.unpack_from("<IIQQQQQQ", elf, 64 + 56 * number)
        if kind == 1 and start <= address < start + whole:
            low = address - start
            return elf[offset : offset + stored][low : low + size].ljust(size, b"\0")
    raise KeyError(address)


def alone(
    root: Path, *words: str, closed: tuple[int, ...] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    """The executable in `root`, where it is /singleton-run, as a user who has no name."""

    def enter() -> None:
        os.chroot(root)
        os.chdir("/")
        os.setgroups([])
        os.setgid(standalone.SOMEBODY)
        os.setuid(standalone.SOMEBODY)
        for number in closed:
            os.close(number)

    command = ["/singleton-run", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, preexec_fn=enter)


def test_it_is_linked_with_nothing_that_is_looked_for_at_its_start(executable: Path) -> None:
    head = executable.read_bytes()[:4096]
    assert head[:6] == b"\x7fELF\x02\x01"
    kind, machine = struct.unpack_from("<HH", head, 16)
    assert (kind, machine) == (2, 62), "an executable, for x86-64"
    (start,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    segments = {struct.unpack_from("<I", head, start + number * size)[0] for number in range(count)}
    assert not segments & {_INTERPRETER, _DYNAMIC}


def test_it_begins_with_an_image_of_what_it_loads(executable: Path, tmp_path: Path) -> None:
    loaded = run(executable, *under(tmp_path), "/bin/true")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    head = executable.read_bytes()[:4096]
    (count,) = struct.unpack_from("<H", head, 56)
    places = [struct.unpack_from("<Q", head, 64 + 56 * number + 16)[0] for number in range(count)]
    assert image.MEMORY.start in places


def test_no_process_has_from_the_image_what_is_its_own(executable: Path, tmp_path: Path) -> None:
    show = 'echo "$SINGLETON_HOLDER $WHOSE"; grep SigIgn /proc/self/status'

    def of(whose: str, ignored: int | None) -> list[str]:
        done = subprocess.run(
            [executable, *under(tmp_path), "/bin/sh", "-c", show],
            env={"WHOSE": whose, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=None if ignored is None else lambda: signal.signal(ignored, signal.SIG_IGN),
        )
        return done.stdout.split()

    first, second = of("the first's", None), of("the second's", signal.SIGUSR1)
    assert first[0] != second[0], "the holder"
    assert (first[1:3], second[1:3]) == (["the", "first's"], ["the", "second's"])
    assert int(second[4], 16) ^ int(first[4], 16) == 1 << signal.SIGUSR1 - 1


def test_the_objects_in_the_image_are_immortal(executable: Path) -> None:
    """Their count of references is one that CPython never changes (PEP 683). Without that 10,000 have it."""
    assert executable.read_bytes().count(struct.pack("<Q", 0xFFFFFFFF)) > 20_000


def test_its_python_writes_nothing_into_the_code_that_it_executes() -> None:
    python = build.base(standalone.MACHINE) / "bin/python3.13"
    asked = [str(python), "-c", "import _opcode; print(_opcode.ENABLE_SPECIALIZATION)"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "0\n"


def test_it_starts_in_any_layout_of_memory(executable: Path, tmp_path: Path) -> None:
    for words in (
        ["setarch", "-R"],
        ["setarch", "-L"],
        ["sh", "-c", 'ulimit -s unlimited && exec "$@"', "sh"],
    ):
        done = subprocess.run(
            [*words, executable, *under(tmp_path), "echo", "begun"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", ""), words


def test_it_is_small(executable: Path) -> None:
    assert executable.stat().st_size <= MOST


def test_every_module_in_it_can_be_imported() -> None:
    folder = standalone.folder()
    names = [name for name in (folder / "modules.txt").read_text().split() if name != "__main__"]
    assert {"singleton_run.front.process", "singleton_run_postgres.client", "click._textwrap"} <= set(names)
    done = run(folder / "importer", *names)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_that_is_not_in_it_can_not_be_imported() -> None:
    done = run(standalone.folder() / "importer", "singleton_run_etcd.grpc")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_it_is_the_same_wherever_it_is_made(
    executable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENGTHY", "x" * 1000)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    write = image.write
    compared: list[str] = []

    def write_and_compare(program: Path, link_map: Path, made: Path) -> None:
        """Write it, and note which of OpenSSL's variables aren't as the linker has made them."""
        write(program, link_map, made)
        for part in image.variables_of(link_map.read_text(encoding="utf-8")):
            if part.library == "libcrypto" and part.size:
                before, now = (at(file.read_bytes(), part.address, part.size) for file in (program, made))
                compared.append(part.section)
                assert before == now, part

    monkeypatch.setattr(image, "write", write_and_compare)
    try:
        build.make(standalone.MACHINE, tmp_path / "elsewhere")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ".bss.trigger.0" in compared, "what it knows of the builder's processor"
    for file in standalone.folder().iterdir():
        assert (tmp_path / "elsewhere" / file.name).read_bytes() == file.read_bytes(), file.name


def test_no_file_beside_it_and_no_variable_gives_it_modules(executable: Path, tmp_path: Path) -> None:
    copy = tmp_path / "singleton-run"
    shutil.copy2(executable, copy)
    for name in ("_ctypes", "ctypes", "sitecustomize", "singleton_run"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)")
    (tmp_path / "singleton-run._pth").write_text(f"{tmp_path}\n")
    (tmp_path / "pyvenv.cfg").write_text(f"home = {tmp_path}\n")
    done = run(copy, *under(tmp_path), "/bin/true", PYTHONPATH=str(tmp_path), PYTHONHOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_sees_its_environment_as_it_was(executable: Path, tmp_path: Path) -> None:
    done = run(
        executable,
        *under(tmp_path),
        "/usr/bin/env",
        LANG="C",
        PYTHONPATH="/x",
        HOME="/root",
        PATH="/bin",
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("SINGLETON")]
    assert sorted(lines) == ["HOME=/root", "LANG=C", "PATH=/bin", "PYTHONPATH=/x"]


@ROOT
def test_it_runs_where_there_is_nothing_else(tmp_path: Path) -> None:
    root = standalone.put(tmp_path / "root")
    done = alone(root, "--lock", "file:///locks", "--name", "a", "--", "/singleton-run", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"singleton-run {__version__}\n", "")


@ROOT
@pytest.mark.parametrize("closed", [(0,), (0, 1), (1, 2), (0, 1, 2)])
def test_it_runs_there_with_standard_descriptors_closed(tmp_path: Path, closed: tuple[int, ...]) -> None:
    root = standalone.put(tmp_path / "root")
    command = ["/singleton-run", "completion", "bash"]
    done = alone(root, "--lock", "file:///locks", "--name", "a", "--", *command, closed=closed)
    assert done.returncode == (1 if 1 in closed else 0)
    assert "Traceback" not in done.stderr


FAULTS = [
    ("--lock file:///none/locks -- /singleton-run", 78, "/none/locks"),
    ("-- /singleton-run --version", 78, "no directory for locks"),
    ("--lock etcd://127.0.0.1:1 -n -- /singleton-run", 69, "127.0.0.1:1"),
    ("--lock etcd://host.invalid:1 -n -- /singleton-run", 69, "host.invalid:1: connection refused"),
    ("--lock etcd://h\u00f6st.invalid:1 -n -- /singleton-run", 69, "invalid:1: connection refused"),
    ("--lock etcds://x -- /singleton-run", 78, "isn't in this executable"),
    ("--lock postgres://me@127.0.0.1:1/x -n -- /singleton-run", 69, "refused"),
    ("--lock k8s-lease -- /singleton-run", 78, "kubeconfig"),
    ("--cron @daily --tz Mars/Olympus -- /singleton-run", 78, "Mars/Olympus"),
    ("--wait soon -- x", 2, "--wait"),
    ("-- nonesuch", 127, "nonesuch"),
]


@ROOT
@pytest.mark.parametrize(("words", "status", "said"), FAULTS)
def test_what_goes_wrong_there_is_one_line(tmp_path: Path, words: str, status: int, said: str) -> None:
    root = standalone.put(tmp_path / "root")
    (root / "etc").mkdir()
    names = ["host.invalid", "h\u00f6st.invalid".encode("idna").decode()]
    (root / "etc/hosts").write_text(f"127.0.0.1 {' '.join(names)}\n")
    done = alone(root, "--name", "a", *words.split())
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "has a fault" not in done.stderr


@ROOT
@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["completion", "zsh"], ["licenses"], ["forget", "--help"]]
)
def test_it_tells_of_itself_there(tmp_path: Path, words: list[str]) -> None:
    done = alone(standalone.put(tmp_path / "root"), *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@ROOT
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Argentina/Ushuaia", "UTC"])
def test_it_knows_the_time_zones_there(tmp_path: Path, zone: str) -> None:
    words = ["--cron", "0 11 * * *", "--tz", zone, "--plan", "3"]
    done = alone(standalone.put(tmp_path / "root"), *words)
    assert (done.returncode, done.stderr) == (0, "")
    expected = subprocess.run(
        [sys.executable, "-m", "singleton_run", *words],
        env=harness.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == expected.stdout


@ROOT
def test_a_zone_that_only_the_machine_has_is_found(tmp_path: Path) -> None:
    root = standalone.put(tmp_path / "root")
    zones = root / "usr/share/zoneinfo/Moon"
    zones.mkdir(parents=True)
    zone = build.packages() / "tzdata/zoneinfo/Europe/Berlin"
    zones.joinpath("Tranquility").write_bytes(zone.read_bytes())
    done = alone(root, "--cron", "0 11 * * *", "--tz", "Moon/Tranquility", "--plan", "3")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("lock", ["etcd+grpc://127.0.0.1:1", "stranger://x"])
def test_a_backend_that_is_left_out_is_refused(executable: Path, lock: str) -> None:
    done = run(executable, "--lock", lock, "--name", "a", "--", "/bin/true", PATH="/bin")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert "isn't in this executable" in done.stderr


@pytest.mark.parametrize("option", ["--metrics-addr=:9090", "--metrics-file=/tmp/x.prom"])
def test_metrics_are_refused_before_anything_is_contacted(executable: Path, option: str) -> None:
    done = run(executable, "--lock", "etcd://127.0.0.1:1", "--name", "a", option, "--", "/bin/true")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert "isn't in this executable" in done.stderr


def test_a_login_that_is_left_out_is_refused(executable: Path, tmp_path: Path) -> None:
    done = run(
        executable, "--lock", "k8s-lease", "--name", "a", "--", "/bin/true",
        KUBECONFIG=kubeconfig(tmp_path, {"auth-provider": {"name": "oidc", "config": {"id-token": "a.b.c"}}}),
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert "auth-provider isn't in this executable" in done.stderr


CREDENTIAL = """{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
  "status": {"token": "abc"}}"""
LOGINS = {
    "token": {"token": "abc"},
    "password": {"username": "me", "password": "secret"},
    "exec": {
        "exec": {
            "command": "/bin/echo",
            "apiVersion": "client.authentication.k8s.io/v1",
            "args": [CREDENTIAL],
            "interactiveMode": "Never",
        }
    },
}


@pytest.mark.parametrize("user", LOGINS.values(), ids=LOGINS)
def test_other_logins_come_as_far_as_the_server(executable: Path, tmp_path: Path, user: object) -> None:
    done = run(
        executable, "--lock", "k8s-lease", "--name", "a", "-n", "--", "/bin/true",
        KUBECONFIG=kubeconfig(tmp_path, user), PATH="/bin",
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (69, 1), done.stderr
    assert "127.0.0.1:1" in done.stderr


def kubeconfig(folder: Path, user: object) -> str:
    """The path of a kubeconfig with this user, for a server that isn't there."""
    path = folder / "kubeconfig"
    contents = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "me", "user": user}],
    }
    path.write_text(json.dumps(contents))
    return str(path)


def parts() -> list[tuple[str, str, str]]:
    """Name, version and licence of what isn't ours."""
    return [part[:3] for part in sources.sources()] + [part[:3] for part in sources.wheels()]


def test_it_prints_the_licences_of_all_its_parts(executable: Path) -> None:
    done = run(executable, "licenses")
    assert (done.returncode, done.stderr) == (0, "")
    for name, version, licence in parts():
        assert f"\n{name} {version}: {licence}\n" in done.stdout
    assert done.stdout == Path(f"{executable}.licenses.txt").read_text()


def test_its_sums_are_right(executable: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", f"{executable}.sha256"],
        cwd=executable.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.count(": OK\n")) == (0, 3), done.stderr


def test_its_bill_of_materials_names_all_its_parts(executable: Path) -> None:
    bill = json.loads(Path(f"{executable}.spdx.json").read_text())
    assert (bill["spdxVersion"], bill["dataLicense"], bill["SPDXID"]) == (
        "SPDX-2.3",
        "CC0-1.0",
        "SPDXRef-DOCUMENT",
    )
    assert bill["creationInfo"]["creators"]
    assert bill["documentNamespace"].startswith("urn:")
    packages = {package["SPDXID"]: package for package in bill["packages"]}
    assert len(packages) == len(bill["packages"])
    for package in packages.values():
        assert package["name"]
        assert package["downloadLocation"] == "NOASSERTION"
        assert package["licenseConcluded"] == package["licenseDeclared"]
    for relation in bill["relationships"]:
        assert relation["spdxElementId"] in {"SPDXRef-DOCUMENT", *packages}
        assert relation["relatedSpdxElement"] in packages
    found = {(package["name"], package["versionInfo"]) for package in packages.values()}
    assert found == {part[:2] for part in parts()} | {
        ("singleton-run", __version__),
        ("libgcc", "NOASSERTION"),
    }
    own = packages["SPDXRef-singleton-run"]["checksums"][0]["checksumValue"]
    assert own == hashlib.sha256(executable.read_bytes()).hexdigest()
