"""Floating IPs: outside addresses that a project holds and gives to its ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from api.network.filter import Filter
from api.network.qos import policy_changed, policy_given
from api.network.resource import Resource, common, living, project_of, resource_routes, to_change, viewed
from api.network.words import Body, LongText, Project, Text, Uuid, address
from api.wire import Call
from api.wire.call import denied
from bus import clock
from bus.execute import AlreadyTaken, Wish
from bus.log import Document
from handlers.network.addressing import Picks, Wanted, mac_address, making, unmaking, with_addresses
from handlers.network.floating_ip import FLOATING_IPS, not_found
from handlers.network.leading import (
    associating,
    bad,
    disassociating,
    inner_address,
    refuse_taken,
    reworded,
    router_between,
)
from handlers.network.network import not_found as network_not_found
from handlers.network.port import not_found as port_not_found
from handlers.network.quota import giving_back, taking
from handlers.network.router import ROUTERS
from schema.network.floating_ip import (
    FLOATING_IP,
    CreateFloatingIp,
    DeleteFloatingIp,
    FloatingIp,
    PortForwarding,
    UpdateFloatingIp,
)
from schema.network.network import NETWORK, Network
from schema.network.port import PORT
from schema.network.port_command import CreatePort
from schema.network.port_state import FixedIp, Port
from schema.network.router import LeaveFloatingIp
from schema.refusal import Conflict, Invalid

OWNER = "network:floatingip"


class NewFloatingIp(Body):
    floating_network_id: Uuid
    floating_ip_address: str | None = None
    subnet_id: Uuid | None = None
    port_id: Uuid | None = None
    fixed_ip_address: str | None = None
    tenant_id: Project | None = None
    project_id: Project | None = None
    description: LongText = ""
    qos_policy_id: Uuid | None = None
    dns_name: Text = ""
    dns_domain: Text = ""


class CreateBody(Body):
    floatingip: NewFloatingIp


class FloatingIpChange(Body):
    port_id: Uuid | None | UnsetType = UNSET
    fixed_ip_address: str | None = None
    description: LongText | UnsetType = UNSET
    qos_policy_id: Uuid | None | UnsetType = UNSET


class UpdateBody(Body):
    floatingip: FloatingIpChange


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    ids = [document.state.port_id for document in documents if document.state.port_id]
    ports = await call.cloud.documents.get_many(PORT, ids) if ids else {}
    outer = sorted({document.state.network_id for document in documents})
    networks = await call.cloud.documents.get_many(NETWORK, outer) if outer else {}
    policies = {id: network.state.qos_policy_id for id, network in networks.items()}
    return [_view(it, ports.get(it.state.port_id or ""), policies.get(it.state.network_id)) for it in documents]


def _view(document: Document, port: Document | None, network_policy: str | None) -> dict[str, Any]:
    floating: FloatingIp = document.state
    fields = common(document)
    del fields["name"]
    return {
        **fields,
        "floating_ip_address": floating.floating_ip_address,
        "floating_network_id": floating.network_id,
        "router_id": floating.router_id,
        "port_id": floating.port_id,
        "fixed_ip_address": floating.fixed_ip_address,
        "status": floating.status,
        "dns_name": floating.dns_name,
        "dns_domain": floating.dns_domain,
        "qos_policy_id": floating.qos_policy_id,
        "qos_network_policy_id": network_policy,
        "port_details": _details(port.state) if port else None,
        "port_forwardings": [_forwarded(it) for it in floating.forwardings],
    }


def _details(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "network_id": port.network_id,
        "mac_address": port.mac_address,
        "admin_state_up": port.admin_state_up,
        "status": port.status,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
    }


def _forwarded(it: PortForwarding) -> dict[str, Any]:
    """A port forwarding as its floating IP shows it."""
    return {name: value for name, value in forwarded(it).items() if name in _IN_SHORT}


_IN_SHORT = frozenset({"id", "protocol", "internal_ip_address", "internal_port", "external_port", "internal_port_id"})


def forwarded(it: PortForwarding) -> dict[str, Any]:
    """A port forwarding as it is shown. A single port is its own range."""
    single = {}
    if it.external_port == it.external_port_end:
        single = {"external_port": it.external_port, "internal_port": it.internal_port}
    return {
        "id": it.id,
        "protocol": it.protocol,
        "internal_port_id": it.internal_port_id,
        "internal_ip_address": it.internal_ip_address,
        **single,
        "internal_port_range": f"{it.internal_port}:{it.internal_port_end}",
        "external_port_range": f"{it.external_port}:{it.external_port_end}",
        "description": it.description,
    }


RESOURCE = Resource(
    name="floatingip",
    plural="floatingips",
    kind=FLOATING_IP,
    view=view,
    missing=not_found,
    filters={
        "floating_ip_address": Filter(),
        "floating_network_id": Filter("parent_id"),
        "router_id": Filter(),
        "port_id": Filter(),
        "fixed_ip_address": Filter(),
        "status": Filter(),
        "qos_policy_id": Filter(),
    },
    retagging=lambda id, tags: Wish(FLOATING_IPS, id, UpdateFloatingIp(tags=tags)),
)


async def create(call: Call) -> dict[str, Any]:
    body: NewFloatingIp = call.body.floatingip
    project_id = project_of(call, body.project_id, body.tenant_id)
    if body.floating_ip_address and not call.may("create_floatingip:floating_ip_address"):
        raise denied("create_floatingip:floating_ip_address")
    if body.fixed_ip_address and not body.port_id:
        raise bad("fixed_ip_address cannot be specified without a port_id")
    ip = address("floating_ip_address", body.floating_ip_address) if body.floating_ip_address else ""
    await _refuse_inner(call, body.floating_network_id)
    id, outer_port_id = clock.uuid4(), clock.uuid4()

    async def attempt(picks: Picks) -> Document:
        outer = await _outer(picks, body.floating_network_id, body.subnet_id or "", ip)
        command = CreateFloatingIp(
            project_id=project_id,
            parent_id=body.floating_network_id,
            floating_ip_address=outer.ip_address,
            outer_port_id=outer_port_id,
            subnet_id=outer.subnet_id,
            description=body.description,
            qos_policy_id=body.qos_policy_id,
            dns_name=body.dns_name,
            dns_domain=body.dns_domain,
        )
        port = CreatePort(
            parent_id=body.floating_network_id,
            mac_address=mac_address(),
            fixed_ips=(outer,),
            device_id=id,
            device_owner=OWNER,
            port_security_enabled=False,
            made_by=id,
        )
        wishes = [Wish(FLOATING_IPS, id, command), *making(port, outer_port_id)]
        wishes += policy_given(call, body.qos_policy_id)
        wishes += await taking(call.cloud, project_id, "floatingip", [id])
        if not body.port_id:
            return (await call.execute(*wishes))[0]
        born = FloatingIp(
            id=id,
            parent_id=body.floating_network_id,
            floating_ip_address=outer.ip_address,
            project_id=project_id,
            changes=1,
        )
        return await _associate(call, born, body.port_id, body.fixed_ip_address, wishes)

    return await _answer(call, await with_addresses(call.cloud, attempt))


async def update(call: Call) -> dict[str, Any]:
    body: FloatingIpChange = call.body.floatingip
    before = await to_change(call, RESOURCE, call.path["id"])
    command = UpdateFloatingIp(description=body.description, qos_policy_id=body.qos_policy_id)
    # A change of nothing frees it: once there was nothing else to change.
    port_id = None if body == FloatingIpChange() else body.port_id
    policy = await policy_changed(call, before.state.qos_policy_id, body.qos_policy_id)
    changes = [*policy, Wish(FLOATING_IPS, before.id, command)]
    if body.fixed_ip_address and not body.port_id:
        raise bad("fixed_ip_address cannot be specified without a port_id")

    async def attempt(picks: Picks) -> Document:
        if port_id is UNSET:
            return (await call.execute(*changes))[-1]
        floating = await now(call, before.id)
        if port_id is None:
            wishes = disassociating(floating) if floating.port_id else []
            return (await call.execute(*wishes, *changes))[-1]
        # The change of the description comes after: what is associated rests on what was read.
        return await _associate(call, floating, port_id, body.fixed_ip_address, [], changes)

    return await _answer(call, await with_addresses(call.cloud, attempt))


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> None:
        floating = await now(call, before.id)
        wishes = [Wish(FLOATING_IPS, floating.id, DeleteFloatingIp(expected=floating.changes))]
        if floating.router_id:
            wishes.append(Wish(ROUTERS, floating.router_id, LeaveFloatingIp(floating_ip_id=floating.id)))
        outer = (await call.cloud.executor.load([PORT.stream(floating.outer_port_id)])).values()
        for document in outer:
            wishes += unmaking(document.state)
        await call.execute(*wishes, *giving_back(floating.project_id, "floatingip", [floating.id]))

    await with_addresses(call.cloud, attempt)


async def now(call: Call, id: str) -> FloatingIp:
    """A floating IP as it is now."""
    return await living(call, FLOATING_IP, id, not_found)


async def inner_port(call: Call, floating: FloatingIp, id: str) -> Port:
    """A port that this floating IP may lead to: of the same project. Raises NotFound, Invalid."""
    port = await living(call, PORT, id, port_not_found)
    if port.project_id != floating.project_id and not call.token.is_admin:
        networks = await call.cloud.documents.get_many(NETWORK, [port.network_id])
        seen = {port.project_id, *(it.state.project_id for it in networks.values())}
        if call.token.project_id not in seen:
            raise port_not_found(id)
        raise bad(
            f"Port {id} is associated with a different project than Floating IP {floating.id} and therefore cannot be "
            "bound"
        )
    return port


async def _associate(  # noqa: PLR0917
    call: Call,
    floating: FloatingIp,
    port_id: str,
    fixed_ip: str | None,
    first: Sequence[Wish],
    last: Sequence[Wish] = (),
) -> Document:
    port = await inner_port(call, floating, port_id)
    fixed = inner_address(port, address("fixed_ip_address", fixed_ip) if fixed_ip else None)
    router = await router_between(call.cloud, floating.network_id, fixed, port_id)
    await refuse_taken(call.cloud, floating, port, fixed)
    wishes = [*first, *associating(floating, port, fixed, router), *last]
    try:
        documents = await call.execute(*wishes)
    except AlreadyTaken as taken:
        raise reworded(taken, floating) from None
    of_it = [it for it, wish in zip(documents, wishes, strict=True) if wish.id == floating.id]
    return of_it[-1]


async def _outer(picks: Picks, network_id: str, subnet_id: str, ip: str) -> FixedIp:
    """The outside address. Raises Invalid as Neutron does when there is none to have."""
    if not subnet_id and not ip:
        subnets = [it for it in await picks.subnets(network_id) if it.ip_version == 4]
        if not subnets:
            raise bad(f"External network {network_id} does not contain any IPv4 subnet")
        wanted = [Wanted(subnet_id=it.id) for it in subnets]
    else:
        wanted = [Wanted(subnet_id=subnet_id, ip=ip)]
    for one in wanted:
        try:
            return (await picks.choose(network_id, [one], OWNER)).fixed_ips[0]
        except Conflict as none:
            if none.code != "IpAddressGenerationFailure":
                raise
    raise Invalid(f"Unable to find any IP address on external network {network_id}.", code="ExternalIpAddressExhausted")


async def _refuse_inner(call: Call, network_id: str) -> None:
    """Raises NotFound for a network that the caller does not see, Invalid unless it is an outside one."""
    document = (await call.cloud.executor.load([NETWORK.stream(network_id)])).get(NETWORK.stream(network_id))
    network: Network | None = document.state if document is not None and document.state.living else None
    mine = call.token.project_id or ""
    for_me = {"*", mine}
    own = network is not None and (call.token.is_admin or network.project_id == mine)
    if network is None or not (own or for_me & {*network.external_for, *network.shared_with}):
        raise network_not_found(network_id)
    if not network.external_for or not (own or for_me & set(network.external_for)):
        raise bad(f"Network {network_id} is not a valid external network")


async def _answer(call: Call, document: Document) -> dict[str, Any]:
    return {"floatingip": await viewed(call, RESOURCE, document)}


routes = resource_routes(
    RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
)
