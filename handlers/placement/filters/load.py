"""Filters of how much goes on on a host: how many servers it has, and how many of them are being worked on."""

from __future__ import annotations

from collections.abc import Callable

from bus.config import Scheduler as Settings
from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request
from handlers.placement.filter import Filter
from schema.placement.decision import Change

MOST_SERVERS, MOST_BUSY = "max_instances_per_host", "max_io_ops_per_host"
"""Aggregates' keys; the smallest counts."""


def num_instances(settings: Settings) -> Filter:
    return _limit("NumInstances", "servers", lambda it: it.servers, lambda it: settings.max_instances_per_host)


def io_ops(settings: Settings) -> Filter:
    return _limit("IoOps", "servers at work", lambda it: it.busy, lambda it: settings.max_io_ops_per_host)


def aggregate_num_instances(settings: Settings) -> Filter:
    def limit(candidate: Candidate) -> float:
        return candidate.least(MOST_SERVERS, settings.max_instances_per_host)

    return _limit("AggregateNumInstances", "servers", lambda it: it.servers, limit, MOST_SERVERS)


def aggregate_io_ops(settings: Settings) -> Filter:
    def limit(candidate: Candidate) -> float:
        return candidate.least(MOST_BUSY, settings.max_io_ops_per_host)

    return _limit("AggregateIoOps", "servers at work", lambda it: it.busy, limit, MOST_BUSY)


def metrics(settings: Settings) -> Filter:
    """Only hosts that measure all that the weigher of metrics goes by."""
    names = tuple(settings.metrics)

    def lacking(candidate: Candidate) -> list[str]:
        return [name for name in names if name not in candidate.metrics]

    return Filter(
        "Metrics",
        lambda candidate, request: not lacking(candidate),
        "do not measure all of the metrics that are weighed",
        asked=lambda request: bool(names),
        why=lambda candidate, request: f"does not measure {', '.join(lacking(candidate))}",
        remedy=lambda candidate, request: tuple(
            Change(
                what="metric", host=candidate.host.id, name=it, words=f"the metric {it} from host {candidate.host.id}"
            )
            for it in lacking(candidate)
        ),
    )


def _limit(
    name: str,
    what: str,
    count: Callable[[Candidate], int],
    limit: Callable[[Candidate], float],
    key: str = "",
) -> Filter:
    def remedy(candidate: Candidate, request: Request) -> tuple[Change, ...]:
        if not key:
            return ()
        enough = str(count(candidate) + 1)
        words = f"{key}={enough} on the aggregates of host {candidate.host.id}"
        return (Change(what="metadata", host=candidate.host.id, name=key, value=enough, words=words),)

    return Filter(
        name,
        lambda candidate, request: count(candidate) < limit(candidate),
        f"have as many {what} as they may",
        why=lambda candidate, request: f"has {count(candidate)} {what}, and may have {limit(candidate):g}",
        remedy=remedy,
    )
