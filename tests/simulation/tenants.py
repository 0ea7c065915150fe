"""What the users of a simulated world do with networks: lay them out, make and delete ports, give out floating IPs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from bus import clock
from bus.cloud import Cloud
from bus.execute import Wish
from handlers.network.addressing import Picks, Wanted, mac_address, making, with_addresses
from handlers.network.floating_ip import FLOATING_IPS
from handlers.network.joining import GatewayWanted, gateway, join_subnet
from handlers.network.leading import associating, disassociating, inner_address, router_between
from handlers.network.network import NETWORKS
from handlers.network.plugging import PortWanted, planned, removing
from handlers.network.replugging import PortChange, changing
from handlers.network.router import ROUTERS
from handlers.network.subnet import SUBNETS
from schema.network.floating_ip import FLOATING_IP, CreateFloatingIp, FloatingIp
from schema.network.network import AddNetworkSubnet, CreateNetwork, Segment
from schema.network.port import PORT
from schema.network.port_command import CreatePort
from schema.network.port_state import Port
from schema.network.router import ROUTER, CreateRouter, Router, SetRouterGateway
from schema.network.subnet import SUBNET, CreateSubnet, Pool, Subnet
from tests.simulation.cards import Cards
from tests.simulation.groups import Groups
from tests.simulation.now import now
from tests.simulation.trunks import Trunks

if TYPE_CHECKING:
    from tests.simulation.world import World

NETWORKS_AT_MOST = 3
ROUTER_ID = "router-1"
OUTSIDE = "net-outside"


class Tenants:
    """Everything here is the project's own. Subnets are small, so that addresses run out."""

    def __init__(self, world: World, project: str) -> None:
        self._world = world
        self._random: Random = world.random
        self._project = project
        self.network_ids = [f"net-{n}" for n in range(self._random.randint(1, NETWORKS_AT_MOST))]
        self.ports: list[str] = []
        """Made by hand, and not (yet) a server's."""
        self.floating: list[str] = []
        self.cards = Cards(world, project, self.network_ids)
        self.groups = Groups(world, project)
        self.trunks = Trunks(world, project)

    async def begin(self, cloud: Cloud) -> None:
        """Networks, and a router that joins them and leads out. Done again, it changes nothing."""
        await self._network(cloud, OUTSIDE, "203.0.113", external=True)
        for number, id in enumerate(self.network_ids):
            await self._network(cloud, id, f"10.0.{number}")
        await cloud.executor.execute(Wish(ROUTERS, ROUTER_ID, CreateRouter(name="r", project_id=self._project)))
        for id in self.network_ids:
            await with_addresses(cloud, lambda picks, id=id: self._join(cloud, picks, id))  # type: ignore[misc]
        await with_addresses(cloud, lambda picks: self._lead_out(cloud, picks))

    async def act(self, cloud: Cloud) -> None:
        """Something somebody may do. May be refused."""
        acts: dict[Callable[[Cloud], Coroutine[Any, Any, None]], float] = {
            self._make_port: 4,
            self._change_port: 3,
            self._delete_port: 1,
            self._delete_any_port: 1,
            self._give: 1,
            self._take: 1,
            self._make_floating: 1,
            self.groups.make: 1,
            self.groups.change: 0.7,
            self.groups.delete: 1,
            self.trunks.make: 2,
            self.trunks.change: 1,
            self.cards.attach: 2,
            self.cards.detach: 1,
        }
        [act] = self._random.choices(list(acts), list(acts.values()))
        await act(cloud)

    # Networks

    async def _network(self, cloud: Cloud, id: str, prefix: str, *, external: bool = False) -> None:
        segment = Segment(id=f"seg-{id}", segmentation_id=100 + len(id) + int(prefix.rpartition(".")[2]))
        network = CreateNetwork(
            name=id, project_id=self._project, segments=(segment,), external_for=("*",) if external else ()
        )
        subnet = CreateSubnet(
            name=id,
            project_id=self._project,
            parent_id=id,
            cidr=f"{prefix}.0/28",
            gateway_ip=f"{prefix}.1",
            pools=(Pool(start=f"{prefix}.2", end=f"{prefix}.14"),),
        )
        await cloud.executor.execute(
            Wish(NETWORKS, id, network),
            Wish(SUBNETS, f"sub-{id}", subnet),
            Wish(NETWORKS, id, AddNetworkSubnet(subnet_id=f"sub-{id}")),
        )

    async def _join(self, cloud: Cloud, picks: Picks, network_id: str) -> None:
        router = await self._router(cloud)
        subnet: Subnet = await now(cloud, SUBNET, f"sub-{network_id}")
        if router.in_subnet(subnet.id) is None:
            await cloud.executor.execute(*(await join_subnet(cloud, picks, router, subnet)).wishes)

    async def _lead_out(self, cloud: Cloud, picks: Picks) -> None:
        router = await self._router(cloud)
        if router.gateway is None:
            way, wishes = await gateway(cloud, picks, ROUTER_ID, None, GatewayWanted(network_id=OUTSIDE))
            setting = SetRouterGateway(gateway=way, expected=router.changes)
            await cloud.executor.execute(Wish(ROUTERS, ROUTER_ID, setting), *wishes)

    async def _router(self, cloud: Cloud) -> Router:
        router: Router = await now(cloud, ROUTER, ROUTER_ID)
        return router

    # Ports

    async def _make_port(self, cloud: Cloud) -> None:
        id = clock.uuid4()
        wanted = PortWanted(network_id=self._random.choice(self.network_ids), project_id=self._project, id=id)

        async def attempt(picks: Picks) -> None:
            [port] = await planned(cloud, picks, [wanted])
            await cloud.executor.execute(*port.wishes)

        self.ports.append(id)
        await with_addresses(cloud, attempt)

    async def _change_port(self, cloud: Cloud) -> None:
        """Other addresses, other groups, off or on again; a server's, too."""
        ids = sorted(
            id
            for id, port in self._world.states(Port).items()
            if port.living and not port.device_owner.startswith("network:")
        )
        if not ids:
            return
        id, random = self._random.choice(ids), self._random
        groups = [group.id for group in self.groups.living()]
        fields: dict[str, Any] = {}
        if random.random() < 0.4:
            fields["security_group_ids"] = tuple(random.sample(groups, min(len(groups), random.randint(0, 2))))
        if random.random() < 0.3:
            fields["admin_state_up"] = random.random() < 0.6
        wanted = random.choice([UNSET, UNSET, 0, 1, 2, 3])

        async def attempt(picks: Picks) -> None:
            port: Port = await now(cloud, PORT, id)
            subnet = f"sub-{port.network_id}"
            fixed_ips = UNSET if wanted is UNSET else [Wanted(subnet_id=subnet)] * wanted  # type: ignore[operator]
            change = PortChange(fields=fields, fixed_ips=fixed_ips)
            await cloud.executor.execute(*await changing(cloud, picks, port, change))

        await with_addresses(cloud, attempt)

    async def _delete_port(self, cloud: Cloud) -> None:
        if self.ports:
            await self._delete(cloud, self.ports.pop(self._random.randrange(len(self.ports))))

    async def _delete_any_port(self, cloud: Cloud) -> None:
        """A server's, too: its card comes out."""
        states = (it.state for it in self._world.log.documents.values() if isinstance(it.state, Port))
        ids = sorted(it.id for it in states if it.living and it.device_owner.startswith("compute:"))
        if ids:
            await self._delete(cloud, self._random.choice(ids))

    async def _delete(self, cloud: Cloud, id: str) -> None:
        port: Port = await now(cloud, PORT, id)
        await cloud.executor.execute(*await removing(cloud, [port]))

    # Floating IPs

    async def _make_floating(self, cloud: Cloud) -> None:
        id, port_id = clock.uuid4(), clock.uuid4()

        async def attempt(picks: Picks) -> None:
            chosen = await picks.choose(OUTSIDE, [Wanted(subnet_id=f"sub-{OUTSIDE}")], "network:floatingip")
            [outer] = chosen.fixed_ips
            command = CreateFloatingIp(
                project_id=self._project,
                parent_id=OUTSIDE,
                floating_ip_address=outer.ip_address,
                outer_port_id=port_id,
                subnet_id=outer.subnet_id,
            )
            port = CreatePort(
                parent_id=OUTSIDE,
                mac_address=mac_address(),
                fixed_ips=(outer,),
                device_id=id,
                device_owner="network:floatingip",
                port_security_enabled=False,
                made_by=id,
            )
            await cloud.executor.execute(Wish(FLOATING_IPS, id, command), *making(port, port_id))

        self.floating.append(id)
        await with_addresses(cloud, attempt)

    async def _give(self, cloud: Cloud) -> None:
        """To some port of a server."""
        states = (it.state for it in self._world.log.documents.values() if isinstance(it.state, Port))
        ids = sorted(it.id for it in states if it.living and it.fixed_ips and it.device_owner.startswith("compute:"))
        if not ids or not self.floating:
            return
        port: Port = await now(cloud, PORT, self._random.choice(ids))
        floating: FloatingIp = await now(cloud, FLOATING_IP, self._random.choice(self.floating))
        fixed = inner_address(port, None)
        router = await router_between(cloud, OUTSIDE, fixed, port.id)
        await cloud.executor.execute(*associating(floating, port, fixed, router))

    async def _take(self, cloud: Cloud) -> None:
        if self.floating:
            floating: FloatingIp = await now(cloud, FLOATING_IP, self._random.choice(self.floating))
            if floating.port_id:
                await cloud.executor.execute(*disassociating(floating))
