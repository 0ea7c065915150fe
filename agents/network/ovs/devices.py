"""The kernel's devices that the switch is given: guests' taps, services' feet, a VXLAN device for each network.

    guest ─ tap ─┐
    foot (veth) ─┼─ br-int ─┬─ vx<vni>: one entry for each MAC elsewhere, learns nothing
                             └─ the interface of a physical network, as it is: tagged, untagged

Tunnels are the kernel's though the switch is not: so the host keeps its address, which a tunnel of the switch's own
would want on a bridge of the switch, and packets larger than the wire are cut up once they are wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
import structlog

from agents.network import links, namespace, netlink
from agents.network.bridge_act import act, foot_inside, observe
from agents.network.bridge_plan import Make, Remove, Seen, plan
from agents.network.bridge_wanted import Fabric, Wanted, tunnel_entries, tunnel_of, wire_of
from agents.network.bridge_watch import Watch
from agents.network.driver import Faults
from agents.network.links import Link
from agents.network.namespace import Namespace
from agents.network.switch import Attachment, CannotWire, tunnel_name
from agents.network.world import World
from schema.network.wiring import WiredNetwork

log = structlog.get_logger()


class Ends(msgspec.Struct, frozen=True):
    """Interfaces that the switch is to have, by what they are for."""

    taps: Mapping[str, str]
    """By port."""
    feet: Mapping[str, Attachment]
    fabrics: Mapping[str, tuple[str, int | None]]
    """By network: its tunnel or wire, with the tag its frames bear there (0: none; None: any)."""

    numbers: Mapping[str, int]
    """Of these interfaces, as the kernel has them."""
    macs: Mapping[str, str] = {}
    """Of the operator's among them."""
    new: frozenset[str] = frozenset()
    """Those that were made just now, maybe under a number that another had."""


class Devices:
    """Keeps what it saw of the kernel.

    `start`, `others` and `close` are for the event loop's thread, all else for one in the host's namespace.
    """

    def __init__(self, inside: Namespace, fabric: str, interfaces: Mapping[str, str]) -> None:
        self._namespace = inside
        self._fabric = fabric
        self.interfaces = dict(interfaces)
        self.seen = Seen()
        self._unsure = True
        self._kernel: netlink.Socket | None = None
        self._ear: netlink.Socket | None = None
        self._watch: Watch | None = None
        self._ours: set[str] = set()

    async def start(self, heard: Callable[[], None]) -> None:
        self._ear = await self._namespace.run(netlink.Socket, netlink.LINKS | netlink.NEIGHBOURS)
        self._watch = Watch(self._ear, heard)

    async def close(self) -> None:
        if self._watch:
            self._watch.close()
            self._watch = None
        await self._namespace.run(self._close_sockets)  # what a cancelled call began there ends before

    def others(self) -> bool:
        """Whether somebody else changed something since the last time."""
        what = self._watch.judge(self.seen, self._ours) if self._watch else ""
        if what and not self._unsure:
            log.info("somebody else changed a host's network", what=what, namespace=self._namespace.name)
        self._unsure |= bool(what)
        return bool(what)

    # In the namespace's thread

    def bring(
        self, world: World, feet: Mapping[str, Attachment], before: Iterable[str], *, look: bool
    ) -> tuple[Ends, Faults]:
        """Have what the world wants. `before`: interfaces the switch was given, which go if nothing wants them.

        Raises OSError.
        """
        self._look(everything=look)
        feet = {id: foot for id, foot in feet.items() if self._can_stand(foot)}
        ends, of, faults = wanted(world, feet, self._know_fabric())
        kept = {name for it in of for name in it.links}
        # What cannot be had now, but may be there from before, is left alone.
        kept |= {tunnel_name(it.segmentation_id or 0) for it in world.networks.values() if f"network/{it.id}" in faults}
        unwanted = {name for name in before if name not in kept and self._goes(name)}
        steps = plan(of, self.seen, unwanted)
        said, sure = act(self._socket(), steps, self.seen, {it.outside: it for it in feet.values()})
        self._unsure |= not sure
        self._ours = kept
        new = frozenset(step.link.name for step in steps if isinstance(step, Make))
        return self._there(ends, new), faults | said

    def stands(self, foot: Attachment) -> bool:
        """Whether both its ends are there and as they should be; what is left of one is taken away. Raises OSError."""
        self._look(everything=False)
        there = self.seen.links.get(foot.outside)
        if there is None:
            return False
        if foot_inside(foot, there):
            return True
        self.remove(foot.outside)
        return False

    def remove(self, name: str) -> None:
        link = links.one_link(self._socket(), name)
        if link:
            self._ours.discard(name)
            act(self._socket(), [Remove(link)], self.seen, {})

    def endpoint(self) -> tuple[str, str]:
        """(address, its interface) at which tunnels end, as far as there are such."""
        if not self._fabric:
            return "", ""
        if not self.seen.links:
            self.seen.links = links.all_links(self._socket())
        names = {link.index: name for name, link in self.seen.links.items()}
        for index, ip in links.addresses(self._socket()):
            if self._fabric in {ip, names.get(index)}:
                return ip, names.get(index, "")
        return "", ""

    def _look(self, *, everything: bool) -> None:
        if everything or self._unsure:
            observe(self._socket(), self.seen, only_links=not self._unsure and self._watch is not None)
            self._unsure = False

    def _close_sockets(self) -> None:
        for it in (self._ear, self._kernel):
            if it:
                it.close()
        self._ear = self._kernel = None

    def _socket(self) -> netlink.Socket:
        if self._kernel is None:
            self._kernel = netlink.Socket()
        return self._kernel

    def _can_stand(self, foot: Attachment) -> bool:
        """Not when somebody deleted its namespace: who made that will ask for the foot again."""
        return foot.outside in self.seen.links or namespace.exists(foot.namespace)

    def _goes(self, name: str) -> bool:
        """An operator's interface stays."""
        link = self.seen.links.get(name)
        return link is not None and name not in self.interfaces.values() and name[:1] != "h"

    def _know_fabric(self) -> Fabric:
        endpoint_ip, interface = self.endpoint()
        return Fabric(
            endpoint_ip=endpoint_ip,
            mtu=self.seen.links[interface].mtu if interface in self.seen.links else 0,
            interfaces=self.interfaces,
            links={it: self.seen.links[it] for it in self.interfaces.values() if it in self.seen.links},
        )

    def _there(self, ends: Ends, new: frozenset[str]) -> Ends:
        """Those that the kernel has."""
        links = self.seen.links
        taps = {id: name for id, name in ends.taps.items() if name in links}
        feet = {id: foot for id, foot in ends.feet.items() if foot.outside in links}
        fabrics = {id: it for id, it in ends.fabrics.items() if it[0] in links}
        names = {*taps.values(), *(it.outside for it in feet.values()), *(name for name, _ in fabrics.values())}
        macs = {name: links[name].mac_address for name in names if name in self.interfaces.values()}
        return Ends(taps, feet, fabrics, {name: links[name].index for name in names}, macs, new)


def wanted(world: World, feet: Mapping[str, Attachment], fabric: Fabric) -> tuple[Ends, list[Wanted], Faults]:
    """What there should be of devices, network by network. Pure."""
    faults: Faults = {}
    of: list[Wanted] = []
    taps: dict[str, str] = {}
    fabrics: dict[str, tuple[str, int | None]] = {}
    for id, ports in world.ports_of.items():
        if id not in world.networks:
            faults |= {f"port/{it.id}": "its network is not known here" for it in ports}
    for network in world.networks.values():
        blamed = f"network/{network.id}"
        devices: dict[str, tuple[Link, str]] = {}
        entries = {}
        try:
            uplink, tag = _uplink(network, fabric)
        except CannotWire as error:
            faults[blamed] = str(error)
            uplink, tag = None, None
        if uplink:
            fabrics[network.id] = uplink.name, tag
            devices[uplink.name] = uplink, blamed
            if uplink.tunnel:
                entries[uplink.name] = {
                    entry: key for entry, key in tunnel_entries(world, network, fabric.endpoint_ip).items() if entry.to
                }
        for port in world.ports_of.get(network.id, ()):
            if port.parent_id:
                if port.parent_id not in world.ports:
                    faults[f"port/{port.id}"] = "the port that is its trunk's parent is not on this host"
                continue
            taps[port.id] = port.tap
            devices[port.tap] = Link(port.tap, "tun", network.mtu, port.admin_up), f"port/{port.id}"
        for foot in feet.values():
            if foot.network_id == network.id:
                devices[foot.outside] = Link(foot.outside, "veth", foot.mtu, True), f"foot/{foot.port_id}"
        of.append(Wanted(devices, entries))
    return Ends(taps, feet, fabrics, {}), of, faults


def _uplink(network: WiredNetwork, fabric: Fabric) -> tuple[Link | None, int | None]:
    """What joins it to the other hosts, with the tag its frames bear there. Raises CannotWire."""
    match network.network_type:
        case "vxlan":
            return tunnel_of(network, fabric), None
        case "flat":
            return Link(wire_of(network, fabric).name, "", 0, True), 0
        case "vlan":
            if not network.segmentation_id:
                raise CannotWire("it is a VLAN network without a segmentation id")
            return Link(wire_of(network, fabric).name, "", 0, True), network.segmentation_id
    return None, None
