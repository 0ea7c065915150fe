"""Ports: made one by one or many at once, changed, deleted; their addresses, MACs, rules and where they are plugged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from api.network.filter import Filter
from api.network.port_body import (
    CreateBody,
    NewPort,
    PairsBody,
    PortChange,
    UpdateBody,
    address_pairs,
    dhcp_options,
    fields_of,
    said,
    wanted_addresses,
)
from api.network.port_view import many, view
from api.network.qos import policy_changed, policy_given
from api.network.resource import (
    Resource,
    found,
    living,
    project_of,
    refuse_other_revision,
    resource_routes,
    to_change,
    viewed,
)
from api.network.words import bad, missing
from api.wire import Call, Put
from api.wire.call import denied
from bus import clock
from bus.documents import AnyOf, Condition, ParentIn, Where
from bus.execute import AlreadyTaken, Wish
from bus.log import Document
from handlers.network.addressing import Picks, mac_address, with_addresses
from handlers.network.network import not_found as network_not_found
from handlers.network.plugging import PortWanted, planned, refuse_insecure, removing, worded
from handlers.network.port import PORTS, not_found
from handlers.network.replugging import PortChange as Change
from handlers.network.replugging import changing
from handlers.network.security_group import not_found as group_not_found
from handlers.network.security_group import refuse_mixed
from schema.event import Kind
from schema.network.floating_ip import FLOATING_IP
from schema.network.network import NETWORK, Network
from schema.network.port import PORT
from schema.network.port_command import AddAddressPairs, RemoveAddressPairs, UpdatePort
from schema.network.port_state import Port
from schema.network.router import ROUTER
from schema.network.security_group import SECURITY_GROUP
from schema.refusal import Conflict

_OF_THINGS: dict[str, Kind[Any]] = {
    "network:router_interface": ROUTER,
    "network:router_gateway": ROUTER,
    "network:floatingip": FLOATING_IP,
}
"""Owners whose ports come and go with the thing they are of."""


def _own_networks(call: Call) -> Sequence[Sequence[Any]]:
    """A network's owner sees every port in it."""
    return [[ParentIn("network", [Where("project_id", "=", call.token.project_id or "")])]]


def _with_addresses(call: Call, values: Sequence[str]) -> list[Condition]:
    """`fixed_ips=ip_address=…`, `subnet_id=…`, `ip_address_substr=…`: one of those of a kind, of each kind."""
    kinds: dict[str, list[list[Where]]] = {}
    for value in values:
        what, _, wanted = value.partition("=")
        if what in {"ip_address", "subnet_id"}:
            condition = Where("fixed_ips", "contains", [{what: wanted}])
        elif what == "ip_address_substr":
            condition = Where("fixed_ips", "~", f'"ip_address": "[^"]*{re.escape(json.dumps(wanted)[1:-1])}[^"]*"')
        else:
            raise bad("fixed_ips", f"'{value[:64]}' is not ip_address=, ip_address_substr= or subnet_id=")
        kinds.setdefault(what, []).append([condition])
    return [AnyOf(alternatives) for alternatives in kinds.values()]


RESOURCE = Resource(
    name="port",
    plural="ports",
    kind=PORT,
    view=view,
    many=many,
    missing=not_found,
    shared=_own_networks,
    filters={
        "network_id": Filter("parent_id"),
        "admin_state_up": Filter(type=bool),
        "status": Filter(),
        "device_id": Filter(),
        "device_owner": Filter(),
        "mac_address": Filter(),
        "fixed_ips": Filter(condition=_with_addresses),
        "security_groups": Filter("security_group_ids", within=True),
        "port_security_enabled": Filter(type=bool),
        "propagate_uplink_status": Filter(type=bool),
        "ip_allocation": Filter(),
        "dns_name": Filter(),
        "dns_domain": Filter(),
        "qos_policy_id": Filter(),
        "binding:host_id": Filter("binding.host"),
        "binding:vnic_type": Filter("binding.vnic_type"),
        "binding:vif_type": Filter("binding.vif_type"),
    },
    retagging=lambda id, tags: Wish(PORTS, id, UpdatePort(tags=tags)),
)


async def create(call: Call) -> dict[str, Any]:
    single = said(call.body, "port")
    if single is said(call.body, "ports"):
        raise bad("the body", "either 'port' or 'ports' is expected")
    bodies: Sequence[NewPort] = [call.body.port] if single else [it.port or it for it in call.body.ports]
    if not all(it.network_id for it in bodies):
        raise missing("network_id")
    networks = await _networks(call, {it.network_id for it in bodies})
    asked = [_wanted(call, it, networks[it.network_id]) for it in bodies]
    await _refuse_groups(call, ((id, it.project_id) for it in asked for id in it.security_group_ids or ()))
    await refuse_mixed(call.cloud, [it.security_group_ids or () for it in asked])
    macs = [it.mac_address for it in asked if it.mac_address]

    async def attempt(picks: Picks) -> list[Document]:
        wanted = [_with_mac(it, body) for it, body in zip(asked, bodies, strict=True)]
        wishes = [wish for port in await planned(call.cloud, picks, wanted) for wish in port.wishes]
        for it in wanted:
            wishes += policy_given(call, it.qos_policy_id)
        try:
            return _ports(await call.execute(*wishes))
        except AlreadyTaken as taken:
            raise worded(taken, macs) from None

    views = await view(call, await with_addresses(call.cloud, attempt))
    return {"port": views[0]} if single else {"ports": views}


async def update(call: Call) -> dict[str, Any]:
    body: PortChange = call.body.port
    before = await to_change(call, RESOURCE, call.path["id"])
    network = (await _networks(call, [before.state.network_id], any_of_them=True))[before.state.network_id]
    _refuse_forbidden(call, "update", body, network)
    fields = fields_of(body)
    if body.mac_address is None:
        fields["mac_address"] = mac_address()
    fresh = [it for it in fields.get("security_group_ids", ()) if it not in before.state.security_group_ids]
    await _refuse_groups(call, ((id, before.state.project_id) for id in fresh))
    await refuse_mixed(call.cloud, [fields.get("security_group_ids", ()) if fresh else ()])

    async def attempt(picks: Picks) -> Document:
        port = await now(call, before.id)
        _refuse_taking(port, fields)
        wishes = await changing(call.cloud, picks, port, _change(body, fields, port))
        wishes += await policy_changed(call, port.qos_policy_id, body.qos_policy_id)
        try:
            return _ports(await call.execute(*wishes))[0]
        except AlreadyTaken as taken:
            raise worded(taken, [fields.get("mac_address", "")]) from None

    return {"port": await viewed(call, RESOURCE, await with_addresses(call.cloud, attempt))}


async def add_pairs(call: Call) -> dict[str, Any]:
    return await _change_pairs(call, AddAddressPairs)


async def remove_pairs(call: Call) -> dict[str, Any]:
    return await _change_pairs(call, RemoveAddressPairs)


async def _change_pairs(call: Call, command: type[AddAddressPairs | RemoveAddressPairs]) -> dict[str, Any]:
    """Some address pairs more or less, whoever else changes others."""
    before = await to_change(call, RESOURCE, call.path["id"], "update_port")
    port: Port = before.state
    network = (await _networks(call, [port.network_id], any_of_them=True))[port.network_id]
    call.must("update_port:allowed_address_pairs", project_id=network.project_id)
    pairs = address_pairs(call.body.port.allowed_address_pairs, port.mac_address)
    refuse_insecure((), pairs, secured=port.port_security_enabled)
    [document] = await call.execute(Wish(PORTS, port.id, command(pairs=pairs)))
    return {"port": await viewed(call, RESOURCE, document)}


async def delete(call: Call) -> None:
    before = await found(call, RESOURCE, call.path["id"])
    owners = {before.state.project_id}
    if before.state.project_id != call.token.project_id:
        owners |= {
            it.project_id for it in (await _networks(call, [before.state.network_id], any_of_them=True)).values()
        }
    if not any(call.may("delete_port", project_id=owner) for owner in owners):
        raise denied("delete_port")
    refuse_other_revision(call, RESOURCE, before)

    async def attempt(picks: Picks) -> None:
        port = await now(call, before.id)
        await refuse_in_use(call, port)
        await call.execute(*await removing(call.cloud, [port]))

    await with_addresses(call.cloud, attempt)


async def now(call: Call, id: str) -> Port:
    """A port as it is now. Raises NotFound."""
    return await living(call, PORT, id, not_found)


async def refuse_in_use(call: Call, port: Port) -> None:
    """Raises Conflict when the port is another thing's, and goes with that."""
    kind = _OF_THINGS.get(port.device_owner)
    if kind is not None and port.fixed_ips:
        stream = kind.stream(port.device_id)
        thing = (await call.cloud.executor.load([stream])).get(stream)
        if thing is not None and thing.state.living:
            raise Conflict(
                f"Port {port.id} cannot be deleted directly via the port API: has device owner {port.device_owner}.",
                code="ServicePortInUse",
            )


def _wanted(call: Call, body: NewPort, network: Network) -> PortWanted:
    _refuse_forbidden(call, "create", body, network)
    return PortWanted(
        id=clock.uuid4(),
        network_id=network.id,
        project_id=project_of(call, body.project_id, body.tenant_id),
        fixed_ips=None if body.fixed_ips is UNSET else wanted_addresses(body.fixed_ips),
        extra_dhcp_opts=dhcp_options(body.extra_dhcp_opts or ()),
        qos_policy_id=body.qos_policy_id or None,
        propagate_uplink_status=body.propagate_uplink_status,
        host=body.host_id or "",
        vnic_type=body.vnic_type or "normal",
        profile=_profile(body, {}) or {},
        tags=tuple(dict.fromkeys(body.tags)),
        **fields_of(body),
    )


def _with_mac(wanted: PortWanted, body: NewPort) -> PortWanted:
    """With the MAC asked for or another one by chance, and the address pairs, which have the port's if none is said."""
    mac = wanted.mac_address or mac_address()
    pairs = address_pairs(body.allowed_address_pairs or (), mac)
    return replace(wanted, mac_address=mac, allowed_address_pairs=pairs)


def _change(body: PortChange, fields: dict[str, Any], port: Port) -> Change:
    more: dict[str, Any] = {}
    if body.allowed_address_pairs is not UNSET:
        mac = fields.get("mac_address", port.mac_address)
        more["allowed_address_pairs"] = address_pairs(body.allowed_address_pairs or (), mac)
    if body.extra_dhcp_opts is not UNSET:
        more["extra_dhcp_opts"] = dhcp_options(body.extra_dhcp_opts or (), port.extra_dhcp_opts)
    if body.qos_policy_id is not UNSET:
        more["qos_policy_id"] = body.qos_policy_id
    for name in ("propagate_uplink_status", "data_plane_status"):
        if said(body, name):
            more[name] = getattr(body, name)
    return Change(
        fields=fields | more,
        fixed_ips=UNSET if body.fixed_ips is UNSET else wanted_addresses(body.fixed_ips),
        host=UNSET if body.host_id is UNSET else body.host_id or "",
        vnic_type=body.vnic_type,
        profile=_profile(body, port.binding.profile),
    )


def _profile(body: NewPort | PortChange, known: Mapping[str, Any]) -> dict[str, Any] | UnsetType:
    """The profile of its binding, where it says whether the port is trusted: whoever writes the rest leaves that."""
    if body.profile is UNSET and body.trusted is UNSET:
        return UNSET
    rest = known
    if body.profile is not UNSET:
        rest = {name: value for name, value in known.items() if name == "trusted"} | (body.profile or {})
    return {**rest} if body.trusted is UNSET else {**rest, "trusted": body.trusted}


def _refuse_forbidden(call: Call, verb: str, body: NewPort | PortChange, network: Network) -> None:
    """Raises Forbidden for attributes that are for administrators, or for the network's owner."""
    rules = []
    if body.device_owner and body.device_owner.startswith("network:"):
        rules.append("device_owner")
    if body.mac_address or (isinstance(body, PortChange) and body.mac_address is None):
        rules.append("mac_address")
    if body.fixed_ips is not UNSET:
        shared = {"*", call.token.project_id} & set(network.shared_with)
        if not shared:
            rules.append("fixed_ips")
        if any(it.ip_address for it in body.fixed_ips):
            rules.append("fixed_ips:ip_address")
        if not shared and any(it.subnet_id for it in body.fixed_ips):
            rules.append("fixed_ips:subnet_id")
    if isinstance(body, PortChange) and body.data_plane_status is not UNSET:
        rules.append("data_plane_status")
    if body.port_security_enabled is not UNSET and body.port_security_enabled is not None:
        rules.append("port_security_enabled")
    if body.allowed_address_pairs:
        rules.append("allowed_address_pairs")
    if body.host_id is not UNSET and body.host_id is not None:
        rules.append("binding:host_id")
    if body.profile is not UNSET and body.profile is not None:
        rules.append("binding:profile")
    if body.trusted is not UNSET:
        rules.append("trusted")
    for rule in rules:
        if not call.may(f"{verb}_port:{rule}", project_id=network.project_id):
            raise denied(f"{verb}_port:{rule}")


def _refuse_taking(port: Port, fields: dict[str, Any]) -> None:
    """Raises Conflict when a router's or floating IP's port is to be another's."""
    other = any(fields.get(name, getattr(port, name)) != getattr(port, name) for name in ("device_id", "device_owner"))
    if other and port.device_owner in _OF_THINGS and port.made_by:
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. Port already has an "
            f"attached device {port.device_id}.",
            code="PortInUse",
        )


async def _networks(call: Call, ids: Iterable[str], *, any_of_them: bool = False) -> dict[str, Network]:
    """Networks the caller may have ports in (or whichever). Raises NotFound."""
    streams = {id: NETWORK.stream(id) for id in ids}
    documents = await call.cloud.executor.load(list(streams.values()))
    networks: dict[str, Network] = {}
    for id, stream in streams.items():
        document = documents.get(stream)
        if document is None or not document.state.living or not (any_of_them or _seen(call, document.state)):
            raise network_not_found(id)
        networks[id] = document.state
    return networks


def _seen(call: Call, network: Network) -> bool:
    mine = call.token.project_id or ""
    return (
        call.token.is_admin
        or network.project_id == mine
        or bool({"*", mine} & {*network.shared_with, *network.external_for})
    )


async def _refuse_groups(call: Call, groups: Iterable[tuple[str, str]]) -> None:
    """Raises NotFound for a security group that is not there for that project."""
    wanted = dict.fromkeys(groups)
    if not wanted:
        return
    found = await call.cloud.executor.load([SECURITY_GROUP.stream(id) for id, _ in wanted])
    for id, project_id in wanted:
        document = found.get(SECURITY_GROUP.stream(id))
        there = document is not None and document.state.living
        if not there or document is None:
            raise group_not_found(id)
        theirs = {document.state.project_id, *document.state.shared_with}
        if not (call.token.is_admin or theirs & {"*", project_id}):
            raise group_not_found(id)


def _ports(documents: Iterable[Document]) -> list[Document]:
    """The ports among what was written, as they are in the end."""
    return list({it.stream: it for it in documents if it.stream.startswith("port/")}.values())


routes = [
    *resource_routes(
        RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
    ),
    Put("/ports/{id}/add_allowed_address_pairs", add_pairs, may="add_allowed_address_pairs", body=PairsBody),
    Put("/ports/{id}/remove_allowed_address_pairs", remove_pairs, may="remove_allowed_address_pairs", body=PairsBody),
]
