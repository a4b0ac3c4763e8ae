"""What `make audit` makes of what pip-audit says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.project import audit

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def report(*fixes: str, weakness: str = "X-1") -> dict[str, Any]:
    vulns = [{"id": weakness, "fix_versions": list(fixes), "description": "bad"}]
    return {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": []},
            {"name": "b", "version": "2", "vulns": vulns},
        ]
    }


def test_only_what_a_release_mends_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit.judge({"dependencies": []}) == ([], False)
    assert audit.judge(report()) == (["b 2 has X-1: no release mends it yet"], False)
    assert audit.judge(report("3", "4")) == (["b 2 has X-1: update to 3, 4"], True)
    skipped = {"dependencies": [{"name": "c", "skip_reason": "nobody knows it"}]}
    assert audit.judge(skipped) == (["NOT DONE, for the database can't be asked about them: c"], False)
    monkeypatch.setitem(audit.ACCEPTED, "X-1", "of no consequence")
    assert audit.judge(report("3")) == (["b 2 has X-1: of no consequence"], False)


def test_what_can_not_be_asked_is_said_and_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o700)
    assert audit.main(str(tmp_path)) == 0
    assert "NOT DONE" in capsys.readouterr().out
    python.write_text('#!/bin/sh\ncase "$*" in *pip_audit*) echo nobody there >&2; exit 1;; esac\n')
    assert audit.main(str(tmp_path)) == 0
    assert "nobody there" in capsys.readouterr().out


def test_every_backend_s_package_is_asked_about() -> None:
    found = audit.installed("singleton-run", frozenset({"all"}))
    assert {"click", "psycopg", "etcd3", "grpcio", "protobuf"} <= set(found)
    assert "pytest" not in found
