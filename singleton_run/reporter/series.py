"""The series of /metrics and --metrics-file, as docs/metrics.md describes them.

Their one label is `name`, the lock's; some have another with a few fixed values. Counters and histograms are
fed by events. What we are now (held, waiting, running) is read from the shared page when somebody asks, so it
is right however many events were lost.
"""

from __future__ import annotations

from prometheus_client.metrics import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import CollectorRegistry

from singleton_run import __version__
from singleton_run.report.events import RUN_OVER
from singleton_run.reporter.health import holds
from singleton_run.reporter.text_format import rendered
from singleton_run.reporter.vitals import WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from singleton_run.report.events import Event
    from singleton_run.reporter.vitals import Vitals

RESULTS = ("succeeded", "failed", "interrupted", "lost", "crashed")
SKIPPED = ("deadline", "missed", "paused", "unreadable")
KILLED = ("timeout", "lost", "revoked")
RENEWED = ("ok", "failed", "lost")

_WAITS = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
_RUNS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_REQUESTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_REMAINING = (1, 2, 3, 4, 5, 7.5, 10, 15, 20, 25, 30, 40, 60, 120, 300)
_LATENESS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Series:
    """All series, as a `sinks.Sink` that counts. `add` a lock before its events come."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._holders: dict[str, str] = {}
        self._dropped = _Dropped()
        self.registry.register(self._dropped)
        self._make_gauges()
        self._make_counters()
        self._make_histograms()
        build = Gauge(
            "singleton_run_build_info",
            "Always 1; the label is our version.",
            ["version"],
            registry=self.registry,
        )
        build.labels(__version__).set(1)

    def _make_gauges(self) -> None:
        for name, text in (
            ("held", "Whether this process holds the lock."),
            ("waiting", "Whether this process waits for the lock."),
            ("running", "Whether the command runs."),
            ("paused", "Whether the lock is paused, as far as this process was told."),
            ("last_start_timestamp_seconds", "When this process last started the command."),
            ("last_success_timestamp_seconds", "When a command of this process last succeeded."),
        ):
            self._gauges[name] = Gauge(f"singleton_run_{name}", text, ["name"], registry=self.registry)

    def _make_counters(self) -> None:
        for name, text, labels in (
            ("acquisitions", "How often this process got the lock.", ()),
            ("renewals", "Renewals of the lease.", ("result",)),
            ("lost", "How often the lock was lost while the command ran.", ()),
            ("transitions", "Changes of the lock's holder that this process saw.", ()),
            ("runs", "Commands that have ended, or could not be started.", ("result",)),
            ("slots_skipped", "Slots that were not started.", ("reason",)),
            ("commands_killed", "Commands that were stopped by singleton-run.", ("reason",)),
        ):
            self._counters[name] = Counter(
                f"singleton_run_{name}", text, ["name", *labels], registry=self.registry
            )

    def _make_histograms(self) -> None:
        for name, text, buckets in (
            ("wait_seconds", "How long this process waited for the lock.", _WAITS),
            ("renewal_seconds", "How long a renewal took.", _REQUESTS),
            ("lease_remaining_seconds", "How long the lease still ran when a renewal was sent.", _REMAINING),
            ("run_seconds", "How long the command ran, with all that it started.", _RUNS),
            ("start_lateness_seconds", "How long after its slot's time the command started.", _LATENESS),
        ):
            self._histograms[name] = Histogram(
                f"singleton_run_{name}", text, ["name"], registry=self.registry, buckets=buckets
            )

    def add(self, name: str, vitals: Vitals) -> None:
        """Have series of the lock `name`, whose state is in `vitals`."""
        now: dict[str, Callable[[], bool]] = {
            "held": lambda: holds(vitals),
            "waiting": lambda: vitals.phase == WAITING,
            "running": lambda: vitals.running,
        }
        for gauge, read in now.items():
            self._gauges[gauge].labels(name).set_function(read)
        self._gauges["paused"].labels(name).set(0)
        for counter in ("acquisitions", "lost", "transitions"):
            self._counters[counter].labels(name)
        for counter, values in (
            ("renewals", RENEWED),
            ("runs", RESULTS),
            ("slots_skipped", SKIPPED),
            ("commands_killed", KILLED),
        ):
            for value in values:
                self._counters[counter].labels(name, value)
        for histogram in self._histograms.values():
            histogram.labels(name)
        self._dropped.locks[name] = vitals

    def hear(self, event: Event) -> None:
        """Count the event. One that is told again only says what is."""
        self._note_state(event)
        if not event.again:
            self._count(event)

    def _note_state(self, event: Event) -> None:
        name, facts = event.name, event.facts
        if event.event == "paused":
            self._gauges["paused"].labels(name).set(1)
        elif event.event == "waiting":
            self._gauges["paused"].labels(name).set(facts.get("paused_since") is not None)
        elif event.event == "acquired":
            self._gauges["paused"].labels(name).set(0)
        elif event.event == "started":
            self._gauges["last_start_timestamp_seconds"].labels(name).set(event.at)
        holder = _process_of(facts.get("holder") or "")
        if event.event in ("waiting", "acquired") and holder:
            before = self._holders.setdefault(name, holder)
            if before != holder and not event.again:
                self._counters["transitions"].labels(name).inc()
            self._holders[name] = holder

    def _count(self, event: Event) -> None:
        name, facts, counters = event.name, event.facts, self._counters
        if event.event == "acquired":
            counters["acquisitions"].labels(name).inc()
            self._observe("wait_seconds", event, facts["waited"])
        elif event.event == "started":
            self._observe("start_lateness_seconds", event, facts.get("late"))
        elif event.event == "renewed":
            counters["renewals"].labels(name, facts["result"]).inc()
            self._observe("renewal_seconds", event, facts["seconds"])
            self._observe("lease_remaining_seconds", event, facts["remaining"])
        elif event.event == "lost":
            counters["lost"].labels(name).inc()
        elif event.event == "killed":
            counters["commands_killed"].labels(name, facts["reason"]).inc()
        elif event.event == "skipped":
            counters["slots_skipped"].labels(name, facts["reason"]).inc(facts["number"])
        elif event.event in RUN_OVER:
            counters["runs"].labels(name, facts.get("outcome", event.event)).inc()
            self._observe("run_seconds", event, facts["seconds"])
            if event.event == "succeeded":
                self._gauges["last_success_timestamp_seconds"].labels(name).set(event.at)

    def _observe(self, histogram: str, event: Event, seconds: float | None) -> None:
        if seconds is not None:
            self._histograms[histogram].labels(event.name).observe(seconds)

    def text(self) -> bytes:
        """All series in Prometheus' text format."""
        return rendered(self.registry.collect())

    def finish(self) -> None:
        """Nothing more comes."""

    def busy(self) -> bool:
        """Everything is counted as soon as it is told."""
        return False


def _process_of(holder: str) -> str:
    """Whose holder's name this is: ours are HOST:PID:RANDOM, and another one in each turn."""
    return holder.rpartition(":")[0] if holder.count(":") == 2 else holder


class _Dropped:
    """The counter of lost events, which are counted in the shared page of each lock."""

    def __init__(self) -> None:
        self.locks: dict[str, Vitals] = {}

    def collect(self) -> list[Metric]:
        """The series, one for each lock."""
        text = "Events that these metrics lack, because the reporter hung."
        family = CounterMetricFamily("singleton_run_events_dropped", text, labels=["name"])
        for name, vitals in self.locks.items():
            family.add_metric([name], vitals.dropped)
        return [family]
