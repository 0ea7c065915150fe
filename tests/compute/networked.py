"""Servers with networks for tests: the compute API, simulated hosts with network agents, and networks to be in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from api.compute.service import SERVICE as COMPUTE
from bus import clock
from bus.config import Settings
from bus.documents import Where
from bus.execute import Wish
from handlers.compute.flavor import FLAVORS
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from handlers.network.quota import NETWORK_QUOTAS
from handlers.network.security_group import SECURITY_GROUPS
from handlers.network.subnet import SUBNETS
from projections import projections
from projections.network.host import NETWORK_HOSTS
from schema.compute.flavor import CreateFlavor
from schema.network.floating_ip import FLOATING_IP
from schema.network.network import AddNetworkSubnet, CreateNetwork, Segment
from schema.network.port import PORT
from schema.network.port_command import CreatePort
from schema.network.port_state import FixedIp, Port
from schema.network.quota import NETWORK_USAGE, SetNetworkQuotaLimits, usage_id
from schema.network.security_group import CreateSecurityGroup
from schema.network.subnet import SUBNET, AllocateAddress, CreateSubnet, Pool
from tests.compute.steering import Steered
from tests.compute.world import IMAGE, PROJECT, World
from tests.serving import Served, serving


class Networked(World):
    """A world whose servers are plugged into networks."""

    def __init__(self, served: Served, steered: Steered) -> None:
        super().__init__(served, steered)
        self.networks = 0

    async def network(self, name: str = "blue", *, size: int = 100, project: str = PROJECT, **fields: Any) -> str:
        """A network with an IPv4 subnet of so many addresses to give; without one for 0. Its id."""
        self.networks += 1
        id, subnet_id, number = clock.uuid4(), clock.uuid4(), self.networks
        segment = Segment(id=clock.uuid4(), network_type="vxlan", segmentation_id=number)
        wishes = [Wish(NETWORKS, id, CreateNetwork(name=name, project_id=project, segments=(segment,), **fields))]
        if size:
            pool = Pool(start=f"10.{number}.0.2", end=f"10.{number}.0.{size + 1}")
            subnet = CreateSubnet(
                project_id=project,
                parent_id=id,
                cidr=f"10.{number}.0.0/24",
                gateway_ip=f"10.{number}.0.1",
                pools=(pool,),
                dns_nameservers=("192.0.2.53",),
            )
            wishes += [Wish(SUBNETS, subnet_id, subnet), Wish(NETWORKS, id, AddNetworkSubnet(subnet_id=subnet_id))]
        await self.cloud.executor.execute(*wishes)
        return id

    async def port(self, network_id: str, ip: str = "", project: str = PROJECT, **fields: Any) -> str:
        """Somebody's port in a network. Its id."""
        id = clock.uuid4()
        [subnet] = await self.cloud.documents.find(SUBNET, where=[Where("parent_id", "=", network_id)])
        fixed = (FixedIp(subnet_id=subnet.id, ip_address=ip),) if ip else ()
        mac = "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in clock.random_bytes(3))
        port = CreatePort(project_id=project, parent_id=network_id, mac_address=mac, fixed_ips=fixed, **fields)
        taking = [Wish(SUBNETS, subnet.id, AllocateAddress(ip=ip, port_id=id))] if ip else []
        await self.cloud.executor.execute(Wish(PORTS, id, port), *taking)
        return id

    async def group(self, name: str, project: str = PROJECT) -> str:
        id = clock.uuid4()
        await self.cloud.executor.execute(Wish(SECURITY_GROUPS, id, CreateSecurityGroup(name=name, project_id=project)))
        return id

    async def ports(self, **where: str) -> list[Port]:
        """The ports there are, with these fields."""
        found = await self.cloud.documents.find(PORT, where=[Where(name, "=", value) for name, value in where.items()])
        return [document.state for document in found]

    async def limit_ports(self, limit: int) -> None:
        await self.cloud.executor.execute(Wish(NETWORK_QUOTAS, PROJECT, SetNetworkQuotaLimits(limits={"port": limit})))

    async def ports_counted(self) -> int:
        found = await self.cloud.documents.get_many(NETWORK_USAGE, [usage_id(PROJECT, "port")])
        return sum(document.state.used for document in found.values())

    async def nothing_left(self) -> bool:
        """No port, no address held, no quota counted, no floating IP that leads anywhere."""
        held = [it.id for it in await self.cloud.documents.find(SUBNET) if it.state.taken]
        leading = [it.id for it in await self.cloud.documents.find(FLOATING_IP) if it.state.port_id]
        return not (await self.ports() or held or leading or await self.ports_counted())


@asynccontextmanager
async def networked(settings: Settings, dsn: str, services: Any = (COMPUTE,)) -> AsyncIterator[Networked]:
    """A compute API with two hosts that have networks, a flavor `1` and an image."""
    projections()
    steering: list[Steered] = []
    told: dict[str, Any] = {}

    def prepare(cloud: Any) -> None:
        steering.append(Steered(cloud, networked=True))
        told[NETWORK_HOSTS.name] = steering[0].nudge

    async with serving(settings, dsn, list(services), prepare, told) as served, steering[0] as steered:
        it = Networked(served, steered)
        await steered.host("h1")
        await steered.host("h2")
        await it.image(IMAGE)
        small = CreateFlavor(name="small", vcpus=1, ram_mb=512, disk_gb=1)
        await served.cloud.executor.execute(Wish(FLAVORS, "1", small))
        yield it
