"""The examples for Prometheus and Grafana: the alerts say what they should, and every series exists."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.servers import prometheus
from tests.support.harness import TREE

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = TREE / "examples" / "monitoring"
ALERTS = EXAMPLES / "alerts.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
ROW = re.compile(r"^\| `(singleton_run_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
NAMED = re.compile(r"singleton_run_\w+")
PARTS = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def existing() -> dict[str, str]:
    """Every series there is, and the labels that docs/metrics.md says it has: a test holds that page true."""
    page = (TREE / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = ROW.findall(page)
    assert len(rows) > 15
    return {f"{name}{part}": labels for name, kind, labels in rows for part in PARTS[kind]}


def expressions() -> list[tuple[str, str]]:
    """Each expression in the examples, by what it is for."""
    panels = [
        (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
    ]
    return [*((rule["alert"], rule["expr"]) for rule in RULES), *panels]


def judged(folder: Path) -> subprocess.CompletedProcess[str]:
    """The alerts in a folder, tested by the histories beside them."""
    command = [prometheus.program("promtool"), "test", "rules", str(folder / "alerts_test.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(("use", "expression"), expressions())
def test_every_series_exists_and_has_the_labels(use: str, expression: str) -> None:
    series = existing()
    assert NAMED.findall(expression), use
    for name in NAMED.findall(expression):
        assert name in series
    for label in set(re.findall(r"\b(reason|result|version)\b(?=[,=!)~])", expression)):
        assert any(f"`{label}`" in series[name] for name in NAMED.findall(expression))


def test_every_series_is_in_the_dashboard() -> None:
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for one in panel["targets"]
        for name in NAMED.findall(one["expr"])
    }
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in existing()}
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert bases - known <= {"singleton_run_acquisitions_total"}


@pytest.mark.process
def test_the_alerts_say_what_they_should() -> None:
    done = judged(EXAMPLES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
@pytest.mark.parametrize("instead", ["vector(0) > 1", "vector(1) > 0"])
def test_an_alert_that_is_wrong_is_found(tmp_path: Path, alert: str, instead: str) -> None:
    content = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    for rule in content["groups"][0]["rules"]:
        if rule["alert"] == alert:
            rule["expr"] = instead
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "alerts_test.yaml").write_text((EXAMPLES / "alerts_test.yaml").read_text(encoding="utf-8"))
    assert judged(tmp_path).returncode != 0
