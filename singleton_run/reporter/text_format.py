"""Prometheus' text format, and prometheus-client without its servers.

Importing that package as a whole loads servers and clients of HTTP, with TLS, which nobody here asks for:
6 MB and half of its time. Only its modules that count are loaded, and so the text is written here.
"""

from __future__ import annotations

import sys
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PACKAGE = "prometheus_client"


def load_counting_modules() -> None:
    """Load the modules of prometheus-client that count, without what its `__init__` imports.

    A version of it that can't be loaded so is left to the import statement.
    """
    if _PACKAGE in sys.modules:
        return
    spec = PathFinder.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        return
    package = type(sys)(_PACKAGE)
    package.__path__ = spec.submodule_search_locations
    package.__spec__ = spec
    sys.modules[_PACKAGE] = package
    try:
        __import__(f"{_PACKAGE}.metrics")
    except ImportError:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]


def rendered(families: Iterable[Metric]) -> bytes:
    """The families as lines of text."""
    lines = []
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        help_text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {family.type}"]
        lines += [f"{sample.name}{_labels(sample)} {_number(sample.value)}" for sample in family.samples]
    return "\n".join([*lines, ""]).encode()


def _labels(sample: Sample) -> str:
    pairs = [f'{label}="{_escaped(value)}"' for label, value in sorted(sample.labels.items())]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    from prometheus_client.utils import floatToGoString

    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
