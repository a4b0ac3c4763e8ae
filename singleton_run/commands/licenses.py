"""`licenses`: the licence of each part that is shipped with us, and our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run import late_site
from singleton_run.call.output import show

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.call.fast_parser import Value


def run(_given: Mapping[str, Value], _environ: Mapping[str, str]) -> NoReturn:
    """Print them, and end."""
    show(_licences())


def _licences() -> str:
    """Their texts; a line where ours was not installed with us."""
    try:
        from _licences import TEXT  # type: ignore[import-not-found]  # only in the executable that needs no Python
    except ImportError:
        from importlib import metadata
    else:
        text: str = TEXT
        return text
    late_site.load()
    try:
        own = metadata.distribution("singleton-run").read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        own = None
    return own or "Apache-2.0: see LICENSE in singleton-run's sources\n"
