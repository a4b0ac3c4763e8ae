"""The text of the series is what prometheus-client itself would write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

from singleton_run.reporter.text_format import rendered

disable_created_metrics()  # type: ignore[no-untyped-call]


@given(st.text(max_size=20), st.floats(min_value=0), st.floats())
def test_it_is_as_the_package_writes_it(label: str, more: float, value: float) -> None:
    label = label.encode(errors="replace").decode()
    registry = CollectorRegistry()
    Counter("singleton_run_a", 'What \\ "counts"\nhere', ["name", "result"], registry=registry).labels(
        label, "x"
    ).inc(more)
    Gauge("singleton_run_b", "What is.", ["name"], registry=registry).labels(label).set(value)
    Histogram("singleton_run_c", "How long.", ["name"], registry=registry).labels(label).observe(more)
    Gauge("singleton_run_d", "Without a label.", registry=registry).set(7)
    assert sorted(rendered(registry.collect()).splitlines()) == sorted(generate_latest(registry).splitlines())
