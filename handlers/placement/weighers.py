"""Weighers: which of the hosts that would do is best, by Nova's names. Each gives a number a host, higher is better.

What a weigher says is put in proportion to the span among the hosts at hand (`raw`: it is not), times its multiplier:
the setting, or what the host's aggregates say under the multiplier's name (`ram_weight_multiplier`), the smallest of
them. Numbers that change with every claim are columns, read where they stand; so a pick moves one number, not all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from math import inf
from typing import Any

from msgspec import Struct

from bus.config import ConfigurationError
from bus.config import Scheduler as Settings
from handlers.placement.candidate import Candidate, Columns
from handlers.placement.demand import Request
from handlers.placement.image_count import ImageCount
from schema.compute.topology import device_unit

GROUP = "cumulog.weighers"
"""Entry points of third parties: `Weigher`s, or functions of the settings that make one."""


class Weigher(Struct, frozen=True):
    """`column` (a resource class whose free amounts count) or `weigh` says what it goes by."""

    name: str
    """Nova's, without the Weigher at its end."""
    setting: str = ""
    """The setting that is its multiplier; empty: 1."""
    key: str = ""
    """The aggregates' key that overrides it."""
    column: str = ""
    weigh: Callable[[Candidate, Request], float] = lambda candidate, request: 0.0
    raw: bool = False
    moves: bool = True
    """A pick changes what it says."""
    lowest: float | None = None
    """Where the span begins; None: at the least of what is there."""
    asked: Callable[[Request], bool] = lambda request: True
    there: Callable[[Columns], bool] = lambda columns: True
    """Whether any host has what it goes by."""


Made = Weigher | Callable[[Settings], Weigher]
"""A weigher, or what makes it of the settings."""


class Term(Struct, frozen=True):
    """One weigher among the hosts at hand: a slot's number, times `factor` (or what it is for this slot)."""

    name: str
    factor: float
    factors: Mapping[int, float]
    column: Sequence[int] | None
    value: Callable[[int], float]
    least: float = -inf
    most: float = inf
    """A number beyond these is out of all proportion to the others: the span has to be looked for anew."""

    def __call__(self, slot: int) -> float:
        return self.factors.get(slot, self.factor) * self.value(slot)

    def outgrown(self, slot: int) -> bool:
        return not self.least <= self.value(slot) <= self.most


def chosen(settings: Settings) -> tuple[tuple[Weigher, float], ...]:
    """The weighers in force, with their multipliers. Raises ConfigurationError for a name that there is none of."""
    found = [it if isinstance(it, Weigher) else it(settings) for it in map(find, settings.weighers)]
    return tuple((it, float(getattr(settings, it.setting)) if it.setting else 1.0) for it in found)


def find(name: str) -> Made:
    found = BUILT_IN.get(name.removesuffix("Weigher"))
    if found is not None:
        return found
    for point in entry_points(group=GROUP, name=name):
        loaded: Made = point.load()
        return loaded
    known = ", ".join(sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))
    raise ConfigurationError(f"scheduler.weighers: there is no weigher {name}; there are {known}")


def term(
    weigher: Weigher, multiplier: float, candidates: Mapping[int, Candidate], slots: Sequence[int], request: Request
) -> Term | None:
    """What a weigher says among these slots; None if it makes no difference."""
    if not slots or not weigher.asked(request) or not weigher.there(candidates[slots[0]].columns):
        return None
    own = _own_multipliers(weigher, multiplier, candidates, slots)
    if not multiplier and not any(own.values()):
        return None
    column = candidates[slots[0]].columns.free.get(weigher.column) if weigher.column else None
    if weigher.column and column is None:
        return None

    def value(slot: int) -> float:
        return weigher.weigh(candidates[slot], request)

    read: Callable[[int], float] = column.__getitem__ if column is not None else value
    span, bounds = 1.0, (-inf, inf)
    if not (weigher.raw and weigher.moves):
        least, most = min(map(read, slots)), max(map(read, slots))
        wide = most - (least if weigher.lowest is None else weigher.lowest)
        if wide <= 0 and (column is not None or not weigher.moves):
            return None
        span = 1.0 if weigher.raw or wide <= 0 else wide
        if weigher.moves and column is None:
            bounds = (least - span, most + span)
    factors = {slot: factor / span for slot, factor in own.items()}
    return Term(weigher.name, multiplier / span, factors, column, read, *bounds)


def _own_multipliers(
    weigher: Weigher, multiplier: float, candidates: Mapping[int, Candidate], slots: Sequence[int]
) -> dict[int, float]:
    """Slots whose aggregates say another multiplier."""
    if not weigher.key:
        return {}
    return {
        slot: least
        for slot in slots
        if (it := candidates[slot]).aggregates and (least := it.least(weigher.key, multiplier)) != multiplier
    }


def _soft(policy: str) -> Callable[[Request], bool]:
    return lambda request: request.group is not None and request.group.policy == policy


def _neighbours(candidate: Candidate, request: Request) -> float:
    return request.neighbours.get(candidate.host.id, 0)


def _devices(candidate: Candidate, request: Request) -> float:
    """Those who want devices go where most are free; the others where fewest are, so that devices are kept for them."""
    free = sum(candidate.units.get(device_unit(it.address), 0) > 0 for it in candidate.host.facts.devices)
    return free if request.hardware is not None and request.hardware.devices else -free


def metrics(settings: Settings) -> Weigher:
    """Each metric times what the setting says of it, added up."""
    try:
        factors = {name: float(factor) for name, factor in settings.metrics.items()}
    except ValueError:
        raise ConfigurationError(f"scheduler.metrics is {settings.metrics}; each metric needs a number") from None

    def weigh(candidate: Candidate, request: Request) -> float:
        measured = candidate.metrics
        if any(name not in measured for name in factors):
            return settings.metrics_unavailable_weight
        return sum(factor * measured[name] for name, factor in factors.items())

    return _weigher("Metrics", "metrics", weigh=weigh, there=lambda columns: bool(factors))


def image_count(settings: Settings) -> ImageCount:
    """What the weigher ImageProperties goes by; it counts nothing where that is nothing. Raises ConfigurationError."""
    chosen = any(it.removesuffix("Weigher") == "ImageProperties" for it in settings.weighers)
    if not chosen or not settings.image_props_weight:
        return ImageCount()
    said = settings.image_props_weight_setting
    try:
        return ImageCount({name: float(weight) for name, weight in said.items()})
    except ValueError:
        raise ConfigurationError(
            f"scheduler.image_props_weight_setting is {said}; each property needs a number"
        ) from None


def _weigher(name: str, stem: str, **more: Any) -> Weigher:
    return Weigher(name, f"{stem}_weight", f"{stem}_weight_multiplier", **more)


BUILT_IN: Mapping[str, Made] = {"Metrics": metrics} | {
    it.name: it
    for it in (
        _weigher("RAM", "ram", column="MEMORY_MB", lowest=0.0),
        _weigher("CPU", "cpu", column="VCPU", lowest=0.0),
        _weigher("Disk", "disk", column="DISK_GB", lowest=0.0),
        _weigher("IoOps", "io_ops", weigh=lambda it, request: it.busy, raw=True),
        _weigher("NumInstances", "num_instances", weigh=lambda it, request: it.servers, raw=True),
        _weigher(
            "HypervisorVersion",
            "hypervisor_version",
            weigh=lambda it, request: it.host.facts.hypervisor_version,
            moves=False,
        ),
        _weigher("PCI", "pci", weigh=_devices, there=lambda columns: columns.devices > 0),
        _weigher("ServerGroupSoftAffinity", "soft_affinity", weigh=_neighbours, raw=True, asked=_soft("soft-affinity")),
        _weigher(
            "ServerGroupSoftAntiAffinity",
            "soft_anti_affinity",
            weigh=lambda it, request: -_neighbours(it, request),
            raw=True,
            asked=_soft("soft-anti-affinity"),
        ),
        _weigher(
            "BuildFailure",
            "build_failure",
            weigh=lambda it, request: -it.columns.failures_at(it.slot),
            raw=True,
            moves=False,
        ),
        _weigher(
            "ImageProperties",
            "image_props",
            weigh=lambda it, request: it.columns.images.weight(it.slot, request.image_properties),
            asked=lambda request: bool(request.image_properties),
            there=lambda columns: columns.images.on,
        ),
        _weigher("CrossCell", "cross_cell_move", asked=lambda request: False),
    )
}
"""CrossCell has nothing to say: every host is in the one cell there is."""
