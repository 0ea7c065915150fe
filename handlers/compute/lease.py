"""Leases of hypervisor hosts. A host comes with its resource provider, and they change together.

A host that an operator holds down gets no lease, whatever it says.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import structlog
from msgspec.structs import replace

from bus.cloud import Cloud
from bus.config import Settings
from bus.execute import Wish
from handlers.compute.host import HOSTS
from handlers.lease import Leases
from handlers.placement.provider import offering
from handlers.placement.resource_class import RESOURCE_CLASSES
from schema.compute.domain import Heartbeat, HostFacts
from schema.compute.host import HOST, ChangeHostFacts, Host, LoseHost, RegisterHost, ReturnHost
from schema.compute.topology import DEVICE_CLASS, Units, device_class, units_there
from schema.placement.provider import PROVIDER, Inventory, Provider
from schema.placement.resource_class import CreateResourceClass

log = structlog.get_logger()

_NAMESPACE = uuid.UUID("6f1c7a52-3c8e-4f0e-9d7b-6a4f2e1b0c35")

OnManifestWanted = Callable[[str], Awaitable[None]]
"""Tells a host (by name) everything it should hold."""


class Hosts(Leases[Host, HostFacts]):
    """One process's ears for hypervisors."""

    what = "host"
    heard_table = "heard_hosts"

    def __init__(self, cloud: Cloud, on_manifest_wanted: OnManifestWanted | None = None) -> None:
        super().__init__(cloud, HOST)
        self._on_manifest_wanted = on_manifest_wanted
        self.on_metrics: Callable[[str, Mapping[str, float]], None] | None = None
        """Is told how busy a host says it is, as often as it says so."""

    async def on_heartbeat(self, host: str, beat: Heartbeat) -> None:
        """A host lives: its lease is renewed, and it is told everything if it asks."""
        granted = await self.renew(host, beat.facts, beat.beat)
        if granted is not None and self.on_metrics is not None:
            self.on_metrics(host, beat.metrics)
        if granted is not None and beat.manifest_wanted and self._on_manifest_wanted is not None:
            await self._on_manifest_wanted(host)

    @property
    def lease_seconds(self) -> float:
        return self._cloud.settings.lease_seconds

    def barred(self, state: Host) -> bool:
        return state.forced_down

    def losing(self, host: str, epoch: int, silent_seconds: float) -> Wish:
        return Wish(HOSTS, host, LoseHost(epoch=epoch, silent_seconds=silent_seconds))

    async def register(self, host: str, before: Host | None, facts: HostFacts) -> Host:
        birth = (before.epoch if before else 0) + 1
        # Ids are made from the name, so that two processes that hear of a new host at once mean the same.
        provider_id, service_id = (
            str(uuid.uuid5(_NAMESPACE, f"{what}/{host}/{birth}")) for what in ("provider", "service")
        )
        [document, *_] = await self._cloud.executor.execute(
            Wish(HOSTS, host, RegisterHost(provider_id=provider_id, service_id=service_id, facts=facts)),
            *offering(provider_id, host, inventories(facts, self._cloud.settings), facts.traits, _units(facts)),
            *_classes(facts),
        )
        log.info("host registered", host=host, vcpus=facts.vcpus, memory_mb=facts.memory_mb, disk_gb=facts.disk_gb)
        registered: Host = document.state
        return registered

    async def refresh(self, state: Host, facts: HostFacts) -> Host:
        if not state.up:
            [document] = await self._cloud.executor.execute(Wish(HOSTS, state.id, ReturnHost()))
            log.info("host returned", host=state.id, epoch=document.state.epoch)
            state = document.state
        if state.facts != facts:
            stream = PROVIDER.stream(state.provider_id)
            found = (await self._cloud.executor.load([stream])).get(stream)
            offered = inventories(facts, self._cloud.settings, found.state if found else None)
            [document, *_] = await self._cloud.executor.execute(
                Wish(HOSTS, state.id, ChangeHostFacts(facts=facts)),
                *offering(state.provider_id, state.id, offered, replace(state, facts=facts).traits, _units(facts)),
                *_classes(facts),
            )
            state = document.state
        return state


def inventories(facts: HostFacts, settings: Settings, before: Provider | None = None) -> dict[str, Inventory]:
    """What placement may give away of a host. Ratios and reserves that an operator changed stay as they are."""
    ratios = settings.scheduler
    dedicated = len(facts.dedicated_cpus)
    fresh = {
        "VCPU": (facts.vcpus - dedicated, 0, ratios.cpu_ratio),
        "PCPU": (dedicated, 0, 1.0),
        "MEMORY_MB": (facts.memory_mb, min(ratios.reserved_memory_mb, facts.memory_mb), ratios.ram_ratio),
        "DISK_GB": (facts.disk_gb, 0, ratios.disk_ratio),
    }
    devices = Counter(device_class(it.vendor_id, it.product_id) for it in facts.devices)
    fresh |= {name: (count, 0, 1.0) for name, count in devices.items()}
    offered = _kept(before, fresh) if before else {}
    for name, (total, reserved, ratio) in fresh.items():
        known = offered.pop(name, None)
        if total > 0:
            offered[name] = Inventory(
                total=total,
                max_unit=total,
                reserved=min(known.reserved, total) if known else reserved,
                allocation_ratio=known.allocation_ratio if known else ratio,
            )
        elif known is not None and before is not None and (used := before.used.get(name)):
            offered[name] = Inventory(total=used, reserved=used)
    return offered


def _kept(before: Provider, fresh: Mapping[str, object]) -> dict[str, Inventory]:
    """What it offered, without classes of devices that are gone; as long as some are claimed, they are all reserved."""
    kept = {}
    for name, inventory in before.inventories.items():
        if not name.startswith(DEVICE_CLASS) or name in fresh:
            kept[name] = inventory
        elif used := before.used.get(name):
            kept[name] = Inventory(total=used, reserved=used)
    return kept


def _classes(facts: HostFacts) -> tuple[Wish, ...]:
    """The resource classes of its devices, known to placement from now on."""
    names = dict.fromkeys(device_class(it.vendor_id, it.product_id) for it in facts.devices)
    return tuple(Wish(RESOURCE_CLASSES, name, CreateResourceClass()) for name in names)


def _units(facts: HostFacts) -> Units:
    return units_there(facts.cells, facts.devices, facts.dedicated_cpus)
