"""A cloud over HTTP whose hosts are namespaces with real network agents: from a request to the packets of guests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from agents.network import namespace, netlink, nft, traffic_control
from agents.network.agent import NetworkAgent
from agents.network.assembly import open_driver
from agents.network.fabric import Fabric
from agents.network.link import BrokerNetworkLink
from agents.network.namespace import Namespace, enter
from agents.network.router_rules import TABLE
from agents.network.store import FileStore
from api.network.service import SERVICE
from bus import clock
from bus.cloud import Cloud
from bus.config import Settings
from bus.consumer import Reactions
from bus.execute import Wish
from handlers.network.port import PORTS
from handlers.network.reports import NetworkReports
from handlers.network.routing import RouterReactor
from handlers.network.subnet import SUBNETS
from handlers.network.telling import Telling
from handlers.network.trunking import TrunkReactor
from projections.network.host import NETWORK_HOSTS
from schema.network.port import PORT
from schema.network.port_command import BindPort, CreatePort
from schema.network.port_state import FixedIp
from schema.network.subnet import AllocateAddress
from schema.network.wiring import Address, WiredPort, link_name, tap_name
from tests.network.dhcp_place import apart
from tests.network.hosts import Guest, _plug, run
from tests.network.routed import PROJECT
from tests.network.wiring import ended
from tests.serving import Served, serving


class Steered:
    """`served`: the API. Hosts by name, `h1`, `h2`, …; guests go when it is left."""

    def __init__(self, served: Served, fabric: Fabric, home: Path) -> None:
        self.served = served
        self.home = home
        """Where hosts keep what they keep, as they do on any machine."""
        self.cloud: Cloud = served.cloud
        self.metered = False
        """What comes from guests is limited by meters of the switch."""
        self.fabric = fabric
        self.agents: dict[str, asyncio.Task[None]] = {}
        self._guests: list[Guest] = []
        self._spaces: list[Namespace] = []

    async def lose(self, host: str) -> None:
        """As when its power goes: its agent, and every way to it."""
        await ended(self.agents.pop(host))
        place = self.fabric.place(host)
        for way in ("fabric", "external"):
            await asyncio.to_thread(run, place.namespace or "", "ip", "link", "set", way, "down")

    async def guest(self, network_id: str, subnet_id: str, ip: str, host: str, gateway: str = "") -> SimpleNamespace:
        """A port with that address, on that host, and what is behind it, as of `plugged`."""
        return await self.plugged(await self.port(network_id, subnet_id, ip), host, gateway)

    async def port(self, network_id: str, subnet_id: str, ip: str) -> WiredPort:
        """A port with that address that lets everything pass, on no host."""
        id = clock.uuid4()
        mac = f"fa:16:3e:{id[0:2]}:{id[2:4]}:{id[4:6]}"
        command = CreatePort(
            project_id=PROJECT,
            parent_id=network_id,
            mac_address=mac,
            fixed_ips=(FixedIp(subnet_id=subnet_id, ip_address=ip),),
            port_security_enabled=False,
        )
        await self.cloud.executor.execute(
            Wish(PORTS, id, command), Wish(SUBNETS, subnet_id, AllocateAddress(ip=ip, port_id=id))
        )
        return WiredPort(
            id=id,
            network_id=network_id,
            generation=1,
            tap=tap_name(id),
            mac_address=mac,
            addresses=(Address(ip=ip, subnet_id=subnet_id, prefix_length=24),),
        )

    async def plugged(self, port: WiredPort, host: str, gateway: str = "") -> SimpleNamespace:
        """What is behind a port on that host: `port_id`, `ip`, `mac`, `space`; can `run`, `send`, `pings`."""
        guest = await asyncio.to_thread(self._plug, port, host)
        if gateway:
            guest.run("ip", "route", "add", "default", "via", gateway)
        await self.cloud.executor.execute(Wish(PORTS, port.id, BindPort(host=host)))
        return SimpleNamespace(
            port_id=port.id,
            ip=guest.ip,
            mac=port.mac_address,
            space=self._space(guest.name),
            run=guest.run,
            pings=guest.pings,
            send=guest.send,
            raw=guest.raw,
        )

    def outside(self, ip: str = "172.24.4.1") -> SimpleNamespace:
        """The world beyond the external network."""
        return SimpleNamespace(ip=ip, space=self._space(self.fabric.outside))

    async def active(self, port_id: str) -> bool:
        return bool((await self.cloud.documents.get(PORT, port_id)).state.status == "ACTIVE")

    def rates(self, host: str, port_id: str) -> tuple[int, int]:
        """What a port is held to on its host in kbit/s: (toward the guest, from it); 0: nothing."""
        return self._rates(self.fabric.place(host).namespace or "", port_id)

    def limits_of_router(self, router_id: str) -> int:
        """How many limits its rules have."""
        names = [it for it in namespace.names("") if it.endswith(router_id[:11])]
        return sum(self._limits(name) for name in names)

    def close(self) -> None:
        for space in self._spaces:
            space.close()
        for guest in self._guests:
            namespace.remove(guest.name)

    def _plug(self, port: WiredPort, host: str) -> Guest:
        place = self.fabric.place(host)
        guest = Guest(f"cl-{place.tag}-g{len(self._guests)}", port)
        self._guests.append(guest)
        _plug(place.namespace or "", port, guest.name, 1450)
        guest.settle()
        return guest

    def _space(self, name: str) -> Namespace:
        self._spaces.append(Namespace(name))
        return self._spaces[-1]

    @staticmethod
    @apart
    def _rates(name: str, port_id: str) -> tuple[int, int]:
        with enter(name), netlink.Socket() as kernel:
            names = {index: it for it, index in traffic_control.interfaces(kernel).items()}
            found = {
                names[device]: of[0] * 8 // 1000
                for device, kind, of in traffic_control.buckets(kernel)
                if kind == "tbf"
            }
        return found.get(tap_name(port_id), 0), found.get(f"ifb{port_id[:11]}", 0)

    @staticmethod
    @apart
    def _limits(name: str) -> int:
        with enter(name):
            rules = [it["rule"]["expr"] for it in nft.listed("inet", TABLE) or [] if "rule" in it]
        return sum(1 for rule in rules if any("limit" in part for part in rule))


@asynccontextmanager
async def steered(settings: Settings, dsn: str, *hosts: str, driver: str = "linuxbridge") -> AsyncIterator[Steered]:
    """Everything it made and started is gone afterwards."""
    settings = msgspec.structs.replace(settings, network=msgspec.structs.replace(settings.network, driver=driver))
    fabric = Fabric(settings.home, hosts)
    reports: list[NetworkReports] = []
    reactors: list[Any] = []
    told: dict[str, Any] = {}
    tasks: list[asyncio.Task[None]] = []
    agents: dict[str, asyncio.Task[None]] = {}

    def prepare(cloud: Cloud) -> None:
        telling = Telling(cloud)
        reports.append(NetworkReports(cloud, telling))
        reactors.extend([RouterReactor(cloud), TrunkReactor(cloud)])
        told[NETWORK_HOSTS.name] = telling.nudge

    await asyncio.to_thread(fabric.ensure)
    try:
        async with serving(settings, dsn, [SERVICE], prepare, told) as served:
            cloud = served.cloud
            await cloud.broker.listen(reports[0].on_report)
            reactions = Reactions(cloud.log, cloud.executor, cloud.broker, cloud.checkpoints, reactors)
            tasks += [asyncio.create_task(reactions.run()), asyncio.create_task(reports[0].hosts.listen())]
            drivers = []
            for host in hosts:
                link = BrokerNetworkLink(await cloud.broker.link(link_name(host)))
                drivers.append(await open_driver(settings, host, fabric.place(host)))
                store = FileStore(settings.home / "network" / f"{host}.json")
                lease_seconds = settings.network.lease_seconds
                agent = NetworkAgent(host, drivers[-1], link, store=store, lease_seconds=lease_seconds)
                agents[host] = asyncio.create_task(agent.run())
            it = Steered(served, fabric, settings.home)
            it.agents = agents
            try:
                yield it
            finally:
                await ended(*tasks, *agents.values())
                it.close()
    finally:
        await asyncio.to_thread(fabric.remove)
