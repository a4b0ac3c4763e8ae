"""Sees that a crontab has changed: a file that is written or replaced, or a link that leads elsewhere now."""

from __future__ import annotations

import os

from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SETTLES_IN = 0.2
"""How long after a change the files are read, in seconds: an editor, or a kubelet, does several things."""


class Watch:
    """Watches the directories of `paths`, and those that links lead to.

    A kubelet replaces a mounted ConfigMap by a link to a new directory, so what has to be watched can change:
    `refresh` is called after each change. Raises OSError where the kernel refuses.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._watched: dict[str, int] = {}
        self.refresh()

    @property
    def descriptors(self) -> list[int]:
        """They are readable after a change."""
        return list(self._watched.values())

    def refresh(self) -> None:
        """Forget the changes so far, and watch what the links lead to now."""
        wanted = _directories(self._paths)
        for directory in [known for known in self._watched if known not in wanted]:
            os.close(self._watched.pop(directory))
        for descriptor in self._watched.values():
            _drain(descriptor)
        for directory in wanted:
            if directory not in self._watched:
                self._watched[directory] = _watch(directory)


def contents(paths: Sequence[str]) -> list[tuple[str, bytes | None]]:
    """What the files hold now, those of directories too: path and bytes, None for what can't be read."""
    found: list[tuple[str, bytes | None]] = []
    for path in paths:
        for each in _files(path):
            try:
                with open(each, "rb") as file:
                    found.append((each, file.read()))
            except OSError:
                found.append((each, None))
    return found


def _files(path: str) -> list[str]:
    try:
        return sorted(os.path.join(path, entry) for entry in os.listdir(path))
    except OSError:
        return [path]


def _directories(paths: Sequence[str]) -> set[str]:
    """Each directory in which a change of a name, or of a file, changes what `paths` lead to."""
    found: set[str] = set()
    for path in paths:
        for each in [os.path.abspath(path), *(_files(path) if os.path.isdir(path) else [])]:
            at = os.path.abspath(each)
            for _ in range(40):  # as many links as the kernel follows
                found.add(at if os.path.isdir(at) else os.path.dirname(at))
                step = _first_link(at)
                if not step:
                    break
                at = step[1]
                found.add(os.path.dirname(step[0]))
    return {directory for directory in found if os.path.isdir(directory)}


def _first_link(path: str) -> tuple[str, str] | None:
    """The first part of an absolute path that is a link, and the path with the link followed."""
    at = "/"
    parts = path.split("/")[1:]
    for number, part in enumerate(parts):
        at = os.path.join(at, part)
        if os.path.islink(at):
            rest = "/".join(parts[number + 1 :])
            target = os.path.join(os.path.dirname(at), os.readlink(at))
            return at, os.path.normpath(os.path.join(target, rest) if rest else target)
    return None


def _watch(directory: str) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return calls.changes_of(descriptor)
    finally:
        os.close(descriptor)


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except BlockingIOError:
        return
