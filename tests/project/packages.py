"""What `make` asks about the packages that pyproject.toml and the lock name. Needs nothing but Python.

    python tests/project/packages.py group NAME    the packages of a group of pyproject.toml, a line each
    python tests/project/packages.py all           those of every group and extra, and what builds the wheel
    python tests/project/packages.py head          the first line of a lock for this Python
    python tests/project/packages.py fits LOCK     ends with 0 if the lock is for this Python, else 1

pip knows dependency groups only from 25.1 on.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
HEAD = "# Python {}.{}: written by `make lock`".format(*sys.version_info)


def of_group(project: dict[str, Any], name: str) -> list[str]:
    """The requirements of a dependency group, without those of groups that it includes."""
    return [line for line in project["dependency-groups"][name] if isinstance(line, str)]


def of_all(project: dict[str, Any]) -> list[str]:
    """Every requirement that is named anywhere, once, without those on the project's own extras."""
    lists = [project["build-system"]["requires"], project["project"]["dependencies"]]
    lists += project["project"]["optional-dependencies"].values()
    lists += [of_group(project, name) for name in project["dependency-groups"]]
    own = project["project"]["name"]
    return sorted({line for lines in lists for line in lines if not line.startswith(f"{own}[")})


def fits(lock: Path) -> bool:
    """Whether the lock was written for this Python's version."""
    return lock.read_text(encoding="utf-8").startswith(f"{HEAD}\n")


def main(what: str, *words: str) -> int:
    """Print what is asked for; the exit status."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    if what == "fits":
        return not fits(Path(words[0]))
    lines = {
        "group": lambda: of_group(project, *words),
        "all": lambda: of_all(project),
        "head": lambda: [HEAD],
    }
    print(*lines[what](), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
