"""All parts of a host's networking as one driver, in the order that keeps guests safe.

    firewall ─▶ switch ─┬─▶ shaping
                        ├─▶ DHCP, with metadata
                        └─▶ routers

A port's rules are there before its tap: while they cannot be made, neither is the tap. What does not wait for another
is done at the same time. What one part cannot do is told of its piece, and keeps no other part from its work.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from agents.network import vpn
from agents.network.dhcp import Dhcp
from agents.network.driver import AskInstance, Component, Faults, NetworkDriver, Touched
from agents.network.fabric import HostPlace
from agents.network.firewall import Firewall
from agents.network.linux_bridge import LinuxBridge
from agents.network.metadata import Metadata
from agents.network.namespace import Namespace
from agents.network.ovs.switch import OvsSwitch
from agents.network.routers import Routers
from agents.network.shaping import Shaping
from agents.network.switch import Switch
from agents.network.vpn import Tunnels
from agents.network.world import World
from bus.config import Settings
from schema.compute.domain import Seed
from schema.network.wiring import NetworkHostFacts, RouterSeen, WiredPort

T = TypeVar("T")


class Watchful(Component, Protocol):
    """A part that notices by itself what others do to it."""

    async def start(self, on_change: Callable[[], None]) -> None: ...


class RouterHolder(Watchful, Protocol):
    """The part that holds routers."""

    async def routers(self) -> Mapping[str, RouterSeen]: ...

    async def fence(self) -> None: ...


async def open_driver(settings: Settings, host: str, place: HostPlace) -> NetworkDriver:
    """A host's driver. Nothing is looked at or touched before `start`."""
    folder = settings.home / "network" / host
    inside = Namespace(place.namespace)
    way: dict[str, Any] = {"fabric": place.fabric, "interfaces": place.interfaces}
    ovs = settings.network.driver == "ovs"
    switch: Switch = OvsSwitch(inside, folder / "ovs", **way) if ovs else LinuxBridge(inside, **way)
    metadata = Metadata()
    return Assembly(
        inside,
        firewall=None if ovs else Firewall(inside, switch.bridge_of),
        switch=switch,
        shaping=Shaping(inside, both_ways=not ovs),
        metadata=metadata,
        dhcp=Dhcp(inside, place.tag, switch, folder / "dhcp", metadata=metadata),
        routers=Routers(place.tag, switch, metadata=metadata, tunnels=Tunnels(folder / "vpn")),
    )


class Assembly:
    """A NetworkDriver. Closing it leaves everything wired."""

    def __init__(
        self,
        inside: Namespace,
        *,
        firewall: Watchful | None,
        switch: Switch,
        shaping: Component,
        metadata: Metadata,
        dhcp: Component,
        routers: RouterHolder,
    ) -> None:
        """`firewall`: None, the switch protects ports itself."""
        self._inside = inside
        self._firewall = firewall
        self._switch = switch
        self._metadata = metadata
        self._routers = routers
        self._shaping = shaping
        self._dhcp = dhcp
        self._withheld: frozenset[str] = frozenset()
        """Keys of the ports that have no tap yet, for they have no rules."""

    async def start(self, on_change: Callable[[], None], ask: AskInstance) -> None:
        self._metadata.start(ask)
        for part in (self._firewall, self._switch, self._routers):
            if part:
                await part.start(on_change)

    async def facts(self) -> NetworkHostFacts:
        facts = await self._switch.facts()
        return replace(facts, capabilities=(*facts.capabilities, "vpn")) if vpn.available() else facts

    async def apply(self, world: World, touched: Touched) -> Faults:
        protecting = await self._firewall.apply(world, touched) if self._firewall else {}
        waiting, self._withheld = self._withheld, await self._unprotected(world, protecting)
        if touched is not None:
            touched |= waiting
        safe = _without(world, self._withheld)
        wiring = await self._switch.apply(safe, touched)
        await self._metadata.apply(safe, touched)
        rest = await _all(*(part.apply(safe, touched) for part in (self._shaping, self._dhcp, self._routers)))
        return merged([protecting, wiring, *rest])

    async def routers(self) -> Mapping[str, RouterSeen]:
        return await self._routers.routers()

    async def fence(self) -> None:
        await self._routers.fence()

    def instance(self, port_id: str, server_id: str, seed: Seed | None) -> None:
        self._metadata.instance(port_id, server_id, seed)

    async def close(self) -> None:
        parts = (self._routers, self._dhcp, self._shaping, self._switch, self._firewall)
        await _all(*(part.close() for part in parts if part))
        await self._metadata.close()
        self._inside.close()

    async def _unprotected(self, world: World, faults: Faults) -> frozenset[str]:
        """Keys of the ports that have no rules yet, and no tap. Whoever has a tap keeps it."""
        doubtful = [port for port in world.ports.values() if _is_blamed(port, faults)] if faults else []
        there = await self._inside.run(_interfaces) if doubtful else set()
        return frozenset(f"port/{port.id}" for port in doubtful if port.tap not in there)


def merged(of: Iterable[Faults]) -> Faults:
    """Of a piece that several parts complain of, everything they say."""
    found: Faults = {}
    for faults in of:
        for key, text in faults.items():
            said = found.setdefault(key, text)
            if text not in said:
                found[key] = f"{said}; {text}"
    return found


def _is_blamed(port: WiredPort, faults: Faults) -> bool:
    return f"port/{port.id}" in faults or any(f"group/{id}" in faults for id in port.group_ids)


def _without(world: World, keys: frozenset[str]) -> World:
    if not keys:
        return world
    pieces = {key: piece for key, piece in world.pieces.items() if key not in keys}
    return World(pieces, endpoint_ip=world.endpoint_ip)


def _interfaces() -> set[str]:
    """In the namespace of this thread."""
    return {name for _, name in socket.if_nameindex()}


async def _all(*works: Awaitable[T]) -> list[T]:
    """Everything is done to its end; then what failed is raised."""
    results = await asyncio.gather(*works, return_exceptions=True)
    done = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
