"""Ports come and go: from what somebody wants of a port to all the wishes that make it, and to all that end it.

    with_addresses(cloud, attempt)       attempt: planned(cloud, picks, [PortWanted(…), …]) ─▶ execute(*wishes of all)

However many ports of however many networks: networks, subnets and projects' groups are each read at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bus import clock
from bus.cloud import Cloud
from bus.execute import AlreadyTaken, Wish
from handlers.network.addressing import Chosen, Picks, Wanted, mac_address, taking_addresses, unmaking
from handlers.network.binding import Vif, binding, vifs
from handlers.network.default_group import default_group
from handlers.network.deferring import DEFERRED, addresses_at, routed
from handlers.network.leading import freeing
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from handlers.network.quota import taking
from handlers.network.security_group import standing
from schema.network.network import Network, UseNetwork
from schema.network.port_command import ChangePortBinding, CreatePort
from schema.network.port_state import FixedIp, Port
from schema.network.wiring import AddressPair, DhcpOption
from schema.refusal import Conflict, Invalid


class PortWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A port as somebody asks for it. What is None is chosen."""

    network_id: str
    project_id: str
    id: str = ""
    name: str = ""
    description: str = ""
    mac_address: str = ""
    """Empty: one of ours, by chance."""
    fixed_ips: Sequence[Wanted] | None = None
    """None: one address of each family the network has; empty: none."""
    admin_state_up: bool = True
    device_id: str = ""
    device_owner: str = ""
    security_group_ids: tuple[str, ...] | None = None
    """None: the project's default group, if it has port security."""
    port_security_enabled: bool | None = None
    """None: as its network has it."""
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    extra_dhcp_opts: tuple[DhcpOption, ...] = ()
    dns_name: str = ""
    dns_domain: str = ""
    qos_policy_id: str | None = None
    propagate_uplink_status: bool = True
    made_by: str = ""
    """What takes it along when it goes; empty: a person's."""
    tags: tuple[str, ...] = ()
    host: str = ""
    """Where it is plugged right away."""
    plugged_at: str = ""
    """Where somebody else plugs it in the same append."""
    vnic_type: str = "normal"
    profile: Mapping[str, Any] = {}


class PlannedPort(msgspec.Struct, frozen=True):
    """A port that is to be, its addresses held; `wishes` make it: the port's own first, then what goes with it.

    What several ports of a call share (a default group, the quota) is among the wishes of the first.
    """

    id: str
    command: CreatePort
    cidrs: tuple[str, ...]
    """Of the subnets of its addresses, in their order."""
    wishes: list[Wish]

    @property
    def fixed_ips(self) -> tuple[FixedIp, ...]:
        return self.command.fixed_ips


async def planned(cloud: Cloud, picks: Picks, wanted: Sequence[PortWanted]) -> list[PlannedPort]:
    """Ports for these, in their order. Append the wishes of all of them at once; `picks` holds the addresses till then.

    Raises NotFound (network), Invalid and Conflict (addresses, port security), OverQuota when they are appended.
    """
    networks = await picks.know(it.network_id for it in wanted)
    interfaces = await vifs(cloud, {it.host for it in wanted if it.host})
    named: set[str] = set()
    defaults: dict[str, str] = {}
    shared: list[Wish] = []
    ports = []
    for it in wanted:
        network = networks[it.network_id]
        secured = network.port_security_enabled if it.port_security_enabled is None else it.port_security_enabled
        groups = it.security_group_ids
        if groups is None and secured and not it.device_owner.startswith("network:"):
            if it.project_id not in defaults:
                defaults[it.project_id], making_it = await default_group(cloud, it.project_id)
                shared += making_it
            groups = (defaults[it.project_id],)
        named.update(groups or ())
        refuse_insecure(groups or (), it.allowed_address_pairs, secured=secured)
        mac = it.mac_address or mac_address()
        chosen = await _chosen(cloud, picks, it, mac)
        port = _planned(it, network, mac, chosen, groups or (), secured=secured)
        port.wishes.extend(_plugged(it, port.id, interfaces))
        ports.append(port)
    shared += standing(sorted(named))
    of_projects: dict[str, list[str]] = {}
    for port in ports:
        of_projects.setdefault(port.command.project_id, []).append(port.id)
    for project_id, ids in of_projects.items():
        shared += await taking(cloud, project_id, "port", ids)
    if ports:
        ports[0].wishes.extend(shared)
    return ports


async def removing(cloud: Cloud, ports: Sequence[Port]) -> list[Wish]:
    """The end of ports: their addresses come back, floating IPs are free, what was forwarded to them stops."""
    if not ports:
        return []
    wishes = [wish for port in ports for wish in unmaking(port)]
    return [*wishes, *await freeing(cloud, [port.id for port in ports])]


def worded(taken: AlreadyTaken, macs: Sequence[str]) -> Conflict:
    """What another port holds, in Neutron's words, when the MAC was asked for; else as it is, to choose another."""
    scope, _, network_id = taken.scope.partition(" ")
    if scope == "mac" and taken.key in macs:
        return Conflict(
            f"Unable to complete operation for network {network_id}. The mac address {taken.key} is in use.",
            code="MacAddressInUse",
        )
    return taken


async def _chosen(cloud: Cloud, picks: Picks, wanted: PortWanted, mac: str) -> Chosen | None:
    """None: where it will be says which."""
    owner, host = wanted.device_owner, wanted.host or wanted.plugged_at
    anywhere = wanted.fixed_ips is not None or owner.startswith("network:")
    if anywhere or not routed(await picks.subnets(wanted.network_id)):
        return await picks.choose(wanted.network_id, wanted.fixed_ips, owner, mac)
    if not host:
        return None
    return await addresses_at(cloud, picks, wanted.network_id, host, owner=owner, mac_address=mac)


def _plugged(wanted: PortWanted, id: str, interfaces: Mapping[str, Vif]) -> list[Wish]:
    wishes = []
    if wanted.vnic_type != "normal" or wanted.profile:
        change = ChangePortBinding(vnic_type=wanted.vnic_type, profile=dict(wanted.profile))
        wishes.append(Wish(PORTS, id, change))
    if wanted.host:
        wishes.append(binding(id, wanted.host, interfaces[wanted.host]))
    return wishes


def _planned(
    wanted: PortWanted, network: Network, mac: str, chosen: Chosen | None, groups: tuple[str, ...], *, secured: bool
) -> PlannedPort:
    id = wanted.id or clock.uuid4()
    fixed_ips = chosen.fixed_ips if chosen is not None else ()
    without = "none" if wanted.fixed_ips is not None and not fixed_ips else "immediate"
    command = CreatePort(
        name=wanted.name,
        project_id=wanted.project_id,
        parent_id=network.id,
        description=wanted.description,
        mac_address=mac,
        fixed_ips=fixed_ips,
        admin_state_up=wanted.admin_state_up,
        device_id=wanted.device_id,
        device_owner=wanted.device_owner,
        security_group_ids=groups,
        port_security_enabled=secured,
        allowed_address_pairs=wanted.allowed_address_pairs,
        extra_dhcp_opts=wanted.extra_dhcp_opts,
        dns_name=wanted.dns_name,
        dns_domain=wanted.dns_domain,
        qos_policy_id=wanted.qos_policy_id,
        propagate_uplink_status=wanted.propagate_uplink_status,
        ip_allocation=without if chosen is not None else DEFERRED,
        made_by=wanted.made_by,
        tags=wanted.tags,
    )
    still_so = Wish(NETWORKS, network.id, UseNetwork(subnet_ids=network.subnet_ids))
    cidrs = chosen.cidrs if chosen is not None else ()
    return PlannedPort(id, command, cidrs, [*taking_addresses(command, id), still_so])


def refuse_insecure(groups: Sequence[str], pairs: Sequence[AddressPair], *, secured: bool) -> None:
    """Raises Invalid, Conflict when a port is to have what only port security gives."""
    if secured:
        return
    if groups:
        raise Invalid(
            "Port security must be enabled and port must have an IP address in order to use security groups.",
            code="PortSecurityAndIPRequiredForSecurityGroups",
        )
    if pairs:
        raise Conflict(
            "Port Security must be enabled in order to have allowed address pairs on a port.",
            code="AddressPairAndPortSecurityRequired",
        )
