"""The one DHCP port of a network: there as long as DHCP is answered in any of its subnets, with an address in each.

Whether it is there is decided by what it reserves, which addresses it has on its own stream: however many subnets come
and go at once, it is made once, has an address in each, and goes with the last.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from bus import clock
from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from handlers.network.addressing import eui64, follows_mac, mac_address
from handlers.network.port import PORTS
from handlers.network.quota import counting, giving_back
from handlers.network.subnet import SUBNETS
from schema.network.network import Network
from schema.network.port import PORT
from schema.network.port_command import AddPortAddress, CreatePort, RemovePortAddress, ReportPortWired
from schema.network.port_state import DHCP, FixedIp, Port
from schema.network.subnet import AllocateAddress, ReleaseAddress, Subnet

_SERVER = uuid.uuid5(uuid.NAMESPACE_DNS, "cumulog")


class Spot(msgspec.Struct, frozen=True):
    """A subnet to answer in, and an address there that is free; none is needed where addresses follow the MAC."""

    subnet: Subnet
    ip: str = ""


async def dhcp_port(cloud: Cloud, network_id: str) -> Port | None:
    """The network's own, if it has one."""
    where = [Where("parent_id", "=", network_id), Where("device_owner", "=", DHCP), Where("made_by", "=", network_id)]
    found = await cloud.documents.find(PORT, where=where, limit=1)
    return found[0].state if found else None


async def answering(cloud: Cloud, network: Network, spots: Sequence[Spot]) -> list[Wish]:
    """What it takes to answer there. The subnets' own wishes come before these."""
    if not spots:
        return []
    port = await dhcp_port(cloud, network.id)
    mac = port.mac_address if port else mac_address()
    fixed_ips = tuple(_fixed(spot, mac) for spot in spots)
    id = port.id if port else clock.uuid4()
    taking = [Wish(SUBNETS, it.subnet_id, AllocateAddress(ip=it.ip_address, port_id=id)) for it in fixed_ips]
    if port:
        return [*taking, *(Wish(PORTS, id, AddPortAddress(fixed_ip=it)) for it in fixed_ips)]
    command = CreatePort(
        project_id=network.project_id,
        parent_id=network.id,
        mac_address=mac,
        fixed_ips=fixed_ips,
        device_id=f"dhcp{_SERVER}-{network.id}",
        device_owner=DHCP,
        port_security_enabled=False,
        made_by=network.id,
    )
    # It is on no one host: wherever the network is, it is answered at.
    wired = ReportPortWired(host="", generation=1, up=True)
    return [Wish(PORTS, id, command), Wish(PORTS, id, wired), *taking, *counting(network.project_id, "port", [id])]


def silent(port: Port, fixed_ip: FixedIp) -> list[Wish]:
    """What it takes to answer at that address no more; the port goes with its last."""
    remains = port.fixed_ips != (fixed_ip,)
    return [
        Wish(PORTS, port.id, RemovePortAddress(fixed_ip=fixed_ip, remains=remains)),
        Wish(SUBNETS, fixed_ip.subnet_id, ReleaseAddress(ip=fixed_ip.ip_address, port_id=port.id)),
        *([] if remains else giving_back(port.project_id, "port", [port.id])),
    ]


def is_dhcp(port: Port) -> bool:
    """Whether it is a network's own, not one that somebody made by that owner's name."""
    return port.device_owner == DHCP and port.made_by == port.network_id


def _fixed(spot: Spot, mac: str) -> FixedIp:
    ip = eui64(spot.subnet.cidr, mac) if follows_mac(spot.subnet) else spot.ip
    return FixedIp(subnet_id=spot.subnet.id, ip_address=ip)
