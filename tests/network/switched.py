"""Two hosts with a fabric between them, each with a switch, and what may be done to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from agents.network.ovs.switch import OvsSwitch
from agents.network.switch import Attachment, Switch, bridge_name
from schema.network.wiring import WiredNetwork
from tests.network.hosts import Fabric, Guest, Host, network, peer, port

Make = Callable[[Host], Switch]
PLACE: dict[str, Any] = {"fabric": "fabric", "interfaces": {"external": "external"}}


def unplug(host: Host, interface: str) -> None:
    """Somebody does."""
    if isinstance(host.switch, OvsSwitch):
        host.run("ovs-vsctl", f"--db={host.switch.database}", "del-port", interface)
    else:
        host.run("ip", "link", "set", interface, "nomaster")


def own_interfaces(kind: str, *networks: WiredNetwork) -> set[str]:
    """Those that a switch of that kind needs for itself."""
    return {bridge_name(it.id) for it in networks} if kind == "linuxbridge" else {"br-int", "ovs-netdev"}


class Two:
    """Two hosts with a network, a guest of which is on each."""

    def __init__(self, fabric: Fabric, make: Make, mtu: int = 1450) -> None:
        self.a, self.b = fabric.host(), fabric.host()
        self.network = network(mtu=mtu)
        self.one, self.two = port(self.network, 1), port(self.network, 2)
        for host, here, there, other in ((self.a, self.one, self.two, self.b), (self.b, self.two, self.one, self.a)):
            host.switch = make(host)
            host.has(replace(self.network, endpoints=(other.endpoint_ip,)), here, peer(there, other))

    def guests(self, mtu: int = 1450) -> tuple[Guest, Guest]:
        return self.a.guest(self.one, mtu), self.b.guest(self.two, mtu)

    async def sweep(self) -> None:
        await self.a.sweep()
        await self.b.sweep()

    async def close(self) -> None:
        await self.a.switch.close()
        await self.b.switch.close()


def foot(of: WiredNetwork, inside: str, number: int = 200, **more: Any) -> Attachment:
    own = port(of, number)
    return Attachment(port_id=own.id, network_id=of.id, mac_address=own.mac_address, mtu=1450, namespace=inside, **more)


def standing(of: Attachment) -> Guest:
    """Whoever has that foot."""
    guest = Guest(of.namespace, port(network(), 200), of.inside)
    guest.settle()
    return guest
