"""A network on a host of the Linux bridge driver: its links, where its frames go, whom its bridge answers for.

guest ─ tap ─┐                         ┌─ vx<vni>: one entry for each MAC elsewhere, learns nothing
             br<network>  ── either ───┤
foot (veth) ─┘                         └─ the interface of a physical network
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from agents.network.dnsmasq import link_local
from agents.network.driver import Faults
from agents.network.forwarding import EVERYBODY, Entry
from agents.network.links import Link, PortFlags, Tunnel
from agents.network.switch import Attachment, CannotWire, bridge_name, tunnel_name
from agents.network.world import World
from schema.network.wiring import Peer, WiredNetwork, WiredPort

OURS = re.compile(r"(br|tap)[0-9a-f]{8}-[0-9a-f]{2}|vx[0-9]+")
"""Names of links that go when nothing wants them any more."""
_KINDS = {"br": "bridge", "ta": "tun", "vx": "vxlan"}
ISOLATED = PortFlags(isolated=True)
"""What lies between hosts, and what is the same on each: nothing passes from one to the other."""
TUNNEL = PortFlags(isolated=True, suppress=True, flood=False)
_HEADERS_4, _HEADERS_6 = 50, 70
"""Bytes that VXLAN puts before a frame's payload."""


class Fabric(msgspec.Struct, frozen=True):
    """What lies between this host and the others."""

    endpoint_ip: str = ""
    """Where it takes tunnels; empty: nowhere."""
    mtu: int = 0
    """Of the interface that has the endpoint; 0: not known."""
    interfaces: Mapping[str, str] = {}
    """Physical network → interface."""
    links: Mapping[str, Link] = {}
    """Those interfaces, as far as they are there."""


class Wanted(msgspec.Struct, frozen=True):
    """Of one network. The strings are keys of pieces, to be blamed."""

    links: dict[str, tuple[Link, str]]
    entries: dict[str, dict[Entry, str]]
    """By device."""
    bridge: str = ""
    neighbours: dict[str, tuple[str, str]] = {}
    """Address → (MAC, key)."""
    faults: Faults = {}


NOTHING = Wanted({}, {})


def wanted(world: World, network_id: str, feet: Iterable[Attachment], fabric: Fabric) -> Wanted:
    """Of one network. Raises CannotWire where this host cannot have it at all."""
    network, ports = world.networks.get(network_id), world.ports_of.get(network_id, ())
    if network is None:
        return Wanted({}, {}, faults={f"port/{it.id}": "its network is not known here" for it in ports})
    bridge = bridge_of(network)
    blamed = f"network/{network.id}"
    links = {bridge: (Link(bridge, "bridge", network.mtu, True, mac_address=bridge_mac(network.id)), blamed)}
    entries: dict[str, dict[Entry, str]] = {}
    faults: Faults = {}
    neighbours: dict[str, tuple[str, str]] = {}
    uplink = _uplink(network, bridge, fabric, moving=any(port.address_pairs for port in ports))
    if uplink:
        links[uplink.name] = (uplink, blamed)
    if uplink and uplink.tunnel:
        entries[uplink.name] = tunnel_entries(world, network, fabric.endpoint_ip)
        neighbours = _neighbours(world, network, fabric.endpoint_ip)
    elsewhere = {it.id for it in world.peers_of.get(network.id, ())}
    for port in ports:
        key = f"port/{port.id}"
        if port.parent_id:
            faults[key] = "it is a trunk's subport, which the Linux bridge driver cannot wire: use ovs on this host"
            continue
        links[port.tap] = (Link(port.tap, "tun", network.mtu, port.admin_up, bridge), key)
        if port.id not in elsewhere:
            entries[port.tap] = {Entry(port.mac_address): key}
    for foot in feet:
        flags = ISOLATED if foot.local else PortFlags()
        links[foot.outside] = (Link(foot.outside, "veth", foot.mtu, True, bridge, flags=flags), blamed)
        entries[foot.outside] = {Entry(foot.mac_address): blamed}
    return Wanted(links, entries, bridge, neighbours, faults)


def is_ours(link: Link) -> bool:
    """What an agent before this one may have made, by all that can be seen of it."""
    return OURS.fullmatch(link.name) is not None and _KINDS[link.name[:2]] == link.kind


def bridge_of(network: WiredNetwork) -> str:
    """Raises CannotWire."""
    if network.network_type == "vlan":
        raise CannotWire("the Linux bridge driver carries no VLANs, this kernel having no 8021q: use ovs on this host")
    return bridge_name(network.id)


def bridge_mac(network_id: str) -> str:
    """Its own, or it would change with its ports, and all neighbours be forgotten each time."""
    number = zlib.crc32(network_id.encode())
    return f"0a:c1:{number >> 24:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def names_of(world: World, network_id: str) -> set[str]:
    """Interfaces that a network may have, whether it can be wired or not."""
    names = {port.tap for port in world.ports_of.get(network_id, ())} | {bridge_name(network_id)}
    network = world.networks.get(network_id)
    if network and network.network_type == "vxlan" and network.segmentation_id is not None:
        names.add(tunnel_name(network.segmentation_id))
    return names


def _uplink(network: WiredNetwork, bridge: str, fabric: Fabric, *, moving: bool) -> Link | None:
    """What joins the bridge to the other hosts.

    `moving`: a guest here may take addresses over from others (address pairs). It tells by gratuitous ARP, which the
    kernel sends to no port that has questions answered for it.
    """
    if network.network_type == "flat":
        there = wire_of(network, fabric)
        if there.master and not OURS.fullmatch(there.master):
            raise CannotWire(f"{there.name} is in {there.master} already, which is not of this cloud")
        return Link(there.name, "", 0, True, bridge, flags=ISOLATED)
    found = tunnel_of(network, fabric)
    return replace(found, master=bridge, flags=replace(TUNNEL, suppress=not moving)) if found else None


def wire_of(network: WiredNetwork, fabric: Fabric) -> Link:
    """The interface that leads to its physical network, as it is. Raises CannotWire."""
    physical = network.physical_network or ""
    interface = fabric.interfaces.get(physical)
    if interface is None:
        raise CannotWire(f"this host has no interface for the physical network {physical!r}: network.interfaces")
    there = fabric.links.get(interface)
    if there is None:
        raise CannotWire(f"this host has no interface {interface}, which should lead to {physical}")
    if there.mtu < network.mtu:
        raise CannotWire(f"its MTU is {network.mtu}, but that of {interface} is {there.mtu}")
    return there


def tunnel_of(network: WiredNetwork, fabric: Fabric) -> Link | None:
    """Its VXLAN device, in no bridge; None: it is this host's alone. Raises CannotWire."""
    if network.network_type != "vxlan":
        return None
    if network.segmentation_id is None:
        raise CannotWire("it is a VXLAN network without a segmentation id")
    if not fabric.endpoint_ip:
        if network.endpoints:
            raise CannotWire("it is on other hosts too, but this one has no address for tunnels: network.fabric")
        return None
    headers = _HEADERS_6 if ":" in fabric.endpoint_ip else _HEADERS_4
    if fabric.mtu and fabric.mtu < network.mtu + headers:
        raise CannotWire(
            f"its MTU is {network.mtu}, so tunnels need {network.mtu + headers}, but the fabric's is {fabric.mtu}"
        )
    tunnel = Tunnel(network.segmentation_id, fabric.endpoint_ip)
    return Link(tunnel_name(network.segmentation_id), "vxlan", network.mtu, True, tunnel=tunnel)


def tunnel_entries(world: World, network: WiredNetwork, own_ip: str) -> dict[Entry, str]:
    """The tunnel's own, and its bridge's for what leaves by it."""
    found = {Entry(EVERYBODY, ip): f"network/{network.id}" for ip in network.endpoints if ip != own_ip}
    for peer in world.peers_of.get(network.id, ()):
        if _is_elsewhere(peer.endpoint_ip, own_ip):
            found[Entry(peer.mac_address, peer.endpoint_ip)] = f"peer/{peer.id}"
            # One that may come here any moment, with what is running in it, has its tap already.
            found[Entry(peer.mac_address, sticks=peer.id not in world.ports)] = f"peer/{peer.id}"
    for port in world.ports_of.get(network.id, ()):
        for ip in port.bound_for:
            if _is_elsewhere(ip, own_ip) and port.id not in world.peers:
                found[Entry(port.mac_address, ip)] = f"port/{port.id}"
    for mac, those in _shared_macs(world, network, own_ip).items():
        if len({peer.endpoint_ip for peer in those}) == 1:
            found[Entry(mac, those[0].endpoint_ip)] = f"peer/{those[0].id}"  # else every host is asked
        found[Entry(mac, sticks=False)] = f"peer/{those[0].id}"
    return found


def _shared_macs(world: World, network: WiredNetwork, own_ip: str) -> dict[str, list[Peer]]:
    """MACs that ports elsewhere may have by address pairs, and nobody here, nor anybody for its own."""
    peers, ports = world.peers_of.get(network.id, ()), world.ports_of.get(network.id, ())
    lending = [it for it in peers if it.more_macs and _is_elsewhere(it.endpoint_ip, own_ip)]
    if not lending:
        return {}
    feet = (foot for router in world.routers.values() for foot in (*router.ports, router.gateway) if foot)
    own = {it.mac_address.lower() for it in (*peers, *ports, *feet)} | {network.dhcp_mac}
    own |= {pair.mac_address.lower() for port in ports for pair in port.address_pairs}
    found: dict[str, list[Peer]] = {}
    for peer in lending:
        for mac in peer.more_macs:
            if mac not in own:
                found.setdefault(mac, []).append(peer)
    return found


def _neighbours(world: World, network: WiredNetwork, endpoint_ip: str) -> dict[str, tuple[str, str]]:
    """All whose address is known. The bridge answers for those elsewhere, and asks none of them for those here."""
    found: dict[str, tuple[str, str]] = {}
    blamed = f"network/{network.id}"
    for address in network.dhcp_addresses:
        found[address.ip] = (network.dhcp_mac, blamed)
    for router in world.routers.values():
        for foot in (*router.ports, *([router.gateway] if router.gateway else [])):
            if foot.network_id == network.id:
                found |= _known([it.ip for it in foot.addresses], foot.mac_address, blamed)
    for port in world.ports_of.get(network.id, ()):
        found |= _known(_ips(port), port.mac_address, f"port/{port.id}")
    for peer in world.peers_of.get(network.id, ()):
        if _is_elsewhere(peer.endpoint_ip, endpoint_ip):
            found |= _known(peer.ips, peer.mac_address, f"peer/{peer.id}")
    return found


def _known(ips: Iterable[str], mac_address: str, key: str) -> dict[str, tuple[str, str]]:
    found = dict.fromkeys(ips, (mac_address, key))
    if any(":" in ip for ip in found):
        found.setdefault(link_local(mac_address), (mac_address, key))
    return found


def _ips(port: WiredPort) -> list[str]:
    return [address.ip for address in port.addresses]


def _is_elsewhere(peer_ip: str, own_ip: str) -> bool:
    return peer_ip not in {"", own_ip}
