"""The command's environment is byte for byte what execve(2) gave us, but for our own variables."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import PYTHON, Lab, Run, environment, labs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Starts its arguments with an environment that no mapping can hold: the entries come on standard input.
EXECVE = """if True:
    import ctypes, os, sys
    entries = sys.stdin.buffer.read().split(b"\\0")
    words = [os.fsencode(word) for word in sys.argv[1:]]
    strings = lambda items: (ctypes.c_char_p * (len(items) + 1))(*items, None)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    ctypes.CDLL(None).execve(words[0], strings(words), strings(entries))
"""
ENTRIES = {
    "ordinary": [b"Z=last first", b"A=", b"RAW=\xff\xfe", b"X==", b"LC_CTYPE=C.UTF-8"],
    "an empty name": [b"=C:=C:\\", b"=ExitCode=00000000"],
    "no =": [b"WORD", b"SINGLETON_RUN_WORD", b"A=1"],
    "doubled": [b"TWICE=1", b"A=1", b"TWICE=2", b"TWICE=1"],
    "an empty one": [b"", b"A=1", b""],
    "ours doubled": [b"SINGLETON_RUN_TIMEOUT=90s", b"=", b"SINGLETON_TOKEN=1", b"SINGLETON_RUN_TIMEOUT=91s"],
}


@pytest.fixture(params=["file", "leasefile"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    yield from labs(tmp_path, request.param)


def needed() -> list[bytes]:
    """What singleton-run needs to be found."""
    environ = environment()
    return [f"{name}={environ[name]}".encode() for name in ("PATH", "PYTHONPATH", "HOME") if name in environ]


def start(lab: Lab, entries: list[bytes], command: list[str]) -> Run:
    """Start a command under singleton-run, which gets these entries."""
    given = lab.directory / "given"
    given.write_bytes(b"\0".join(entries))
    via = f"exec {PYTHON} -I -S -c '{EXECVE}' \"$@\" <{given}"
    return lab.start(command=command, via=via)


def is_ours(entry: bytes) -> bool:
    """Whether it is a variable that the docs name as ours."""
    return entry.startswith(b"SINGLETON_") and b"=" in entry


@pytest.mark.parametrize("kind", ENTRIES)
def test_every_entry_goes_on_as_it_was(lab: Lab, kind: str) -> None:
    entries = [*needed(), *ENTRIES[kind]]
    run = start(lab, entries, ["cat", "/proc/self/environ"])
    assert run.wait() == 0, run.said
    got = run.out.removesuffix(b"\0").split(b"\0")
    assert [entry for entry in got if not is_ours(entry)] == [
        entry for entry in entries if not is_ours(entry)
    ]
    ours = [entry.partition(b"=")[0].decode() for entry in got if is_ours(entry)]
    told = ("HELD", "HOLDER", "ID", "LOCK", "NAME", "TOKEN", "TTL")
    assert sorted(ours) == [f"SINGLETON_{word}" for word in told]


def test_a_script_without_its_interpreter_gets_odd_entries_too(lab: Lab) -> None:
    """It goes to sh, which passes on what it can't take for a variable of its own."""
    script = lab.directory / "script"
    script.write_text("printf '%s\\n' \"$A\"\n")
    script.chmod(0o755)
    run = start(lab, [*needed(), b"=C:=C:\\", b"A=1"], ["./script"])
    assert run.wait() == 0, run.said
    assert run.out == b"1\n"


def test_a_command_that_cant_be_executed_is_told_with_odd_entries_too(lab: Lab) -> None:
    program = lab.directory / "program"
    program.write_text("#!/nowhere/interpreter\n")
    program.chmod(0o755)
    run = start(lab, [*needed(), b"=C:=C:\\"], ["./program"])
    assert run.wait() in (126, 127), run.said
    assert "can't be executed" in run.said


def test_the_locale_is_what_it_is_without_us(lab: Lab) -> None:
    """Python makes UTF-8 of the C locale for itself (PEP 538), which is nothing to the command."""
    count = ["sh", "-c", "printf 'ä' | wc -m; env | grep ^LC_ || :"]
    bare = dict(entry.decode().split("=", 1) for entry in needed())
    alone = subprocess.run(count, env=bare, capture_output=True, check=True).stdout
    run = lab.start(command=count, environ=bare)
    assert run.wait() == 0, run.said
    assert run.out == alone


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts something over /proc")
@pytest.mark.parametrize("own", ["", "LC_CTYPE=C.UTF-8 A=1"])
def test_without_proc_the_locale_is_still_the_one_that_we_got(lab: Lab, own: str) -> None:
    needs = " ".join(f"'{entry.decode()}'" for entry in needed())
    via = f'exec unshare -m sh -c "mount -t tmpfs none /proc; exec env -i {needs} {own} \\"\\$@\\"" sh "$@"'
    run = lab.start(command=["sh", "-c", 'echo "${LC_CTYPE-none}"'], via=via)
    assert run.wait() == 0, run.said
    assert run.out == (b"C.UTF-8\n" if own else b"none\n")
