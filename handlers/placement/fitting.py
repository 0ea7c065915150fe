"""How what a server wants for itself fits on one host: which CPUs, which NUMA nodes, which devices it would have.

    Hardware, the host's cells and devices, units free ──fit──▶ Topology | why not

Pure. Every NUMA node of the guest goes to another one of the host, as it does in Nova. Which set of the host's nodes it
is decides over everything else, so that a set that failed once is not looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from handlers.placement.hardware import (
    ANY,
    ISOLATE,
    LARGE,
    LEGACY,
    PREFERRED,
    REQUIRE,
    SHARE,
    SHARED,
    SMALL,
    Hardware,
    WantedCell,
    WantedDevices,
)
from schema.compute.domain import HostFacts
from schema.compute.topology import (
    SMALL_PAGE_KIB,
    GuestCell,
    GuestDevice,
    HostCell,
    HostDevice,
    Topology,
    cpu_unit,
    device_unit,
    memory_unit,
    page_unit,
)

Free = Mapping[str, int]

MOST_SETS = 10_000
"""Of a host's cells, that are looked at."""


class Misfit(Struct, frozen=True):
    """Why it does not fit, as the end of a sentence about the host."""

    why: str
    near: bool = False
    """All of it would be there, but not near enough to each other."""


class _Pinned(Struct, frozen=True):
    """What one cell of the guest has of one of the host. `own`: CPUs besides its pins."""

    cell: GuestCell
    own: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()


def fit(wanted: Hardware, facts: HostFacts, free: Free) -> Topology | Misfit:
    """What the guest would have of this host, of what is free there."""
    if len(wanted.cells) > len(facts.cells):
        nodes = "no NUMA nodes" if not facts.cells else f"{len(facts.cells)} NUMA nodes"
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
        devices = _devices(wanted.devices, facts, free, {cell.cell.host_cell for cell in chosen} if options else None)
        if not isinstance(devices, Misfit):
            return _topology(wanted, facts, chosen, devices)
        last = devices
        if not devices.near:
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


# Cells


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
        near = {it.cell for it in facts.devices for one in wanted.devices if _is(it, one)}
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
    if wanted.dedicated:
        alone = whole.emulator_policy == ISOLATE and number == 0
        cores = _cores(len(wanted.dedicated), whole.thread_policy, host, dedicated, free, alone=alone)
        if isinstance(cores, Misfit):
            return cores
        given, idle, emulator = cores
        pins = dict(zip(wanted.dedicated, (cpu for core in given for cpu in core), strict=True))
        siblings = _siblings(wanted.dedicated, given)
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


# CPUs

_Cores = tuple[list[tuple[int, ...]], tuple[int, ...], tuple[int, ...]]
"""Pins by core; CPUs that stay idle beside them; the emulator's."""


def _cores(
    count: int, policy: str, host: HostCell, dedicated: frozenset[int], free: Free, *, alone: bool
) -> _Cores | Misfit:
    """So many CPUs of their own. `alone`: one more for the emulator.

    `require`: threads of as few cores as can be; `isolate`: whole cores, all but one thread of each idle; else as
    many threads of a core as there are free. Cores that are in use already are filled first.
    """
    cores: list[tuple[int, ...]] = list(host.siblings) or [(cpu,) for cpu in host.cpus]
    open_ = [
        (core, tuple(cpu for cpu in core if cpu in dedicated and free.get(cpu_unit(cpu), 0) > 0)) for core in cores
    ]
    if policy == REQUIRE and all(len(core) == 1 for core in cores):
        return Misfit("has cores of one thread only, and siblings are required")
    if policy == ISOLATE:
        whole = [threads for core, threads in open_ if len(threads) == len(core)]
        if len(whole) < count:
            return Misfit(f"has {len(whole)} whole cores free in a NUMA node, {count} asked")
        given: list[tuple[int, ...]] = [threads[:1] for threads in whole[:count]]
        idle = tuple(cpu for threads in whole[:count] for cpu in threads[1:])
        return _with_emulator(given, idle, [threads for _, threads in open_], alone=alone)
    left = sorted((threads for _, threads in open_ if threads), key=lambda it: (len(it), it))
    if sum(map(len, left)) < count + alone:
        return Misfit(
            f"has {sum(map(len, left))} dedicated CPUs free in a NUMA node, {count + alone} asked"
            if dedicated.intersection(host.cpus)
            else "has no dedicated CPUs in a NUMA node"
        )
    fewest = 2 if policy == REQUIRE else 1
    for threads in range(max(fewest, min(count, len(left[-1]))), fewest - 1, -1):
        groups = [core[n : n + threads] for core in left for n in range(0, len(core) - threads + 1, threads)]
        if len(groups) * threads >= count:
            given = groups[: -(-count // threads)]
            given[-1] = given[-1][: threads - (len(given) * threads - count)]
            return _with_emulator(given, (), left, alone=alone)
    return Misfit(f"has too few cores with siblings free in a NUMA node, {count} asked")


def _with_emulator(
    given: list[tuple[int, ...]], idle: tuple[int, ...], left: Sequence[Sequence[int]], *, alone: bool
) -> _Cores | Misfit:
    if not alone:
        return given, idle, ()
    taken = {cpu for core in given for cpu in core}.union(idle)
    for threads in left:
        for cpu in threads:
            if cpu not in taken:
                return given, idle, (cpu,)
    return Misfit("has no dedicated CPU left for the emulator in the NUMA node")


def _siblings(vcpus: Sequence[int], cores: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """The vCPUs that are threads of one core, if every core has as many."""
    threads = len(cores[0])
    if threads == 1 or any(len(core) != threads for core in cores):
        return ()
    return tuple(tuple(vcpus[n : n + threads]) for n in range(0, len(vcpus), threads))


# Devices


def _devices(
    wanted: Sequence[WantedDevices], facts: HostFacts, free: Free, chosen: set[int] | None
) -> tuple[GuestDevice, ...] | Misfit:
    """The devices it would have. `chosen`: the host's cells it is on; None: it has none, so that all are as near."""
    given: list[GuestDevice] = []
    taken: set[str] = set()
    sockets = {cell.socket for cell in facts.cells if chosen and cell.id in chosen}
    socket_of = {cell.id: cell.socket for cell in facts.cells}

    def near(device: HostDevice, policy: str) -> bool:
        if chosen is None or policy == PREFERRED:
            return True
        if device.cell is None:
            return policy == LEGACY
        return device.cell in chosen or (policy == "socket" and socket_of.get(device.cell) in sockets)

    for one in wanted:
        there = [it for it in available(one, facts, free) if taken.isdisjoint(_with_it(it, facts))]
        if len(there) < one.count:
            return Misfit(f"has {len(there)} PCI devices of the alias {one.alias} free, {one.count} asked")
        reach = [it for it in there if near(it, one.policy or LEGACY)]
        if len(reach) < one.count:
            return Misfit(
                f"has {len(reach)} PCI devices of the alias {one.alias} near the guest's NUMA nodes, {one.count} asked",
                near=True,
            )
        reach.sort(key=lambda it: (chosen is not None and it.cell not in chosen, it.address))
        for it in reach[: one.count]:
            taken.update(_with_it(it, facts))
            given.append(
                GuestDevice(
                    address=it.address,
                    vendor_id=it.vendor_id,
                    product_id=it.product_id,
                    alias=one.alias,
                    cell=it.cell,
                )
            )
    return tuple(given)


def available(wanted: WantedDevices, facts: HostFacts, free: Free) -> list[HostDevice]:
    """The host's devices of that alias that nobody has: of a physical function none of its virtual ones either."""
    return [
        it
        for it in facts.devices
        if _is(it, wanted) and all(free.get(device_unit(address), 0) > 0 for address in _with_it(it, facts))
    ]


def _is(device: HostDevice, wanted: WantedDevices) -> bool:
    same = (device.vendor_id, device.product_id) == (wanted.vendor_id, wanted.product_id)
    return same and wanted.kind in {"", device.kind}


def _with_it(device: HostDevice, facts: HostFacts) -> list[str]:
    """Its address, and of a physical function those that go with it."""
    return [device.address, *(it.address for it in facts.devices if it.parent and it.parent == device.address)]
