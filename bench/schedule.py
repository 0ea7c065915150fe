"""How fast the scheduler is: `python -m bench.schedule [HOSTS] [SERVERS]`. Seconds are CPU's.

A claim is what the provider's stream decides and folds, and what the index learns of it; the append is not in it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec.structs import replace

from bus.config import Scheduler as Settings
from bus.log import Document
from handlers.placement.answer import Placement
from handlers.placement.capacity import CapacityIndex
from handlers.placement.demand import Request
from handlers.placement.provider import PROVIDERS
from handlers.placement.schedule import Scheduler
from handlers.placement.weighers import image_count
from handlers.placement.wishes import wanted
from schema.compute.domain import HostFacts
from schema.compute.host import Host
from schema.compute.topology import HostCell, units_there
from schema.placement.provider import PROVIDER, Claim, Inventory, Provider

BORN = datetime(2030, 1, 1, tzinfo=UTC)


def cloud(hosts: int, settings: Settings | None = None) -> Scheduler:
    """A scheduler over that many empty hosts of three sizes, a tenth of them disabled."""
    settings = settings or Settings()
    index = CapacityIndex(image_count(settings))
    for number in range(hosts):
        size = 1 + number % 3
        inventories = {
            "VCPU": Inventory(total=32 * size, allocation_ratio=4.0),
            "MEMORY_MB": Inventory(total=131_072 * size, reserved=512),
            "DISK_GB": Inventory(total=2000 * size),
        }
        provider = Provider(id=f"p{number}", created_at=BORN, name=f"h{number}", inventories=inventories)
        facts = HostFacts(hypervisor_type="QEMU", arch="x86_64")
        host = Host(id=f"h{number}", created_at=BORN, provider_id=provider.id, facts=facts, up=True)
        index.provider_changed(None, Document(f"provider/{provider.id}", 2, provider))
        index.host_changed(None, Document(f"host/{host.id}", 1, replace(host, enabled=number % 10 != 9)))
    return Scheduler(index, settings)


def by_images(hosts: int) -> Scheduler:
    """The same, and servers of like images come together."""
    return cloud(hosts, Settings(image_props_weight=1.0))


def pinning(hosts: int) -> Scheduler:
    """A scheduler over empty hosts of two NUMA nodes, with 28 cores of two threads each for guests alone."""
    index = CapacityIndex()
    cells = tuple(
        HostCell(
            id=node,
            cpus=tuple(range(node * 32, node * 32 + 32)),
            siblings=tuple((node * 32 + core, node * 32 + core + 16) for core in range(16)),
            memory_mb=131_072,
        )
        for node in range(2)
    )
    own = tuple(cpu for cell in cells for core in cell.siblings[2:] for cpu in core)
    facts = HostFacts(hypervisor_type="QEMU", arch="x86_64", cells=cells, dedicated_cpus=own)
    inventories = {"PCPU": Inventory(total=len(own)), "MEMORY_MB": Inventory(total=262_144)}
    units = units_there(cells, (), own)
    for number in range(hosts):
        provider = Provider(id=f"p{number}", created_at=BORN, name=f"h{number}", inventories=inventories, units=units)
        host = Host(id=f"h{number}", created_at=BORN, provider_id=provider.id, facts=facts, up=True)
        index.provider_changed(None, Document(f"provider/{provider.id}", 2, provider))
        index.host_changed(None, Document(f"host/{host.id}", 1, host))
    return Scheduler(index)


def claim(index: CapacityIndex, placement: Placement) -> None:
    """What becomes of a placement: its claim, decided and folded."""
    slot = next(it for it in [index.slot_of_host(placement.host)] if it is not None)
    before = slot.provider
    assert before is not None
    after = before
    for event in PROVIDERS.decide(before, Claim(consumer_id=placement.consumer_id, resources=placement.resources)):
        after = PROVIDER.fold(after, event, BORN)
    stream = PROVIDER.stream(before.id)
    index.provider_changed(Document(stream, 1, before), Document(stream, 2, after))


def of_images(servers: int, kinds: int) -> list[Request]:
    """Requests of images with ten properties each."""
    said = [{f"hw_property_{n}": str(n * kind) for n in range(10)} for kind in range(kinds)]
    return [
        replace(it, image_id=f"i{number % kinds}", image_properties=said[number % kinds])
        for number, it in enumerate(requests(servers, 1))
    ]


def requests(servers: int, kinds: int) -> list[Request]:
    return [
        Request(
            consumer_id=f"c{number}",
            resources={"VCPU": 1, "MEMORY_MB": 256 * (1 + number % kinds), "DISK_GB": 1},
        )
        for number in range(servers)
    ]


def measure(
    what: str,
    hosts: int,
    servers: int,
    place: Callable[[Scheduler], int],
    made: Callable[[int], Scheduler] = cloud,
) -> None:
    scheduler = made(hosts)
    gc.collect()
    started = time.process_time()
    placed = place(scheduler)
    seconds = time.process_time() - started
    print(f"{what:40} {servers / seconds:10,.0f} servers/s   {placed} of {servers} placed")


def main() -> None:
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    servers = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    alike, mixed = requests(servers, 1), requests(servers, 4)

    def one_by_one(scheduler: Scheduler, wanted: list[Request]) -> int:
        return sum(isinstance(scheduler.place([request])[0], Placement) for request in wanted)

    def at_once(scheduler: Scheduler) -> int:
        return sum(isinstance(answer, Placement) for answer in scheduler.place(alike))

    def claimed(scheduler: Scheduler, wanted: list[Request]) -> int:
        answers = [it for it in scheduler.place(wanted) if isinstance(it, Placement)]
        for answer in answers:
            claim(scheduler.index, answer)
        return len(answers)

    def pinned(scheduler: Scheduler) -> int:
        own = wanted(2, 2048, {"hw:cpu_policy": "dedicated"}, {})
        answers = scheduler.place([replace(it, resources={"VCPU": 2, "MEMORY_MB": 2048}, hardware=own) for it in alike])
        return sum(isinstance(answer, Placement) for answer in answers)

    def in_batches(scheduler: Scheduler, wanted: list[Request] = mixed) -> int:
        return sum(claimed(scheduler, wanted[first : first + 100]) for first in range(0, servers, 100))

    print(f"{hosts} hosts, {servers} servers")
    measure("one request at a time, one kind", hosts, servers, lambda scheduler: one_by_one(scheduler, alike))
    measure("one request at a time, four kinds", hosts, servers, lambda scheduler: one_by_one(scheduler, mixed))
    measure("one batch, one kind", hosts, servers, at_once)
    measure("batches of 100, four kinds, with claims", hosts, servers, in_batches)
    images = of_images(servers, 4)
    measure("… of four images, by their properties", hosts, servers, lambda it: in_batches(it, images), by_images)
    measure("one batch, two CPUs of their own each", hosts, servers, pinned, pinning)


if __name__ == "__main__":
    main()
