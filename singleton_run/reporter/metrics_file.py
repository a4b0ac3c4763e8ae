"""--metrics-file: the series in a file, for node_exporter's textfile collector.

A run from cron begins with nothing counted, so what the file has from earlier runs is added to what we count:
the file goes on where the run before has ended. Nothing is written before the lock was ours, or a slot was
rested or skipped: a call that meets a held lock leaves the holder's file alone.
"""

from __future__ import annotations

import os

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from singleton_run.reporter.text_format import rendered
from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.samples import Sample

    from singleton_run.report.events import Event
    from singleton_run.reporter.series import Series
    from singleton_run.reporter.sinks import Place

    Key = tuple[str, tuple[tuple[str, str], ...]]

_MODE = 0o644
_AT_MOST_EACH = 1.0
_BEGINS = ("acquired", "skipped", "resting")
_KEPT = ("last_start_timestamp_seconds", "last_success_timestamp_seconds")


class MetricsFile:
    """The `sinks.Sink` that writes the file: after an event, and at most once a second until the end."""

    def __init__(self, place: Place, path: str, series: Series) -> None:
        self._place = place
        self._path = path
        self._series = series
        self._before: dict[Key, Sample] | None = None
        self._due = False
        self._written_at = 0.0

    def hear(self, event: Event) -> None:
        """Something has happened: write it soon."""
        if self._before is None and event.event in _BEGINS:
            self._before = read(self._path)
        if self._before is None or self._due or event.event == "renewed":
            return
        self._due = True
        self._place.loop.at(self._written_at + _AT_MOST_EACH, self._write)

    def finish(self) -> None:
        """Write the last state."""
        if self._before is not None:
            self._write()

    def busy(self) -> bool:
        """Everything is written as soon as it is told."""
        return False

    def _write(self) -> None:
        self._due = False
        self._written_at = calls.now()
        try:
            replace(self._path, rendered(_Sum(self._series, self._before or {}).collect()))
        except OSError as error:
            self._place.log.say("warning", "untold", text=f"--metrics-file {self._path}: {error.strerror}")


def read(path: str) -> dict[Key, Sample]:
    """The samples in a file by name and labels; none if it isn't there, or isn't ours to read."""
    try:
        with open(path, encoding="utf-8") as file:
            families = list(text_string_to_metric_families(file.read()))
    except (OSError, ValueError):
        return {}
    return {_key(sample): sample for family in families for sample in family.samples}


def replace(path: str, data: bytes) -> None:
    """Write a file in one step, so that nobody reads half of it. Raises OSError."""
    part = f"{path}.{os.getpid()}"  # not *.prom, which the collector would read
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        os.fchmod(descriptor, _MODE)
        while data:
            data = data[os.write(descriptor, data) :]
        os.close(descriptor)
        os.replace(part, path)
    except OSError:
        os.unlink(part)
        raise


class _Sum:
    """What we have counted, and what the file had: as the text has it."""

    def __init__(self, series: Series, before: dict[Key, Sample]) -> None:
        self._series = series
        self._before = before

    def collect(self) -> Iterator[Metric]:
        """Every family, with the sums of counters and histograms."""
        for family in self._series.registry.collect():
            whole = Metric(family.name, family.documentation, family.type)
            for sample in family.samples:
                earlier = self._before.get(_key(sample))
                adds = earlier is not None and family.type in ("counter", "histogram")
                whole.samples.append(
                    sample._replace(value=sample.value + earlier.value) if adds and earlier else sample
                )
            if not whole.samples and family.name.removeprefix("singleton_run_") in _KEPT:
                whole.samples += [one for key, one in self._before.items() if key[0] == family.name]
            yield whole


def _key(sample: Sample) -> Key:
    return sample.name, tuple(sorted(sample.labels.items()))
