"""VPN on a host: in the namespace of each router with IPsec site connections a charon of its own.

    connections ─▶ vici ─▶ charon ─▶ ipsec0, into which the router's routes lead ─▶ ESP in UDP ─▶ peer
    charon ─▶ events ─▶ states ─▶ report

Keys are told over the daemon's socket and are in no file. The daemon outlives the agent: the next one finds it by its
folder, asks what it has loaded, and leaves alone what is as it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agents.network.vpn_gateway import VpnGateway, program
from schema.network.wiring import WiredRouter


def available() -> bool:
    """Whether this host can do it."""
    return program() is not None and Path("/dev/net/tun").exists()


class Tunnels:
    """Of all routers of a host, by their namespaces' names. `folder` is the host's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._gateways: dict[str, VpnGateway] = {}

    async def keep(self, namespace: str, router: WiredRouter, on_change: Callable[[], None]) -> bool:
        """Have its connections; whether the router is to be looked at again, for its tunnel is new. Raises nothing."""
        if not router.connections or router.gateway is None:
            await self.leave(namespace)
            return False
        gateway = self._gateways.get(namespace)
        if gateway is None:
            gateway = self._gateways[namespace] = VpnGateway(namespace, self._folder / namespace)
        return await gateway.keep(router, on_change)

    async def leave(self, namespace: str) -> None:
        """No connections any more, and nothing left of them."""
        gateway = self._gateways.pop(namespace, None)
        folder = self._folder / namespace
        if gateway or folder.exists():
            await (gateway or VpnGateway(namespace, folder)).end()

    async def states(self, namespace: str, router: WiredRouter) -> dict[str, str]:
        """Connection → Neutron's status."""
        gateway = self._gateways.get(namespace)
        if gateway is None:
            return {it.id: "ERROR" if it.admin_up else "DOWN" for it in router.connections}
        return await gateway.states(router)

    def close(self) -> None:
        """Tunnels go on without the agent."""
        for gateway in self._gateways.values():
            gateway.let_go()
        self._gateways.clear()
