"""Requests counted and timed by route, for /metrics; an addition per request, rendered only when scraped."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

BOUNDS_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Tally:
    """One route's counts."""

    __slots__ = ("buckets", "labels", "seconds", "statuses")

    def __init__(self, *labels: str) -> None:
        self.labels = labels
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(BOUNDS_SECONDS) + 1)
        self.seconds = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.seconds += seconds


class Tallies:
    """A prometheus collector over every route's counts. Register it with the process's registry."""

    def __init__(self) -> None:
        self.all: list[Tally] = []

    def one(self, *labels: str) -> Tally:
        tally = Tally(*labels)
        self.all.append(tally)
        return tally

    def collect(self) -> Iterable[Metric]:
        names = ["service", "method", "path"]
        counts = CounterMetricFamily("cumulog_requests", "Requests answered.", labels=[*names, "status"])
        times = HistogramMetricFamily("cumulog_request_seconds", "Time from request to answer.", labels=names)
        for tally in self.all:
            if not tally.statuses:
                continue
            for status, count in sorted(tally.statuses.items()):
                counts.add_metric([*tally.labels, str(status)], count)
            running, buckets = 0, []
            for bound, count in zip((*map(str, BOUNDS_SECONDS), "+Inf"), tally.buckets, strict=True):
                running += count
                buckets.append((bound, float(running)))
            times.add_metric(list(tally.labels), buckets, tally.seconds)
        return [counts, times]
