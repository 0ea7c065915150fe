"""DHCP, DNS and router advertisements on a host: for each network with ports here a namespace with a dnsmasq in it.

    port ─▶ files of hosts, options, names ─▶ dnsmasq (inotify) ─▶ the guest's lease
    network, subnets ─▶ namespace, foot, addresses, configuration ─▶ dnsmasq (another process, if they change)

Every host serves its own ports at the network's one DHCP port, whose MAC and addresses are the same everywhere, and
knows everybody's names. The processes outlive the agent: the next one finds them by their pid files.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import structlog

from agents.network import namespace
from agents.network.advertising import Advertiser
from agents.network.dhcp_network import DhcpNetwork, Wanted
from agents.network.dnsmasq import served
from agents.network.driver import Faults, Touched
from agents.network.namespace import Namespace
from agents.network.switch import Switch
from agents.network.world import World

log = structlog.get_logger()

AT_ONCE = 4
"""Networks that are worked on at the same time."""


class Serving(Protocol):
    """Serves metadata in a namespace; agents/network/metadata.py."""

    async def serve(self, name: str, network_ids: Iterable[str], *, interface: str = "") -> None: ...

    async def leave(self, name: str) -> None: ...


class Dhcp:
    """A Component. `folder` is this host's own, and stays from one agent to the next."""

    def __init__(
        self, inside: Namespace, tag: str, switch: Switch, folder: Path, *, metadata: Serving | None = None
    ) -> None:
        self.inside = inside
        self._tag = tag
        self._switch = switch
        self._folder = folder
        self._metadata = metadata
        self._advertiser = Advertiser()
        self._networks: dict[str, DhcpNetwork] = {}
        self._network_of: dict[str, str] = {}
        """Key of a port, peer or router → the networks it was in last, spaces between."""
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._lock = asyncio.Lock()

    async def apply(self, world: World, touched: Touched) -> Faults:
        async with self._lock:
            keys = self._keys_by_network(world, touched)
            if touched is None:
                ids = set(world.networks) | set(self._networks)
                keys = dict.fromkeys(ids)
                if world.pieces:  # an agent that was told nothing yet knows of no leftovers
                    keys |= dict.fromkeys(self._left_behind(), None)
            results = await asyncio.gather(*(self._bring(world, id, of) for id, of in keys.items()))
        return {key: text for faults in results for key, text in faults.items()}

    async def close(self) -> None:
        """dnsmasq goes on; advertisements pause until the next agent."""
        self._advertiser.close()

    def namespace_of(self, network_id: str) -> str:
        return f"cl-{self._tag}-d-{network_id[:11]}"

    async def _bring(self, world: World, network_id: str, keys: frozenset[str] | None) -> Faults:
        """What of a network was touched; None: look at everything."""
        async with self._at_once:
            fault_key = f"network/{network_id}"
            try:
                wanted = self._wanted(world, network_id)
                if wanted is None:
                    await self._end(network_id)
                    return {}
                there = self._networks.get(network_id)
                if there is None:
                    there = self._networks[network_id] = DhcpNetwork(
                        self.namespace_of(network_id), self._folder / network_id, self._switch, self._advertiser
                    )
                    keys = None
                faults = await there.apply(wanted, world, keys)
                if self._metadata and there.interface:
                    await self._metadata.serve(there.namespace, {network_id}, interface=there.interface)
                return {fault_key: faults} if faults else {}
            except Exception as error:
                self._networks.pop(network_id, None)  # the next look takes nothing for granted
                if not isinstance(error, OSError):
                    log.exception("a network's DHCP failed", network=network_id)
                return {fault_key: f"DHCP: {error}"}

    def _wanted(self, world: World, network_id: str) -> Wanted | None:
        network = world.networks.get(network_id)
        ports = world.ports_of.get(network_id)
        if network is None or not ports or not network.dhcp_port_id or not served(network):
            return None
        return Wanted(network, ports, world.peers_of.get(network_id, []), _router_ips(world, network_id))

    async def _end(self, network_id: str) -> None:
        there = self._networks.pop(network_id, None)
        name, folder = self.namespace_of(network_id), self._folder / network_id
        if there is None and not folder.exists() and not namespace.exists(name):
            return
        if self._metadata:
            await self._metadata.leave(name)
        await (there or DhcpNetwork(name, folder, self._switch, self._advertiser)).end()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _left_behind(self) -> Iterable[str]:
        """Networks that an agent before this one served."""
        return [it.name for it in self._folder.iterdir() if it.is_dir()] if self._folder.is_dir() else []

    def _keys_by_network(self, world: World, touched: Touched) -> dict[str, frozenset[str] | None]:
        """Which of what was touched is of which network; where it was before counts as well. None: only noted."""
        found: dict[str, set[str]] = {}
        if touched is None:
            self._network_of = {key: " ".join(now) for key in world.pieces if (now := _networks_of(world, key))}
            return {}
        for key in touched:
            now = _networks_of(world, key)
            before = self._network_of.get(key, "").split()
            if now:
                self._network_of[key] = " ".join(now)
            else:
                self._network_of.pop(key, None)
            for id in {*now, *before}:
                found.setdefault(id, set()).add(key)
        return {id: frozenset(keys) for id, keys in found.items()}


def _networks_of(world: World, key: str) -> list[str]:
    what, _, id = key.partition("/")
    match what:
        case "network":
            return [id]
        case "port":
            return [world.ports[id].network_id] if id in world.ports else []
        case "peer":
            return [world.peers[id].network_id] if id in world.peers else []
        case "router":
            return [port.network_id for port in world.routers[id].ports] if id in world.routers else []
    return []


def _router_ips(world: World, network_id: str) -> frozenset[str]:
    """Addresses in a network that a router may have: of routers here, and of what is elsewhere."""
    here = {
        address.ip
        for router in world.routers.values()
        for port in router.ports
        if port.network_id == network_id
        for address in port.addresses
    }
    return frozenset(here | {ip for peer in world.peers_of.get(network_id, []) for ip in peer.ips})
