"""A small cloud for the scheduler's stories: hosts and providers as mirrors would tell of them."""

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from bus.config import Scheduler as Settings
from bus.log import Document
from handlers.placement.answer import Placement
from handlers.placement.capacity import CapacityIndex
from handlers.placement.demand import Request
from handlers.placement.schedule import Scheduler
from handlers.placement.weighers import image_count
from schema.compute.aggregate import Aggregate
from schema.compute.domain import HostFacts
from schema.compute.host import Host
from schema.compute.topology import units_there
from schema.network.host import NetworkHost
from schema.network.wiring import NetworkHostFacts
from schema.placement.provider import PROVIDER, Inventory, Provider, ResourcesClaimed

BORN = datetime(2030, 1, 1, tzinfo=UTC)
SMALL = {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}


class Cloud:
    """Hosts and providers as mirrors would tell of them, and a scheduler that listens."""

    def __init__(self, settings=None, **more):
        settings = replace(settings or Settings(), **more)
        self.index = CapacityIndex(image_count(settings))
        self.scheduler = Scheduler(self.index, settings)
        self.providers = {}
        self.hosts = {}
        self.aggregates = {}
        self.network_hosts = {}

    def host(self, name, *, vcpus=4, memory_mb=4096, disk_gb=100, traits=(), inventories=None, facts=None, **fields):
        inventories = inventories or {
            "VCPU": Inventory(total=vcpus),
            "MEMORY_MB": Inventory(total=memory_mb),
            "DISK_GB": Inventory(total=disk_gb),
        }
        facts = facts or HostFacts(hypervisor_type="QEMU", arch="x86_64", cpu_info={"vendor": "Intel"})
        units = units_there(facts.cells, facts.devices, facts.dedicated_cpus)
        made = Provider(id=f"p-{name}", created_at=BORN, name=name, inventories=inventories, traits=traits, units=units)
        self.provider(made)
        self.change(Host(id=name, created_at=BORN, provider_id=f"p-{name}", facts=facts, up=True, **fields))

    def provider(self, provider):
        before = self.providers.get(provider.id)
        self.providers[provider.id] = Document(f"provider/{provider.id}", 1, provider)
        self.index.provider_changed(before, self.providers[provider.id])

    def change(self, host):
        before = self.hosts.get(host.id)
        self.hosts[host.id] = Document(f"host/{host.id}", 1, host)
        self.index.host_changed(before, self.hosts[host.id])

    def network_host(self, name, *physical_networks):
        facts = NetworkHostFacts(physical_networks=physical_networks)
        before = self.network_hosts.get(name)
        made = NetworkHost(id=name, created_at=BORN, facts=facts, up=True)
        self.network_hosts[name] = Document(f"network-host/{name}", 1, made)
        self.index.network_host_changed(before, self.network_hosts[name])

    def happens(self, host, event):
        self.provider(PROVIDER.fold(self.providers[f"p-{host}"].state, event, BORN + timedelta(hours=1)))

    def claimed(self, host, consumer, resources=None, units=None):
        self.happens(host, ResourcesClaimed(consumer_id=consumer, resources=resources or SMALL, units=units))

    def aggregate(self, name, hosts, metadata=None, **more):
        aggregate = Aggregate(id=name, created_at=BORN, name=name, hosts=hosts, metadata={**(metadata or {}), **more})
        before = self.aggregates.get(name)
        self.aggregates[name] = Document(f"aggregate/{name}", 1, aggregate)
        self.index.aggregate_changed(before, self.aggregates[name])

    def ask(self, *requests):
        return self.scheduler.place(requests)

    def where(self, consumer="c", **fields):
        [answer] = self.ask(server(consumer, **fields))
        return answer.host if isinstance(answer, Placement) else None


def server(consumer, **fields):
    return Request(consumer_id=consumer, **{"resources": SMALL, **fields})


def cloud_of(*names, settings=None, **fields):
    cloud = Cloud(settings)
    for name in names:
        cloud.host(name, **fields)
    return cloud
