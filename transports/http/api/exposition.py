"""The text that Prometheus reads. Loaded when somebody asks for it: the library is a part of every
start otherwise."""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from transports.http.web.tallies import Histogram, Tally

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "jobbus_"


def text_of(families: Iterable[Metric]) -> bytes:
    """All of them in the text format."""
    registry = CollectorRegistry()
    registry.register(_Families(list(families)))
    return generate_latest(registry)


class _Families:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, about, value=value)


def gauges(name: str, about: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, about, labels=(label,))
    for word, value in values.items():
        family.add_metric((word,), value)
    return family


def counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, about, value=value)


def counters(name: str, about: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, about, labels=(label,))
    for word, value in values.items():
        family.add_metric((str(word),), value)
    return family


def tally(counted: Tally) -> Metric:
    family = CounterMetricFamily(_PREFIX + counted.name, counted.about, labels=counted.labels)
    for values, count in counted.counts.items():
        family.add_metric(values, count)
    return family


def histogram(measured: Histogram) -> Metric:
    family = HistogramMetricFamily(_PREFIX + measured.name, measured.about, labels=measured.labels)
    names = [*(str(float(bound)) for bound in measured.bounds), "+Inf"]
    for values, slots in measured.slots.items():
        # Each bucket holds those below it too.
        buckets = list(zip(names, accumulate(slots), strict=True))
        family.add_metric(values, buckets, measured.sums[values])
    return family
