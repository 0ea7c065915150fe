"""How what a server wants for itself fits on one host: which CPUs, which NUMA nodes, which devices it would have.

    Hardware, the host's cells and devices, units free ──fit──▶ Topology | why not

Pure. Every NUMA node of the guest goes to another one of the host, as it does in Nova. Which set of the host's nodes it
is decides over everything else, so that a set that failed once is not looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from handlers.placement.cores import cores, threads_of_cores
from handlers.placement.devices import devices, is_such
from handlers.placement.hardware import (
    ANY,
    ISOLATE,
    LARGE,
    SHARE,
    SHARED,
    SMALL,
    Hardware,
    WantedCell,
)
from handlers.placement.misfit import Free, Misfit
from schema.compute.domain import HostFacts
from schema.compute.topology import (
    SMALL_PAGE_KIB,
    GuestCell,
    GuestDevice,
    HostCell,
    Topology,
    cpu_unit,
    device_unit,
    memory_unit,
    page_unit,
)

MOST_SETS = 10_000
"""Of a host's cells, that are looked at."""


class _Pinned(Struct, frozen=True):
    """What one cell of the guest has of one of the host. `own`: CPUs besides its pins."""

    cell: GuestCell
    own: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()


def fit(wanted: Hardware, facts: HostFacts, free: Free) -> Topology | Misfit:
    """What the guest would have of this host, of what is free there."""
    if len(wanted.cells) > len(facts.cells):
        nodes = {0: "no NUMA nodes", 1: "1 NUMA node"}.get(len(facts.cells), f"{len(facts.cells)} NUMA nodes")
        return Misfit(f"has {nodes}, {len(wanted.cells)} asked")
    options: list[dict[int, _Pinned]] = []
    for number, cell in enumerate(wanted.cells):
        there, misfit = _options(number, cell, wanted, facts, free)
        if not there:
            return misfit
        options.append(there)
    order = _preferred(wanted, facts, free)
    last = Misfit(f"has no {len(options)} NUMA nodes free that each take one of the guest's")
    for chosen in _choices(options, order, (), set()):
        given = devices(wanted.devices, facts, free, {cell.cell.host_cell for cell in chosen} if options else None)
        if not isinstance(given, Misfit):
            return _topology(wanted, facts, chosen, given)
        last = given
        if not given.near:
            break
    return last


def _topology(
    wanted: Hardware, facts: HostFacts, chosen: Sequence[_Pinned], devices: tuple[GuestDevice, ...]
) -> Topology:
    own = tuple(sorted(cpu for it in chosen for cpu in it.own))
    emulator = tuple(sorted(cpu for it in chosen for cpu in it.emulator))
    cells = tuple(it.cell for it in chosen)
    pins = sorted(cpu for cell in cells for cpu in cell.pins.values())
    if not emulator and pins:
        shared = sorted({cpu for cell in facts.cells for cpu in cell.cpus} - set(facts.dedicated_cpus))
        emulator = tuple(shared if wanted.emulator_policy == SHARE and shared else pins)
    return Topology(
        cells=cells,
        devices=devices,
        cpu_policy=wanted.cpu_policy or (SHARED if cells else ""),
        thread_policy=wanted.thread_policy,
        emulator_cpus=emulator,
        own_cpus=own,
        numa=bool(cells),
    )


def _choices(
    options: Sequence[Mapping[int, _Pinned]], order: Sequence[int], chosen: tuple[int, ...], dead: set[frozenset[int]]
) -> Iterator[list[_Pinned]]:
    """Every set of the host's cells that takes all of the guest's, each once, the preferred ones first."""
    if len(chosen) == len(options):
        yield [its[id] for its, id in zip(options, chosen, strict=True)]
        return
    for id in order:
        then = frozenset((*chosen, id))
        if id not in chosen and id in options[len(chosen)] and then not in dead and len(dead) < MOST_SETS:
            dead.add(then)
            yield from _choices(options, order, (*chosen, id), dead)


def _options(
    number: int, cell: WantedCell, wanted: Hardware, facts: HostFacts, free: Free
) -> tuple[dict[int, _Pinned], Misfit]:
    """The host's cells that can take this one of the guest's, and why (if none can) the likeliest one cannot."""
    found: dict[int, _Pinned] = {}
    misfits: list[Misfit] = []
    for host in facts.cells:
        it = _cell(number, cell, wanted, host, frozenset(facts.dedicated_cpus), free)
        if isinstance(it, Misfit):
            misfits.append(it)
        else:
            found[host.id] = it
    return found, (misfits or [Misfit("has no NUMA nodes")])[0]


def _preferred(wanted: Hardware, facts: HostFacts, free: Free) -> list[int]:
    """The host's cells: those near to devices first if it wants any and last if not, then the fullest."""
    near = {it.cell for it in facts.devices if free.get(device_unit(it.address))}
    if wanted.devices:
        near = {it.cell for it in facts.devices for one in wanted.devices if is_such(it, one)}
    own = set(facts.dedicated_cpus)

    def key(cell: HostCell) -> tuple[bool, int, int]:
        left = sum(free.get(cpu_unit(cpu), 0) for cpu in cell.cpus if cpu in own)
        return (cell.id in near) != bool(wanted.devices), left, cell.id

    return [cell.id for cell in sorted(facts.cells, key=key)]


def _cell(  # noqa: PLR0917
    number: int, wanted: WantedCell, whole: Hardware, host: HostCell, dedicated: frozenset[int], free: Free
) -> _Pinned | Misfit:
    """One cell of the guest on one of the host."""
    page = _page(whole.pages, wanted.memory_mb, host, free)
    if isinstance(page, Misfit):
        return page
    floating = len(wanted.cpus) - len(wanted.dedicated)
    shared = tuple(cpu for cpu in host.cpus if cpu not in dedicated)
    if floating > len(shared):
        return Misfit(f"has {len(shared)} shared CPUs in a NUMA node, {floating} asked")
    pins: dict[int, int] = {}
    siblings: tuple[tuple[int, ...], ...] = ()
    own: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    alone = whole.emulator_policy == ISOLATE and number == 0
    if wanted.dedicated or alone:
        given_cores = cores(len(wanted.dedicated), whole.thread_policy, host, dedicated, free, alone=alone)
        if isinstance(given_cores, Misfit):
            return given_cores
        given, idle, emulator = given_cores
        pins = dict(zip(wanted.dedicated, (cpu for core in given for cpu in core), strict=True))
        siblings = threads_of_cores(wanted.dedicated, given)
        own = (*idle, *emulator)
    cell = GuestCell(
        id=number,
        host_cell=host.id,
        cpus=wanted.cpus,
        memory_mb=wanted.memory_mb,
        page_kib=page,
        pins=pins,
        floats=shared if floating else (),
        siblings=siblings,
    )
    return _Pinned(cell, own, emulator)


def _page(pages: str, memory_mb: int, host: HostCell, free: Free) -> int | Misfit:
    """The size of its pages, in KiB; 0: whatever comes."""
    large = sorted((size for size in host.pages if size > SMALL_PAGE_KIB), reverse=True)
    sizes = {"": [0], SMALL: [SMALL_PAGE_KIB], LARGE: large, ANY: [*large, SMALL_PAGE_KIB]}.get(pages)
    if sizes is None:
        sizes = [size for size in (*large, SMALL_PAGE_KIB) if size == int(pages)]
    for size in sizes:
        if size <= SMALL_PAGE_KIB:
            if free.get(memory_unit(host.id), 0) >= memory_mb:
                return size
        elif memory_mb * 1024 % size == 0 and free.get(page_unit(host.id, size), 0) * size >= memory_mb * 1024:
            return size
    if not sizes:
        return Misfit(f"has no pages of {pages} KiB" if pages.isdigit() else "has no large pages")
    size = sizes[-1]
    if size <= SMALL_PAGE_KIB:
        left = max(0, free.get(memory_unit(host.id), 0))
        return Misfit(f"has {left} MB free in a NUMA node, {memory_mb} asked")
    if memory_mb * 1024 % size:
        return Misfit(f"has pages of {size} KiB, of which {memory_mb} MB is no multiple")
    left = max(0, free.get(page_unit(host.id, size), 0))
    return Misfit(f"has {left} pages of {size} KiB free in a NUMA node, {memory_mb * 1024 // size} asked")
