"""Subnets: ranges of addresses in a network, and what guests there are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from api.network.filter import Filter, changed_since
from api.network.resource import (
    Resource,
    common,
    living,
    project_of,
    resource_routes,
    several,
    to_change,
    viewed,
    written,
)
from api.network.subnet_body import (
    CreateBody,
    NewSubnet,
    SubnetChange,
    UpdateBody,
    allocation_pools,
    dns_servers,
    host_routes,
    service_types,
)
from api.network.tag import tags_of
from api.network.words import address, cidr, refuse_read_only
from api.wire import Call
from api.wire.query import boolean
from bus import clock
from bus.documents import Condition, Where
from bus.execute import Wish
from bus.log import Document
from handlers.network.addressing import Picks, with_addresses
from handlers.network.allotting import Allotted, PoolWanted, allotted
from handlers.network.dividing import caught_up, subnet_changed, subnet_ended, subnets_made
from handlers.network.network import not_found as network_not_found
from handlers.network.ranges import default_gateway, default_pools
from handlers.network.refusing import bad_request
from handlers.network.subnet import SUBNETS, not_found
from schema.network.network import NETWORK, Network
from schema.network.subnet import SUBNET, CreateSubnet, Subnet, UpdateSubnet
from schema.refusal import Invalid, NotFound


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    operator = call.may("get_subnet:segment_id")
    return [_view(call, document, operator=operator) for document in documents]


def _view(call: Call, document: Document, *, operator: bool) -> dict[str, Any]:
    subnet: Subnet = document.state
    network = _network_known(call, subnet.network_id)
    return {
        **common(document),
        "revision_number": subnet.revision,
        "updated_at": written(subnet, "changed_at"),
        "network_id": subnet.network_id,
        "ip_version": subnet.ip_version,
        "cidr": subnet.cidr,
        "gateway_ip": subnet.gateway_ip,
        "allocation_pools": [{"start": pool.start, "end": pool.end} for pool in subnet.pools],
        "enable_dhcp": subnet.enable_dhcp,
        "dns_nameservers": list(subnet.dns_nameservers),
        "dns_publish_fixed_ip": subnet.dns_publish_fixed_ip,
        "host_routes": [{"destination": it.destination, "nexthop": it.nexthop} for it in subnet.host_routes],
        "ipv6_ra_mode": subnet.ipv6_ra_mode,
        "ipv6_address_mode": subnet.ipv6_address_mode,
        "subnetpool_id": subnet.subnetpool_id,
        "service_types": list(subnet.service_types),
        "router:external": bool(network and network.external_for),
        **({"segment_id": subnet.segment_id} if operator else {}),
    }


def _owners(call: Call, subnet: Subnet) -> list[str]:
    """Who made it, and whose network it is in."""
    network = _network_known(call, subnet.network_id)
    return [subnet.project_id, *([network.project_id] if network else [])]


def _seen(call: Call) -> list[list[Where]]:
    """Those in networks that the caller sees."""
    mine = call.token.project_id or ""
    return [
        [
            _in_networks(
                call, lambda it: it.project_id == mine or bool({"*", mine} & {*it.shared_with, *it.external_for})
            )
        ]
    ]


def _in_networks(call: Call, wanted: Any) -> Where:
    documents = call.cloud.mirror(NETWORK).values()
    return Where("parent_id", "in", [document.id for document in documents if wanted(document.state)])


def _shared(call: Call, values: Sequence[str]) -> list[Condition]:
    wanted, mine = bool(boolean(values[-1])), call.token.project_id
    return [_in_networks(call, lambda it: bool({"*", mine} & set(it.shared_with)) is wanted)]


def _external(call: Call, values: Sequence[str]) -> list[Condition]:
    wanted = bool(boolean(values[-1]))
    return [_in_networks(call, lambda it: bool(it.external_for) is wanted)]


RESOURCE = Resource(
    name="subnet",
    plural="subnets",
    kind=SUBNET,
    view=view,
    missing=not_found,
    filters={
        "network_id": Filter("parent_id"),
        "ip_version": Filter(type=int),
        "cidr": Filter(),
        "gateway_ip": Filter(),
        "enable_dhcp": Filter(type=bool),
        "ipv6_ra_mode": Filter(),
        "ipv6_address_mode": Filter(),
        "subnetpool_id": Filter(),
        "segment_id": Filter(),
        "dns_publish_fixed_ip": Filter(type=bool),
        "service_types": Filter(within=True),
        "revision_number": Filter("revision", int),
        "changed_since": Filter(condition=lambda call, values: changed_since("changed_at", values)),
        "shared": Filter(condition=_shared),
        "router:external": Filter(condition=_external),
    },
    retagging=lambda id, tags: Wish(SUBNETS, id, UpdateSubnet(tags=tags)),
    shared=_seen,
    owners=_owners,
    revision=lambda document: document.state.revision,
)


async def create(call: Call) -> dict[str, Any]:
    bodies, many = several(call, "subnet", "subnets")
    networks = await call.cloud.executor.load([NETWORK.stream(it.network_id) for it in bodies])
    for it in bodies:
        _refuse_network(call, it, networks.get(NETWORK.stream(it.network_id)))
    ids = [clock.uuid4() for _ in bodies]

    async def attempt(picks: Picks) -> list[Document]:
        wanted: list[tuple[str, CreateSubnet]] = []
        taking: list[Wish] = []
        for id, body in zip(ids, bodies, strict=True):
            of = await _range(call, id, body)
            wanted.append((id, _command(call, body, of)))
            taking += of.wishes
        return (await call.execute(*await subnets_made(call.cloud, wanted), *taking))[: len(ids)]

    documents = await with_addresses(call.cloud, attempt)
    if late := await caught_up(call.cloud, [document.state for document in documents]):
        await call.cloud.executor.execute(*late)
    views = await view(call, documents)
    return {"subnets": views} if many else {"subnet": views[0]}


async def update(call: Call) -> dict[str, Any]:
    body: SubnetChange = call.body.subnet
    before = await to_change(call, RESOURCE, call.path["id"])
    refuse_read_only(body, _READ_ONLY)
    if body.segment_id is not UNSET:
        call.must("update_subnet:segment_id")
    if body.segment_id:
        _refuse_segment(call, body.segment_id, before.state.network_id)
    change = UpdateSubnet(
        name=body.name,
        description=body.description,
        gateway_ip=address("gateway_ip", body.gateway_ip) if body.gateway_ip else body.gateway_ip,
        pools=allocation_pools(body.allocation_pools) if isinstance(body.allocation_pools, list) else UNSET,
        enable_dhcp=body.enable_dhcp,
        dns_nameservers=UNSET if body.dns_nameservers is UNSET else dns_servers(body.dns_nameservers or []),
        dns_publish_fixed_ip=body.dns_publish_fixed_ip,
        host_routes=UNSET if body.host_routes is UNSET else host_routes(body.host_routes or []),
        segment_id=body.segment_id,
        service_types=UNSET if body.service_types is UNSET else service_types(body.service_types or []),
    )

    async def attempt(picks: Picks) -> Document:
        subnet = await _now(call, before.id)
        return (await call.execute(*await subnet_changed(call.cloud, picks, subnet, change)))[0]

    return {"subnet": await viewed(call, RESOURCE, await with_addresses(call.cloud, attempt))}


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> None:
        await call.execute(*await subnet_ended(call.cloud, await _now(call, before.id)))

    await with_addresses(call.cloud, attempt)


_READ_ONLY = (
    "network_id",
    "ip_version",
    "cidr",
    "prefixlen",
    "subnetpool_id",
    "use_default_subnetpool",
    "ipv6_ra_mode",
    "ipv6_address_mode",
    "tenant_id",
    "project_id",
)


def _refuse_network(call: Call, body: NewSubnet, document: Document | None) -> None:
    """Raises NotFound, Forbidden unless the caller may divide that network."""
    network: Network | None = document.state if document is not None and document.state.living else None
    mine = call.token.project_id or ""
    if network is None or not (
        call.token.is_admin or network.project_id == mine or {"*", mine} & {*network.shared_with, *network.external_for}
    ):
        raise network_not_found(body.network_id)
    call.must("create_subnet", project_id=network.project_id)
    if body.segment_id:
        call.must("create_subnet:segment_id")
        _refuse_segment(call, body.segment_id, network.id)


def _refuse_segment(call: Call, id: str, network_id: str) -> None:
    """Raises NotFound, Invalid unless it is a segment of that network."""
    for document in call.cloud.mirror(NETWORK).values():
        if any(it.id == id for it in document.state.segments):
            if document.id != network_id:
                raise Invalid(
                    f"The subnet's network id, '{network_id}', doesn't match the network_id of segment '{id}', "
                    f"'{document.id}'.",
                    code="NetworkIdsDontMatch",
                )
            return
    raise NotFound(f"Segment {id} could not be found.", code="SegmentNotFound")


async def _range(call: Call, id: str, body: NewSubnet) -> Allotted:
    """The range asked for, or one of a pool. Raises Invalid, NotFound, Conflict."""
    if body.use_default_subnetpool and body.subnetpool_id:
        raise bad_request("subnets", "subnetpool_id and use_default_subnetpool cannot both be specified")
    if not body.use_default_subnetpool and not body.subnetpool_id:
        if not body.cidr:
            raise bad_request("subnets", "a subnetpool must be specified in the absence of a cidr")
        if body.prefixlen is not None:
            raise bad_request("subnets", "allocation by prefixlen requires a subnetpool")
        return Allotted(cidr("cidr", body.cidr), "")
    wanted = PoolWanted(
        subnet_id=id,
        project_id=project_of(call, body.project_id, body.tenant_id),
        network_id=body.network_id,
        ip_version=body.ip_version,
        subnetpool_id=body.subnetpool_id,
        prefixlen=body.prefixlen,
        cidr=cidr("cidr", body.cidr) if body.cidr else None,
        operator=call.token.is_admin,
    )
    return await allotted(call.cloud, wanted)


def _command(call: Call, body: NewSubnet, of: Allotted) -> CreateSubnet:
    if body.gateway_ip is UNSET:
        gateway: str | None = default_gateway(of.cidr)
    else:
        gateway = address("gateway_ip", body.gateway_ip) if body.gateway_ip else None
    pools = (
        default_pools(of.cidr, gateway) if body.allocation_pools is None else allocation_pools(body.allocation_pools)
    )
    return CreateSubnet(
        name=body.name,
        project_id=project_of(call, body.project_id, body.tenant_id),
        parent_id=body.network_id,
        description=body.description,
        ip_version=body.ip_version,
        cidr=of.cidr,
        gateway_ip=gateway,
        pools=pools,
        enable_dhcp=body.enable_dhcp,
        dns_nameservers=dns_servers(body.dns_nameservers or []),
        dns_publish_fixed_ip=body.dns_publish_fixed_ip,
        host_routes=host_routes(body.host_routes or []),
        ipv6_ra_mode=body.ipv6_ra_mode,
        ipv6_address_mode=body.ipv6_address_mode,
        subnetpool_id=of.subnetpool_id or None,
        segment_id=body.segment_id,
        service_types=service_types(body.service_types or []),
        tags=tags_of(body.tags),
    )


async def _now(call: Call, id: str) -> Subnet:
    """A subnet as it is now."""
    return await living(call, SUBNET, id, not_found)


def _network_known(call: Call, id: str) -> Network | None:
    document = call.cloud.mirror(NETWORK).get(id)
    return document.state if document is not None else None


routes = resource_routes(
    RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
)
