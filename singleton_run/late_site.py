"""Python's `site`, loaded only when something isn't found without it.

The script that `singleton-run install` writes starts Python by `-IS`: without site and without the user's
PYTHON* variables. That saves a third of Python's own start. Our packages are then found in one folder. What
else is asked for (a stranger's backend, an editable installation, a package of the user's) is found after
`load`, as in a Python that has begun with site.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

places: tuple[str, ...] = ()
"""The folders that the script names: ours, and the user's own if Python used that."""
_is_due = False


def expect(*folders: str) -> None:
    """Look for modules in the first of these folders, and load site when one isn't found. For that script."""
    global places, _is_due
    places, _is_due = folders, True
    sys.path.append(folders[0])
    sys.meta_path.append(_Last())


def load() -> None:
    """Load site if that is still due: afterwards everything is found that is installed."""
    global _is_due  # noqa: PLW0603
    if not _is_due:
        return
    _is_due = False
    import site

    site.main()
    for folder in places:
        site.addsitedir(folder)


class _Last:
    """Is asked for a module that nobody else has found."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Look once more, with site."""
        if not _is_due or path is not None:
            return None
        load()
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name)
