"""Which PCI devices of a host a guest would have, by how near to its NUMA nodes they must be."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.placement.hardware import LEGACY, PREFERRED, SOCKET, WantedDevices
from handlers.placement.misfit import Free, Misfit
from schema.compute.domain import HostFacts
from schema.compute.topology import GuestDevice, HostDevice, device_unit


def devices(
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
        return device.cell in chosen or (policy == SOCKET and socket_of.get(device.cell) in sockets)

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
        if is_such(it, wanted) and all(free.get(device_unit(address), 0) > 0 for address in _with_it(it, facts))
    ]


def is_such(device: HostDevice, wanted: WantedDevices) -> bool:
    same = (device.vendor_id, device.product_id) == (wanted.vendor_id, wanted.product_id)
    return same and wanted.kind in {"", device.kind}


def _with_it(device: HostDevice, facts: HostFacts) -> list[str]:
    """Its address, and of a physical function those that go with it."""
    return [device.address, *(it.address for it in facts.devices if it.parent and it.parent == device.address)]
