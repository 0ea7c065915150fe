"""A network driver that holds its host's pieces in memory: for tests, and for clouds of hosts that are only played."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping

from agents.network.driver import AskInstance, Faults, Touched
from agents.network.world import World
from schema.compute.domain import Seed
from schema.network.wiring import NetworkHostFacts, RouterSeen

KEPT = 20
"""Of what a driver was told had changed."""


class SimulatedNetwork:
    """Everything is in place at once, or after `delay_seconds`, but for what `faults` says of it by key."""

    def __init__(
        self,
        host: str,
        *,
        delay_seconds: float = 0.0,
        faults: Faults | None = None,
        physical_networks: tuple[str, ...] = ("external",),
    ) -> None:
        self.host = host
        self.delay_seconds = delay_seconds
        self.faults: Faults = faults or {}
        self.physical_networks = physical_networks
        self.world = World({})
        """What is in place."""
        self.applied: list[Touched] = []
        """What each `apply` was told had changed; the last of them."""
        self.fenced = 0
        self.instances: dict[str, tuple[str, Seed | None]] = {}
        self.on_change: Callable[[], None] = _nobody
        self.ask: AskInstance = _nobody_asked

    async def start(self, on_change: Callable[[], None], ask: AskInstance) -> None:
        self.on_change, self.ask = on_change, ask

    async def facts(self) -> NetworkHostFacts:
        return NetworkHostFacts(
            driver="simulated",
            endpoint_ip=_address(self.host),
            physical_networks=self.physical_networks,
            capabilities=("vlan", "trunk", "vpn"),
        )

    async def apply(self, world: World, touched: Touched) -> Faults:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        self.world = world
        self.applied = [*self.applied[-KEPT + 1 :], touched]
        return {key: text for key, text in self.faults.items() if key in world.pieces}

    async def routers(self) -> Mapping[str, RouterSeen]:
        return {
            id: RouterSeen(
                router_id=id,
                generation=router.generation,
                up=router.admin_up,
                connections={it.id: "ACTIVE" if it.admin_up else "DOWN" for it in router.connections},
            )
            for id, router in self.world.routers.items()
        }

    async def fence(self) -> None:
        self.fenced += 1

    def instance(self, port_id: str, server_id: str, seed: Seed | None) -> None:
        self.instances[port_id] = (server_id, seed)

    async def close(self) -> None:
        """Nothing to let go of."""


def _address(host: str) -> str:
    """A tunnel endpoint that nobody ever sends to, the same for a host at all times."""
    number = zlib.crc32(host.encode())
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _nobody() -> None:
    """Nobody listens yet."""


def _nobody_asked(port_id: str, router_id: str = "", password: str = "") -> None:
    """Nobody is there to ask yet."""
