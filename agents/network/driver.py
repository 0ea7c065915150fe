"""What a network agent asks of the host it works on, whichever way its networks are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from agents.network.world import World
from schema.compute.domain import Seed
from schema.network.wiring import NetworkHostFacts, RouterSeen

Touched = frozenset[str] | None
"""Keys of the pieces that changed since the last time; None: look at everything."""

Faults = dict[str, str]
"""Piece key → what could not be done for it, for a person to read."""


class AskInstance(Protocol):
    def __call__(self, port_id: str, router_id: str = "", password: str = "") -> None:
        """Ask the control plane for the instance behind a port; the answer comes by `NetworkDriver.instance`.

        Of a port that is not bound to this host it is asked as a router that lives here and joins the port's network.
        `password`: what that instance has posted, to be kept before it is answered.
        """


class Component(Protocol):
    """One part of a host's networking: observe the kernel, plan, act. Every act may be done again."""

    async def apply(self, world: World, touched: Touched) -> Faults:
        """Bring the host to what the world says. Raises nothing that a piece is to blame for: that is a fault."""

    async def close(self) -> None:
        """Let go of the host; what is wired stays wired."""


class NetworkDriver(Protocol):
    """All parts together, in the order that keeps guests safe: rules before taps."""

    async def start(self, on_change: Callable[[], None], ask: AskInstance) -> None:
        """From now on, tell when somebody else changed the host's networking; `ask` for what guests want to know.

        Both are called in the event loop's own thread.
        """

    async def facts(self) -> NetworkHostFacts: ...

    async def apply(self, world: World, touched: Touched) -> Faults: ...

    async def routers(self) -> Mapping[str, RouterSeen]:
        """What can be said of the routers here beyond faults: the state of their VPN connections, above all."""

    async def fence(self) -> None:
        """The lease lapsed: another host may take the routers, so they go silent here. Ports stay as they are."""

    def instance(self, port_id: str, server_id: str, seed: Seed | None) -> None:
        """What the guest behind a port may learn of itself, as the control plane answered."""

    async def close(self) -> None: ...
