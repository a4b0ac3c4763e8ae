"""The program that a command names: found as execvp would, refused in a sentence."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from singleton_run.call.executable import find
from singleton_run.errors import NOT_EXECUTABLE, NOT_FOUND, Failure

if TYPE_CHECKING:
    from pathlib import Path


def program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def refusal(command: str, path: str) -> Failure:
    with pytest.raises(Failure) as failure:
        find(command, {"PATH": path})
    assert len(str(failure.value).splitlines()) == 1
    assert repr(command) in str(failure.value) or f"/{command}" in str(failure.value)
    return failure.value


def test_the_first_on_path_is_found(tmp_path: Path) -> None:
    first = program(tmp_path / "a" / "job")
    second = program(tmp_path / "b" / "job")
    assert find("job", {"PATH": f"{first.parent}:{second.parent}"}) == str(first)
    assert find("job", {"PATH": f"{second.parent}:{first.parent}"}) == str(second)


def test_what_can_not_be_executed_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "a" / "job", 0o644)
    (tmp_path / "b" / "job").mkdir(parents=True)
    last = program(tmp_path / "c" / "job")
    path = f"{tmp_path}/missing:{tmp_path}/a/job:{tmp_path}/a:{tmp_path}/b:{tmp_path}/c"
    assert find("job", {"PATH": path}) == str(last)


def test_an_empty_or_relative_entry_means_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin" / "job")
    monkeypatch.chdir(tmp_path)
    assert find("job", {"PATH": "bin"}) == "bin/job"
    monkeypatch.chdir(tmp_path / "bin")
    for path in ("", ":/nowhere", "/nowhere:"):
        assert find("job", {"PATH": path}) == "./job"


def test_without_path_the_system_s_own_is_searched() -> None:
    assert find("sh", {}) in {f"{directory}/sh" for directory in os.defpath.split(":")}


def test_a_name_with_a_slash_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = program(tmp_path / "job")
    monkeypatch.chdir(tmp_path)
    assert find(str(job), {"PATH": "/nowhere"}) == str(job)
    assert find("./job", {"PATH": "/nowhere"}) == "./job"


def test_a_missing_program_is_127(tmp_path: Path) -> None:
    assert refusal("job", str(tmp_path)).status == NOT_FOUND
    assert refusal(f"{tmp_path}/job", "/nowhere").status == NOT_FOUND
    below_a_file = program(tmp_path / "file") / "job"
    assert refusal(str(below_a_file), "/nowhere").status == NOT_FOUND
    assert refusal("", str(tmp_path)).status == NOT_FOUND


def test_a_program_in_this_directory_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "backup.sh")
    monkeypatch.chdir(tmp_path)
    failure = refusal("backup.sh", "/nowhere")
    assert failure.status == NOT_FOUND
    assert "./backup.sh" in str(failure)


def test_what_is_there_and_can_not_run_is_126(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "job", 0o644)
    (tmp_path / "bin" / "folder").mkdir()
    os.mkfifo(tmp_path / "bin" / "pipe", 0o755)
    (tmp_path / "bin" / "loop").symlink_to("loop")
    for name in ("job", "folder", "pipe", "loop"):
        assert refusal(name, f"{tmp_path}/bin").status == NOT_EXECUTABLE
        assert refusal(f"{tmp_path}/bin/{name}", "/nowhere").status == NOT_EXECUTABLE
    assert "directory" in str(refusal("folder", f"{tmp_path}/bin"))
    assert "chmod +x" in str(refusal("job", f"{tmp_path}/bin"))
