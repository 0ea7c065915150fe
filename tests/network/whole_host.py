"""Hosts as they are in a cloud, agent, firewall, DHCP and all, told by a test what a control plane would tell them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agents.network.agent import NetworkAgent
from agents.network.assembly import open_driver
from agents.network.fabric import HostPlace
from agents.network.store import FileStore
from bus.config import Networking, Settings
from schema.compute.domain import Lease
from schema.network.wiring import (
    Address,
    FromNetworkHost,
    InstanceData,
    InstanceDataWanted,
    NetworkHeartbeat,
    Piece,
    PortSeen,
    ToNetworkHost,
    WiredGroup,
    WiredNetwork,
    WiredPort,
    WiredRule,
    WiredSubnet,
    Wiring,
    WiringReport,
)
from tests.network.hosts import Fabric, Host, network, port

SWEEP_SECONDS = 2.0
FOUR = WiredSubnet(id="four", cidr="10.0.0.0/16", ip_version=4)
SIX = WiredSubnet(id="six", cidr="fd00::/64", ip_version=6, ipv6_address_mode="dhcpv6-stateful")
OPEN = WiredGroup(
    id="open",
    rules=tuple(
        WiredRule(id=f"{direction} {family}", direction=direction, ethertype=family)
        for direction in ("ingress", "egress")
        for family in ("IPv4", "IPv6")
    ),
)
CLOSED = WiredGroup(id="closed", rules=tuple(rule for rule in OPEN.rules if rule.direction == "egress"))


@dataclass
class Control:
    """A host's end of the bus, with who would be at the other end."""

    pieces: dict[str, Piece] = field(default_factory=dict)
    position: int = 0
    away: bool = False
    """It hears nothing and says nothing."""
    ports: dict[str, PortSeen] = field(default_factory=dict)
    """The last word on each."""
    seeds: dict[str, InstanceData] = field(default_factory=dict)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    words: asyncio.Queue[ToNetworkHost] = field(default_factory=asyncio.Queue)

    async def inbox(self) -> AsyncIterator[ToNetworkHost]:
        while True:
            yield await self.words.get()

    async def report(self, message: FromNetworkHost) -> None:
        if self.away:
            return
        match message:
            case NetworkHeartbeat():
                self.words.put_nowait(Lease(epoch=1, beat=message.beat))
                if message.position < self.position:
                    self.words.put_nowait(Wiring(epoch=1, position=self.position, full=True, pieces=dict(self.pieces)))
            case WiringReport():
                self.ports |= {it.port_id: it for it in message.ports}
                self.heard.set()
            case InstanceDataWanted():
                self.words.put_nowait(self.seeds.get(message.port_id, InstanceData(port_id=message.port_id)))

    async def close(self) -> None:
        """Nothing to let go of."""

    def tell(self, pieces: dict[str, Piece], *gone: str) -> None:
        since, self.position = self.position, self.position + 1
        self.pieces = {key: it for key, it in (self.pieces | pieces).items() if key not in gone}
        self.words.put_nowait(Wiring(epoch=1, position=self.position, since=since, pieces=pieces, gone=gone))

    async def up(self, *port_ids: str, seconds: float = 10.0) -> None:
        """Until the agent says that they are in place."""
        async with asyncio.timeout(seconds):
            while not all(self._is_up(id) for id in port_ids):
                self.heard.clear()
                await self.heard.wait()

    def _is_up(self, port_id: str) -> bool:
        seen, piece = self.ports.get(port_id), self.pieces[f"port/{port_id}"]
        return seen is not None and seen.up and seen.generation == getattr(piece, "generation", 0)


class WholeHost:
    """One host with its agent."""

    def __init__(self, host: Host, settings: Settings) -> None:
        self.host, self.control = host, Control()
        self.ovs = settings.network.driver == "ovs"
        self._settings = settings
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        place = HostPlace(
            tag=self.host.name[3:],
            namespace=self.host.name,
            fabric="fabric",
            interfaces={"external": "external"},
        )
        agent = NetworkAgent(
            self.host.name,
            await open_driver(self._settings, self.host.name, place),
            self.control,
            store=FileStore(self._settings.home / "network" / f"{self.host.name}.json"),
            sweep_seconds=SWEEP_SECONDS,
        )
        self._running = asyncio.create_task(agent.run())

    @property
    def folder(self) -> Path:
        """Where its agent keeps what outlives it."""
        return self._settings.home / "network" / self.host.name

    @property
    def database(self) -> str:
        """Of its Open vSwitch, as ovs-vsctl wants to hear it."""
        return f"--db=unix:{self.folder}/ovs/db.sock"

    async def stop(self) -> None:
        """As when its process ends: all it made stays."""
        if self._running:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    def has(self, *pieces: Piece) -> None:
        """Told to the agent."""
        keys = self.host.has(*pieces)
        self.control.tell({key: self.host.pieces[key] for key in keys})

    def lacks(self, *keys: str) -> None:
        self.control.tell({}, *self.host.lacks(*keys))


@asynccontextmanager
async def whole_hosts(
    folder: Path, count: int = 2, *, driver: Literal["linuxbridge", "ovs"] = "linuxbridge"
) -> AsyncIterator[list[WholeHost]]:
    settings = Settings(home=folder, host_name="h", hypervisor="none", network=Networking(driver=driver))
    with Fabric() as fabric:
        hosts = [WholeHost(fabric.host(), settings) for _ in range(count)]
        try:
            for host in hosts:
                await host.start()
            yield hosts
        finally:
            for host in hosts:
                await host.stop()
            await asyncio.to_thread(fabric.end_all)


def served(number: int = 1) -> WiredNetwork:
    return network(
        number,
        subnets=(FOUR, SIX),
        dhcp_port_id=f"{number:08x}-d000-4000-8000-000000000000",
        dhcp_mac=f"fa:16:3e:{number:02x}:ff:02",
        dhcp_addresses=(
            Address(ip="10.0.255.2", subnet_id="four", prefix_length=16),
            Address(ip="fd00::ffff:2", subnet_id="six", prefix_length=64),
        ),
    )


def guarded(of: WiredNetwork, number: int, **more: Any) -> WiredPort:
    fields: dict[str, Any] = {"group_ids": ("open",), "device_owner": "compute:nova", "device_id": f"server-{number}"}
    return port(of, number, **(fields | more))
