"""The wheel for Linux: its command is the executable, which leaves to Python what isn't in it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from singleton_run import __version__
from singleton_run.errors import NOT_HELD, UNUSABLE
from singleton_run.system.beside import NAME
from tests.project.test_layout import SHARED
from tests.project.test_start import call
from tests.support import standalone
from tests.support.harness import TREE, title, until
from tests.support.installs import LAYOUTS, build_wheel_for_linux, clean, installed, lend_click

if TYPE_CHECKING:
    from collections.abc import Iterator

    Done = subprocess.CompletedProcess[str]

STRANGERS = TREE / "tests" / "example_backends"
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="to be another user one has to be root")
# The tags of systems, best first, and the wheel that pip takes there.
OF_SYSTEMS = {
    "manylinux_2_36_x86_64 manylinux_2_17_x86_64": "executable",
    "manylinux_2_17_x86_64": "executable",
    "musllinux_1_2_x86_64 musllinux_1_1_x86_64": "executable",
    "manylinux_2_36_aarch64 manylinux_2_17_aarch64": "any",
    "macosx_14_0_arm64": "any",
}
# The two lines after which a Python would have taken over.
STAND_IN = (
    "#!/bin/sh\n"
    f'[ "$_SINGLETON_RUN_LEFT_BY" = {__version__} ] && echo "left: $*"\n'
    "grep SigBlk /proc/self/status\n"
)
LEFT = {
    "a stranger's": ("--lock stranger://x --name a -- true", {}),
    "etcd+grpc": ("--lock etcd+grpc://127.0.0.1:1 --name a --every 1h -- true", {}),
    "metrics": ("--metrics-addr :0 --name a -- true", {}),
    "metrics to a file": ("--metrics-file /nonexistent/x --name a -vv -- true", {}),
    "auth-provider": ("--lock k8s-lease --name a -- true", {"KUBECONFIG": "kubeconfig"}),
    "its variable": ("--name a -- true", {"SINGLETON_RUN_LOCK": "stranger"}),
    "a status": ("status --lock stranger://x a", {}),
    "a plan": ("--lock stranger://x --name a --every 1h --plan 3 -- true", {}),
    "a check": (
        "check",
        {
            "SINGLETON_LOCK": "stranger",
            "SINGLETON_NAME": "a",
            "SINGLETON_HOLDER": "b",
            "SINGLETON_TOKEN": "1",
        },
    ),
    "a crontab": ("crontab /nonexistent", {}),
}
KEPT = (
    "--lock file:///tmp --name a -n -- true",
    "--lock etcd://127.0.0.1:1 --name a -n -- true",
    "--lock redis://127.0.0.1:1 --name a -n -- true",
    "--lock k8s-lease --name a -n -- true",
    "--lock stranger://x --ttl 1s -- true",
    "licenses",
    "--version",
)


@pytest.fixture(scope="module")
def place(wheel_for_linux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a virtual environment that has the wheel and, by a .pth file, the strangers' backends."""
    place = tmp_path_factory.mktemp("wheel") / "place"
    installed("venv", wheel_for_linux, place)
    lend_strangers(place)
    return place


@pytest.fixture(scope="module")
def command(place: Path) -> Path:
    return place / "venv" / "bin" / "singleton-run"


@pytest.fixture
def with_stand_in(tmp_path: Path) -> Path:
    """The executable in a folder where a script says that it was executed in the Python command's place."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy2(standalone.executable(), folder / "singleton-run")
    put_stand_in(folder)
    return folder / "singleton-run"


def put_stand_in(folder: Path) -> None:
    (folder / NAME).write_text(STAND_IN, encoding="ascii")
    (folder / NAME).chmod(0o755)


@pytest.mark.parametrize(
    "words", ["--name a -- env", "--lock stranger://x --name a -- env", "check", "status a", "crontab /none"]
)
def test_a_python_command_of_another_version_refuses_the_call(words: str, place: Path) -> None:
    command = place / "venv" / "bin" / NAME
    done = said(command, *words.split(), _SINGLETON_RUN_LEFT_BY="9.8")
    assert done.returncode == UNUSABLE
    why = f"singleton-run is of version 9.8, and {NAME} beside it of {__version__}: install both anew "
    assert done.stderr.startswith(f"singleton-run: {why}")
    assert len(done.stderr.splitlines()) == 1


def test_a_python_command_of_the_same_version_doesn_t_tell_of_it(place: Path, tmp_path: Path) -> None:
    command = place / "venv" / "bin" / NAME
    words = ("--lock", f"file://{tmp_path}", "--name", "a", "--", "env")
    done = said(command, *words, _SINGLETON_RUN_LEFT_BY=__version__)
    assert done.returncode == 0
    assert "LEFT_BY" not in done.stdout


def lend_strangers(place: Path) -> None:
    for folder in place.glob("*/lib/python*/site-packages"):
        (folder / "strangers.pth").write_text(f"{STRANGERS}\n", encoding="utf-8")


def said(command: Path, *words: str, **environ: str) -> Done:
    argv = [str(command), *words]
    return subprocess.run(argv, env={**clean(), **environ}, capture_output=True, text=True, check=False)


def test_it_has_what_the_wheel_for_any_platform_has_and_the_executable(
    wheel: Path, wheel_for_linux: Path
) -> None:
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(wheel_for_linux) as other:
        scripts = f"singleton_run-{__version__}.data/scripts"
        info = f"singleton_run-{__version__}.dist-info"
        for name in set(one.namelist()) - {f"{info}/{file}" for file in ("METADATA", "RECORD", "WHEEL")}:
            same = name.replace(f"{scripts}/singleton-run", f"{scripts}/{NAME}")
            assert other.read(same) == one.read(name)
        executable = standalone.executable()
        more = {
            f"{scripts}/singleton-run": executable,
            f"{info}/licenses/{executable.name}.licenses.txt": Path(f"{executable}.licenses.txt"),
            f"{info}/sboms/{executable.name}.spdx.json": Path(f"{executable}.spdx.json"),
        }
        assert len(other.namelist()) == len(set(other.namelist())) == len(one.namelist()) + len(more)
        for name, file in more.items():
            assert other.read(name) == file.read_bytes()
        assert other.getinfo(f"{scripts}/singleton-run").external_attr >> 16 == 0o100755
        told = other.read(f"{info}/WHEEL").decode().splitlines()
        names = other.read(f"{info}/METADATA").decode().splitlines()
    platforms = wheel_for_linux.stem.rpartition("-")[2].split(".")
    assert [line for line in told if "Tag" in line] == [f"Tag: py3-none-{name}" for name in platforms]
    named = {line.removeprefix("License-File: ") for line in names if line.startswith("License-File: ")}
    assert named == {"LICENSE", f"{executable.name}.licenses.txt"}


def test_its_record_is_right(wheel_for_linux: Path) -> None:
    with zipfile.ZipFile(wheel_for_linux) as archive:
        (own,) = (name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        listed = {}
        for line in archive.read(own).decode().splitlines():
            path, digest, size = line.rsplit(",", 2)
            listed[path] = digest, size
        assert listed.pop(own) == ("", "")
        assert set(listed) == set(archive.namelist()) - {own}
        for path, (digest, size) in listed.items():
            data = archive.read(path)
            sum_of = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={sum_of}", str(len(data))), path


def test_of_the_same_files_it_is_the_same(wheel: Path, wheel_for_linux: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(wheel, tmp_path))
    again = build_wheel_for_linux(copy, standalone.executable())
    assert again.name == wheel_for_linux.name
    assert again.read_bytes() == wheel_for_linux.read_bytes()


def test_its_parts_are_those_of_the_executable(wheel_for_linux: Path) -> None:
    with zipfile.ZipFile(wheel_for_linux) as archive:
        (name,) = (name for name in archive.namelist() if "/sboms/" in name)
        (program,) = (name for name in archive.namelist() if name.endswith(".data/scripts/singleton-run"))
        parts = {part["name"]: part for part in json.loads(archive.read(name))["packages"]}
        own = parts["singleton-run"]["checksums"][0]["checksumValue"]
        assert own == hashlib.sha256(archive.read(program)).hexdigest()
    assert {"openssl", "musl", "postgresql", "click"} <= set(parts)


@pytest.mark.parametrize("system", OF_SYSTEMS)
def test_pip_takes_the_right_one_for(system: str, wheel: Path, wheel_for_linux: Path, tmp_path: Path) -> None:
    platforms = [f"--platform={name}" for name in system.split()]
    folder = ["--no-index", f"--find-links={wheel.parent}", "--only-binary=:all:", "--no-deps"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    subprocess.run([*pip, *folder, *platforms, "-d", tmp_path, "singleton-run"], check=True)
    (taken,) = tmp_path.iterdir()
    assert taken.name == (wheel if OF_SYSTEMS[system] == "any" else wheel_for_linux).name


def test_pip_takes_it_on_this_machine(wheel: Path, wheel_for_linux: Path, tmp_path: Path) -> None:
    folder = ["--no-index", f"--find-links={wheel.parent}", "--no-deps"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    subprocess.run([*pip, *folder, "-d", tmp_path, "singleton-run"], check=True)
    assert os.listdir(tmp_path) == [wheel_for_linux.name]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_command_is_the_executable_and_python_is_beside_it_in(
    layout: str, wheel_for_linux: Path, tmp_path: Path
) -> None:
    command, environ = installed(layout, wheel_for_linux, tmp_path / "place")
    lend_strangers(tmp_path / "place")
    assert command.read_bytes() == standalone.executable().read_bytes()
    done = subprocess.run([command, "--version"], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"singleton-run {__version__}\n", "")
    shown = call(command, tmp_path / "locks", "sh", "-c", "readlink /proc/$PPID/exe; exit 7", environ=environ)
    ours = os.fsencode(command.resolve())
    assert (shown.returncode, shown.stdout, shown.stderr) == (7, ours + b"\n", b"")
    if layout == "user":
        environ["PYTHONPATH"] = str(STRANGERS)
    words = ["--lock", f"leasefile://{tmp_path}", "--name", "a", "--", "sh", "-c"]
    left = subprocess.run(
        [command, *words, "readlink /proc/$PPID/exe; exit 7"], env=environ, capture_output=True, check=False
    )
    assert (left.returncode, left.stderr) == (7, b"")
    assert os.path.basename(left.stdout).startswith(b"python")


def test_it_installs_completions_and_man_page_and_leaves_nothing(
    wheel_for_linux: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    command, environ = installed("venv", wheel_for_linux, place)
    venv = place / "venv"
    assert {path for path in SHARED if venv.joinpath(path).exists()} == SHARED
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(venv / "bin/python")]
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "singleton-run"], check=True, env=environ)
    assert not command.exists()
    assert files_of(venv) == files_of(bare)


def files_of(folder: Path) -> set[str]:
    """All files below it, but for what pip compiles of itself when it runs there."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    return {name for name in names if "__pycache__" not in name}


def test_environment_and_arguments_go_on_byte_for_byte(command: Path, tmp_path: Path) -> None:
    environ = {**clean(), "LC_ALL": "C", "a.b": os.fsdecode(b"\xff"), "PYTHONPATH": "", "PYTHONUTF8": "0"}
    lock = [str(command), "--lock", f"leasefile://{tmp_path}", "--name", "a", "--"]
    done = subprocess.run([*lock, "cat", "/proc/self/environ"], env=environ, capture_output=True, check=False)
    given = [os.fsencode(f"{name}={value}") for name, value in environ.items()]
    found = done.stdout.removesuffix(b"\0").split(b"\0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [entry for entry in found if not entry.startswith(b"SINGLETON_")] == given
    done = subprocess.run([*lock, "printf", b"\xfe"], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xfe", b"")


def test_descriptors_and_blocked_signals_go_on(command: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"given\n")
    os.close(writing)

    def before() -> None:
        os.dup2(reading, 7)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])

    shown = ["grep", "-h", "-e", "given", "-e", "SigBlk", "/proc/self/fd/7", "/proc/self/status"]
    argv = [str(command), "--lock", f"leasefile://{tmp_path}", "--name", "a", "--", *shown]
    done = subprocess.run(
        argv, env=clean(), capture_output=True, check=False, preexec_fn=before, close_fds=False
    )
    os.close(reading)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == f"given\nSigBlk:\t{1 << (signal.SIGUSR2 - 1):016x}\n".encode()


@pytest.mark.parametrize("what", LEFT)
def test_what_is_not_in_the_executable_is_left_to_python(
    what: str, with_stand_in: Path, tmp_path: Path
) -> None:
    text, environ = LEFT[what]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("users: [{name: a, user: {auth-provider: {name: oidc}}}]\n", encoding="utf-8")
    environ = {
        name: str(tmp_path / value) if value == "kubeconfig" else value for name, value in environ.items()
    }
    done = said(with_stand_in, *text.split(), **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"left: {text}\nSigBlk:\t{0:016x}\n"


@pytest.mark.parametrize("text", KEPT)
def test_what_is_in_it_or_is_no_call_is_not(text: str, with_stand_in: Path, tmp_path: Path) -> None:
    done = said(with_stand_in, *text.split(), HOME=str(tmp_path), KUBECONFIG="")
    assert "left: " not in done.stdout, done.stdout
    assert "Traceback" not in done.stderr


@ROOT
def test_a_user_whom_only_python_s_libc_may_find_is_left_to_python(
    with_stand_in: Path, tmp_path: Path
) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to("/tmp/pytest-of-root"):  # noqa: S108
            folder.chmod(0o755)

    def become() -> None:
        os.setgroups([])
        os.setuid(standalone.SOMEBODY)

    argv = [str(with_stand_in), "--name", "a", "--", "true"]
    done = subprocess.run(argv, env=clean(), capture_output=True, text=True, check=False, preexec_fn=become)
    assert (done.returncode, done.stdout.partition("\n")[0]) == (0, "left: --name a -- true"), done.stderr


def test_only_the_neighbour_in_its_own_folder_is_executed(with_stand_in: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    put_stand_in(elsewhere)
    (with_stand_in.parent / NAME).unlink()
    (elsewhere / "singleton-run").symlink_to(with_stand_in)
    for program in (with_stand_in, elsewhere / "singleton-run"):
        path = f"{elsewhere}:{os.environ['PATH']}"
        done = said(program, "--lock", "stranger://x", "--name", "a", "--", "true", PATH=path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (UNUSABLE, "", 1)
        assert "isn't in this executable" in done.stderr


def test_one_that_can_not_be_executed_is_as_none(with_stand_in: Path) -> None:
    (with_stand_in.parent / NAME).chmod(0o644)
    done = said(with_stand_in, "--lock", "stranger://x", "--name", "a", "--", "true")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (UNUSABLE, "", 1)


def test_a_copy_by_install_is_alone(command: Path, tmp_path: Path) -> None:
    assert said(command, "install", str(tmp_path)).returncode == 0
    assert os.listdir(tmp_path) == ["singleton-run"]
    done = said(tmp_path / "singleton-run", "--lock", f"leasefile://{tmp_path}", "--name", "a", "--", "true")
    assert (done.returncode, done.stdout) == (UNUSABLE, "")
    assert "isn't in this executable" in done.stderr


def test_metrics_need_their_package_and_then_are_written(wheel_for_linux: Path, tmp_path: Path) -> None:
    command, _ = installed("venv", wheel_for_linux, tmp_path / "place")
    page = tmp_path / "page.prom"
    words = ["--lock", f"file://{tmp_path}", "--name", "a", "--metrics-file", str(page), "--", "echo", "ran"]
    done = said(command, *words)
    assert (done.returncode, done.stdout) == (UNUSABLE, "")
    assert done.stderr == (
        "singleton-run: --metrics-file needs the package prometheus-client: "
        "pip install 'singleton-run[metrics]'\n"
    )
    lend_click(tmp_path / "place")  # the folder that has click has all of ours
    done = said(command, *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    until(page.exists, "the reporter to have written the file")
    assert "singleton_run_" in page.read_text(encoding="utf-8")


def test_subcommands_find_a_stranger_s_backend_too(place: Path, command: Path, tmp_path: Path) -> None:
    lent = lend_click(place)
    lock = f"leasefile://{tmp_path}"
    assert said(command, "status", "--lock", lock, "a").returncode == NOT_HELD
    seen = said(command, "--lock", lock, "--name", "a", "--", str(command), "status", "--lock", lock, "a")
    assert (seen.returncode, seen.stderr) == (0, "")
    for file in lent:
        file.unlink()


@pytest.fixture
def replica(command: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A replica under a stranger's lock."""
    words = ["--lock", f"leasefile://{tmp_path}", "--name", "a", "--every", "1h", "-v", "--", "true"]
    popen = subprocess.Popen([command, *words], env=clean(), stderr=subprocess.PIPE, text=True)
    yield popen
    popen.kill()
    popen.wait()
    assert popen.stderr is not None
    popen.stderr.close()


def test_a_replica_under_a_stranger_s_lock_rests_and_goes_on(replica: subprocess.Popen[str]) -> None:
    variable = b"_SINGLETON_RUN_RESTED="
    process = Path(f"/proc/{replica.pid}")
    until(lambda: variable in process.joinpath("environ").read_bytes(), "it to rest")
    until(lambda: title(replica.pid) == "singleton-run: front of a", "the title of the resting program")
    assert process.joinpath("exe").resolve().name.startswith("python")
    replica.send_signal(signal.SIGTERM)
    told = replica.communicate()[1]
    assert replica.returncode == 0, told
    assert told.count("got lock") == 1
