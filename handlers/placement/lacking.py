"""What a host would have to have besides, for a server's own hardware to fit there: as little as can be found.

Tried in turn: more memory and pages; CPUs and devices that others have; CPUs that are shared now. What was found is
then given back, piece by piece, as long as it fits without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from handlers.placement.fitting import fit
from handlers.placement.hardware import Hardware
from handlers.placement.misfit import Free
from schema.compute.domain import HostFacts
from schema.compute.topology import Topology, Units, cpu_unit, memory_unit, page_unit, ranges, units_taken
from schema.placement.decision import Change


class Lack(Struct, frozen=True):
    """`units`: so much more of each free. `dedicated`: CPUs that are shared now."""

    units: Units
    dedicated: tuple[int, ...] = ()


def lacking(wanted: Hardware, facts: HostFacts, free: Free, there: Mapping[str, int]) -> Lack | None:
    """`there`: what the host has of each unit, free or not. None: nothing of the kind would help."""
    more = dict(free) | _memory(wanted, facts, free)
    found = fit(wanted, facts, more)
    if not isinstance(found, Topology):
        more |= {unit: n for unit, n in there.items() if unit.startswith(("cpu ", "pci "))}
        found = fit(wanted, facts, more)
    if isinstance(found, Topology):
        return _least(wanted, facts, free, found)
    shared = sorted({cpu for cell in facts.cells for cpu in cell.cpus} - set(facts.dedicated_cpus))
    if not wanted.pinned or not shared:
        return None
    least, most = 1, len(shared)
    while least < most:
        middle = (least + most) // 2
        if isinstance(_with(wanted, facts, more, shared[:middle]), Topology):
            most = middle
        else:
            least = middle + 1
    widened = _dedicating(facts, shared[:most])
    found = fit(wanted, widened, more | {cpu_unit(cpu): 1 for cpu in shared[:most]})
    if not isinstance(found, Topology):
        return None
    own = {*found.pins.values(), *found.own_cpus}
    dedicated = tuple(cpu for cpu in shared[:most] if cpu in own)
    lack = _least(wanted, _dedicating(facts, dedicated), {**free, **{cpu_unit(cpu): 1 for cpu in dedicated}}, found)
    return replace(lack, dedicated=dedicated) if lack else None


def changes(lack: Lack, host: str) -> tuple[Change, ...]:
    """The same in words."""
    found = []
    cpus = [int(unit.removeprefix("cpu ")) for unit in lack.units if unit.startswith("cpu ")]
    devices = sorted(unit.removeprefix("pci ") for unit in lack.units if unit.startswith("pci "))
    if lack.dedicated:
        said = ranges(lack.dedicated)
        words = f"{_some('CPU', lack.dedicated)} {said} of host {host} dedicated"
        found.append(Change(what="dedicated", host=host, value=said, words=words))
    if cpus:
        words = f"{_some('CPU', cpus)} {ranges(cpus)} of host {host} given back by those who have them"
        found.append(Change(what="units", host=host, name="cpu", value=ranges(cpus), words=words))
    if devices:
        words = f"{_some('PCI device', devices)} {', '.join(devices)} of host {host} given back by those who have them"
        found.append(Change(what="units", host=host, name="pci", value=",".join(devices), words=words))
    for unit, amount in lack.units.items():
        kind, cell, *size = unit.split()
        if kind in {"memory", "pages"}:
            what = "MB of memory" if kind == "memory" else f"pages of {size[0]} KiB"
            words = f"{amount} more {what} free in NUMA node {cell} of host {host}"
            found.append(Change(what="units", host=host, name=unit, value=str(amount), words=words))
    return tuple(found)


def _some(what: str, some: Sequence[object]) -> str:
    return f"{what}s" if len(some) > 1 else what


def _memory(wanted: Hardware, facts: HostFacts, free: Free) -> Units:
    """Memory and pages enough in every cell of the host."""
    most = max((cell.memory_mb for cell in wanted.cells), default=0)
    enough = {}
    for cell in facts.cells:
        enough[memory_unit(cell.id)] = most
        enough |= {page_unit(cell.id, size): -(-most * 1024 // size) for size in cell.pages}
    return {unit: n for unit, n in enough.items() if n > free.get(unit, 0)}


def _with(wanted: Hardware, facts: HostFacts, free: Free, cpus: list[int]) -> object:
    return fit(wanted, _dedicating(facts, cpus), {**free, **{cpu_unit(cpu): 1 for cpu in cpus}})


def _dedicating(facts: HostFacts, cpus: list[int] | tuple[int, ...]) -> HostFacts:
    return replace(facts, dedicated_cpus=(*facts.dedicated_cpus, *cpus))


def _least(wanted: Hardware, facts: HostFacts, free: Free, found: Topology) -> Lack | None:
    """What the topology takes that is not free, without what it can do without."""
    taken = units_taken(found, facts.devices)
    lack = {unit: n - max(0, free.get(unit, 0)) for unit, n in taken.items() if n > free.get(unit, 0)}
    for unit in sorted(lack):
        fewer = {it: n for it, n in lack.items() if it != unit}
        if isinstance(fit(wanted, facts, _plus(free, fewer)), Topology):
            lack = fewer
    return Lack(lack) if isinstance(fit(wanted, facts, _plus(free, lack)), Topology) else None


def _plus(free: Free, more: Units) -> Units:
    return {**free, **{unit: max(0, free.get(unit, 0)) + n for unit, n in more.items()}}
