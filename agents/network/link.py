"""The network agent's end of the bus: words in and out, none of which is sure to arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from agents.link import words
from bus.broker import HostLink
from schema.network.wiring import FromNetworkHost, NetworkHeartbeat, ToNetworkHost, decode_to_host, encode


class NetworkLink(Protocol):
    """What the agent speaks to."""

    def inbox(self) -> AsyncIterator[ToNetworkHost]:
        """What the control plane says, for ever; waits while it says nothing or is away."""

    async def report(self, message: FromNetworkHost) -> None:
        """Raises ConnectionError when it did not get through."""

    async def close(self) -> None: ...


class BrokerNetworkLink:
    """`NetworkLink` over a broker's `HostLink`: JSON on the wire."""

    def __init__(self, host: HostLink) -> None:
        self._host = host

    def inbox(self) -> AsyncIterator[ToNetworkHost]:
        return words(self._host, decode_to_host)

    async def report(self, message: FromNetworkHost) -> None:
        say = self._host.beat if isinstance(message, NetworkHeartbeat) else self._host.report
        await say(encode(message))

    async def close(self) -> None:
        await self._host.close()
