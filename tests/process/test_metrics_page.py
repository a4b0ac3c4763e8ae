"""docs/metrics.md has the series that a real scrape has: names, types, labels, values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import TREE, labs
from tests.support.ports import free_port
from tests.support.scrape import scrape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.harness import Lab

ROW = re.compile(r"^\| `(singleton_run_\w+)` \| (\w+) \|(.*?)\| .+ \|$", re.MULTILINE)
PAGE = TREE / "docs" / "metrics.md"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lock."""
    yield from labs(tmp_path, "leasefile")


def documented() -> dict[str, tuple[str, dict[str, set[str]]]]:
    """Type and labels (with their values, where these are listed) of each series of the page."""
    found = {}
    for name, kind, labels in ROW.findall(PAGE.read_text(encoding="utf-8")):
        label, *values = re.findall(r"`(\w+)`", labels) or [""]
        found[name] = kind, {label: set(values)} if label else {}
    return found


def test_the_page_has_the_series_that_there_are(lab: Lab) -> None:
    address = f"127.0.0.1:{free_port()}"
    # A first run that succeeds makes every series there is.
    run = lab.start("--every", "1s", "--metrics-addr", address, command=["true"])
    while (told := scrape(address)).value("last_success_timestamp_seconds") is None:
        pass
    run.popen.terminate()
    run.wait()
    found = {}
    for family in told.families.values():
        labels: dict[str, set[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label not in ("name", "le"):
                    labels.setdefault(label, set()).add(value)
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = family.type, labels
    found["singleton_run_build_info"] = "gauge", {"version": set()}
    assert found == documented()


def test_each_is_of_this_lock(lab: Lab) -> None:
    address = f"127.0.0.1:{free_port()}"
    run = lab.start("--metrics-addr", address, command=lab.long_job())
    lab.ready()
    own = {sample.labels.get("name") for sample in scrape(address).samples if "version" not in sample.labels}
    assert own == {lab.name}
    lab.finish()
    assert run.wait() == 0
