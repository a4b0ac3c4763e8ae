"""Known weaknesses of what an installation with all backends has: `make audit`.

    python -m tests.project.audit FOLDER

pip-audit is put into a virtual environment of its own, FOLDER. The status is 1 for a weakness that a
release mends, and 0 otherwise: also where pip-audit or its database can't be had, which is said.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

LIMIT = 60.0
# Known, and of no consequence here, by the weakness's or the package's name: why stands beside it.
ACCEPTED = {
    "protobuf": "python-etcd3, in the extra etcd-grpc alone, needs that one, and reads only what etcd says",
}


def installed(name: str, extras: frozenset[str] = frozenset()) -> dict[str, str]:
    """The versions of what a distribution needs, as far as it is installed."""
    found: dict[str, str] = {}
    todo = [(name, extras)]
    seen = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version
        for line in distribution.requires or []:
            needed, more = _wanted(line, extras)
            if needed:
                todo.append((needed, more))
    return found


def _wanted(line: str, extras: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The distribution that a requirement names and its extras; empty if it isn't for these extras."""
    requirement, _, marker = line.partition(";")
    match = re.match(r"\s*([\w.-]+)\s*(?:\[([^\]]*)\])?", requirement)
    asked = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
    if match is None or (asked and asked[1] not in extras):
        return "", frozenset()
    more = frozenset(word.strip() for word in (match[2] or "").split(",") if word.strip())
    return re.sub(r"[-_.]+", "-", match[1]).lower(), more


def judge(report: dict[str, Any]) -> tuple[list[str], bool]:
    """What to say about pip-audit's report, and whether something is to be done."""
    said: list[str] = []
    unknown: list[str] = []
    mendable = False
    for dependency in report["dependencies"]:
        if "skip_reason" in dependency:
            unknown.append(dependency["name"])
        for weakness in dependency.get("vulns", []):
            fixes = ", ".join(weakness["fix_versions"])
            accepted = ACCEPTED.get(weakness["id"]) or ACCEPTED.get(dependency["name"], "")
            mendable = mendable or bool(fixes and not accepted)
            advice = accepted or (f"update to {fixes}" if fixes else "no release mends it yet")
            said.append(f"{dependency['name']} {dependency['version']} has {weakness['id']}: {advice}")
    if unknown:
        said.append(f"NOT DONE, for the database can't be asked about them: {', '.join(unknown)}")
    return said, mendable


def audit(folder: Path) -> dict[str, Any] | str:
    """The report of pip-audit, or why there is none."""
    python = str(folder / "bin" / "python")
    packages = folder / "packages.txt"
    try:
        if not Path(python).exists():
            venv.create(folder, with_pip=True)
        wanted = installed("singleton-run", frozenset({"all"}))
        del wanted["singleton-run"]
        packages.write_text("".join(f"{name}=={version}\n" for name, version in sorted(wanted.items())))
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "pip-audit"]
        subprocess.run(pip, check=True, capture_output=True, timeout=LIMIT)
        words = ["--no-deps", "--disable-pip", "-f", "json", "--progress-spinner", "off", "--timeout", "10"]
        asked = subprocess.run(
            [python, "-m", "pip_audit", *words, "-r", str(packages)],
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"pip-audit can't be had ({type(error).__name__})"
    try:
        report: dict[str, Any] = json.loads(asked.stdout)
    except ValueError:
        last = asked.stderr.strip().rpartition("\n")[2]
        return f"its database can't be reached ({last[:200]})"
    return report


def main(folder: str) -> int:
    """Say what is known; the exit status."""
    report = audit(Path(folder))
    if isinstance(report, str):
        print(f"audit: NOT DONE: {report}")
        return 0
    said, mendable = judge(report)
    for line in said or ["nothing known"]:
        print(f"audit: {line}")
    return int(mendable)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
