"""What a change of a port comes to: its addresses, its MAC, its rules, its host, as the wishes of one append."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from bus.cloud import Cloud
from bus.execute import Wish
from handlers.network.addressing import ROUTER_FEET, Picks, Wanted, eui64, follows_mac, readdressing
from handlers.network.binding import FAILED, UNBOUND, binding, vifs
from handlers.network.deferring import addresses_at, waiting
from handlers.network.joining import moving_foot
from handlers.network.leading import freeing_addresses
from handlers.network.plugging import refuse_insecure
from handlers.network.port import PORTS
from handlers.network.router import not_found as router_not_found
from handlers.network.security_group import standing
from schema.network.port_command import ChangePortBinding, UnbindPort, UpdatePort
from schema.network.port_state import FixedIp, Port
from schema.network.router import ROUTER
from schema.network.wiring import AddressPair
from schema.refusal import Conflict

KEEPING_THEIRS = frozenset({"network:router_gateway", "network:floatingip"})
"""Owners of ports whose addresses are changed with what they belong to."""


class PortChange(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants changed of a port. `fields`: as they are to be, by the names of `UpdatePort`."""

    fields: dict[str, Any]
    fixed_ips: Sequence[Wanted] | UnsetType = UNSET
    host: str | UnsetType = UNSET
    """Empty: on none any more."""
    vnic_type: str | UnsetType = UNSET
    profile: dict[str, Any] | UnsetType = UNSET


async def changing(cloud: Cloud, picks: Picks, port: Port, change: PortChange) -> list[Wish]:
    """The wishes; the first is the port's own. Raises Invalid, Conflict, NotFound."""
    fields = change.fields
    mac = fields.get("mac_address", port.mac_address)
    _refuse_bound(port, mac)
    _refuse_insecure(port, fields)
    wishes = [Wish(PORTS, port.id, UpdatePort(**fields))]
    if change.fixed_ips is not UNSET or mac != port.mac_address:
        wanted = None if change.fixed_ips is UNSET else change.fixed_ips
        owner = fields.get("device_owner", port.device_owner)
        after = await addresses_after(picks, port, wanted, owner, mac)
        wishes += await _readdressed(cloud, port, after)
    groups = fields.get("security_group_ids", ())
    wishes += standing(id for id in groups if id not in port.security_group_ids)
    if change.host and change.fixed_ips is UNSET and waiting(port):
        owner = fields.get("device_owner", port.device_owner)
        chosen = await addresses_at(cloud, picks, port.network_id, change.host, owner=owner, mac_address=mac)
        wishes += readdressing(port, chosen.fixed_ips)
    return [*wishes, *await _rebound(cloud, port, change)]


async def addresses_after(
    picks: Picks, port: Port, wanted: Sequence[Wanted] | None, owner: str, mac: str
) -> tuple[FixedIp, ...]:
    """The addresses it is to have: what it has and is asked for stays, be it by address or by subnet.

    What follows from the MAC follows the new one, and stays whatever is asked for. `wanted` None: as they are.
    """
    subnets = {it.id: it for it in await picks.subnets(port.network_id)}
    following = {id for id, it in subnets.items() if follows_mac(it)} if owner not in ROUTER_FEET else set()
    chosen = [it for it in port.fixed_ips if it.subnet_id not in following]
    if wanted is None:
        kept, fresh = list(chosen), list[Wanted]()
    else:
        kept, fresh = _matched(chosen, wanted)
    for fixed in port.fixed_ips:
        if fixed.subnet_id in following:
            subnet = subnets[fixed.subnet_id]
            was = eui64(subnet.cidr, port.mac_address) == fixed.ip_address
            if not was or mac == port.mac_address:
                kept.append(fixed)
    more = await picks.choose(port.network_id, fresh, owner, mac, having=kept)
    return (*kept, *more.fixed_ips)


def _matched(there: Sequence[FixedIp], wanted: Sequence[Wanted]) -> tuple[list[FixedIp], list[Wanted]]:
    """What is asked for and there, and what is not: first what is named by address, then by subnet."""
    left = list(there)
    found: dict[int, FixedIp] = {}
    for exactly in (True, False):
        for nth, one in enumerate(wanted):
            if bool(one.ip) is not exactly:
                continue
            match = next((it for it in left if _meets(it, one)), None)
            if match is not None:
                left.remove(match)
                found[nth] = match
    return list(found.values()), [one for nth, one in enumerate(wanted) if nth not in found]


def _meets(fixed: FixedIp, wanted: Wanted) -> bool:
    return wanted.ip in {"", fixed.ip_address} and wanted.subnet_id in {"", fixed.subnet_id}


async def _readdressed(cloud: Cloud, port: Port, after: tuple[FixedIp, ...]) -> list[Wish]:
    if set(after) == set(port.fixed_ips):
        return []
    if port.device_owner in KEEPING_THEIRS:
        raise Conflict(
            f"IP updates for port {port.id} are not allowed: its device owner is {port.device_owner}.",
            code="IPAddressChangeNotAllowed",
        )
    gone = [it.ip_address for it in port.fixed_ips if it not in after]
    wishes = [*readdressing(port, after), *await freeing_addresses(cloud, port.id, gone)]
    if port.device_owner in ROUTER_FEET and port.device_id:
        stream = ROUTER.stream(port.device_id)
        router = (await cloud.executor.load([stream])).get(stream)
        if router is None:
            raise router_not_found(port.device_id)
        wishes += await moving_foot(cloud, router.state, port, after)
    return wishes


async def _rebound(cloud: Cloud, port: Port, change: PortChange) -> list[Wish]:
    wishes = []
    if change.vnic_type is not UNSET or change.profile is not UNSET:
        wishes.append(Wish(PORTS, port.id, ChangePortBinding(vnic_type=change.vnic_type, profile=change.profile)))
    if change.host is UNSET or change.host == port.host:
        return wishes
    if not change.host:
        return [*wishes, Wish(PORTS, port.id, UnbindPort())]
    vif = (await vifs(cloud, [change.host]))[change.host]
    return [*wishes, binding(port.id, change.host, vif)]


def _refuse_bound(port: Port, mac: str) -> None:
    if mac != port.mac_address and port.host and port.binding.vif_type not in {UNBOUND, FAILED}:
        raise Conflict(
            f"Unable to complete operation on port {port.id}, port is already bound, port type: "
            f"{port.binding.vif_type}, old_mac {port.mac_address}, new_mac {mac}.",
            code="PortBound",
        )


def _refuse_insecure(port: Port, fields: dict[str, Any]) -> None:
    """Raises Invalid, Conflict: without port security there are neither groups nor address pairs."""
    if fields.get("port_security_enabled", port.port_security_enabled):
        return
    groups: Sequence[str] = fields.get("security_group_ids", ())
    pairs: Sequence[AddressPair] = fields.get("allowed_address_pairs", port.allowed_address_pairs)
    refuse_insecure(groups, pairs, secured=False)
    if "security_group_ids" not in fields and port.security_group_ids:
        raise Conflict(
            "Port has security group associated. Cannot disable port security or IP address until security group is "
            "removed.",
            code="PortSecurityPortHasSecurityGroup",
        )
