"""Address groups: addresses that rules of security groups name together."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from api.network.resource import Resource, common, found, project_of, resource_routes, several, to_change, viewed
from api.network.security_group import sharing
from api.network.words import Body, LongText, Project, Text, bad
from api.wire import Call, Put
from bus import clock
from bus.execute import StillHeld, Wish
from bus.log import Document
from handlers.network.address_group import ADDRESS_GROUPS, ending, in_use, not_found
from handlers.network.sharable import forgetting
from schema.network.address_group import (
    ADDRESS_GROUP,
    AddAddresses,
    AddressGroup,
    CreateAddressGroup,
    RemoveAddresses,
    UpdateAddressGroup,
)
from schema.refusal import Invalid, NotFound


class NewGroup(Body):
    name: Text = ""
    description: LongText = ""
    addresses: list[str] | None = None
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    address_group: NewGroup | None = None
    address_groups: list[NewGroup] | None = None


class GroupChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET


class UpdateBody(Body):
    address_group: GroupChange


class AddressesBody(Body):
    addresses: list[str]


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    return [_view(document, call.token.project_id) for document in documents]


def _view(document: Document, viewer: str | None) -> dict[str, Any]:
    group: AddressGroup = document.state
    fields = common(document)
    del fields["tags"]
    return {
        **fields,
        "addresses": list(group.addresses),
        "shared": not {"*", viewer}.isdisjoint(group.shared_with),
    }


RESOURCE = Resource(
    name="address_group",
    plural="address_groups",
    kind=ADDRESS_GROUP,
    view=view,
    missing=not_found,
    shared=sharing,
)


async def create(call: Call) -> dict[str, Any]:
    bodies, many = several(call, "address_group", "address_groups")
    wishes = [
        Wish(
            ADDRESS_GROUPS,
            clock.uuid4(),
            CreateAddressGroup(
                name=body.name,
                project_id=project_of(call, body.project_id, body.tenant_id),
                description=body.description,
                addresses=_addresses(body.addresses or (), whole=True),
            ),
        )
        for body in bodies
    ]
    views = await view(call, await call.execute(*wishes))
    return {RESOURCE.plural: views} if many else {RESOURCE.name: views[0]}


async def update(call: Call) -> dict[str, Any]:
    body: GroupChange = call.body.address_group
    before = await _own(call)
    return await _change(call, before, UpdateAddressGroup(name=body.name, description=body.description))


async def delete(call: Call) -> None:
    before = await _own(call)
    try:
        await call.execute(ending(before.id), *await forgetting(call.cloud, before.id))
    except StillHeld:
        raise in_use(before.id) from None


async def add_addresses(call: Call) -> dict[str, Any]:
    before = await _own(call)
    wanted = _addresses(call.body.addresses)
    there = [it for it in wanted if it in before.state.addresses]
    if there:
        raise Invalid(
            f"Addresses {there} already exist in the address group {before.id}.", code="AddressesAlreadyExist"
        )
    return await _change(call, before, AddAddresses(addresses=wanted))


async def remove_addresses(call: Call) -> dict[str, Any]:
    before = await _own(call)
    wanted = _addresses(call.body.addresses)
    absent = [it for it in wanted if it not in before.state.addresses]
    if absent:
        raise NotFound(f"Addresses {absent} not found in the address group {before.id}.", code="AddressesNotFound")
    return await _change(call, before, RemoveAddresses(addresses=wanted))


async def _own(call: Call) -> Document:
    """The one to change. What is only shared with the caller is, for this, not there: so Neutron has it."""
    document = await found(call, RESOURCE, call.path["id"])
    if not call.token.is_admin and document.state.project_id != call.token.project_id:
        raise NotFound("The resource could not be found.", code="HTTPNotFound")
    return await to_change(call, RESOURCE, document.id)


async def _change(call: Call, before: Document, command: Any) -> dict[str, Any]:
    [document] = await call.execute(Wish(ADDRESS_GROUPS, before.id, command))
    return {RESOURCE.name: await viewed(call, RESOURCE, document)}


def _addresses(texts: Sequence[str], *, whole: bool = False) -> tuple[str, ...]:
    """Networks in their usual form, each once. `whole`: an address must say that it is one. Raises Invalid."""
    networks: dict[str, None] = {}
    for text in texts:
        try:
            network = str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise bad("addresses", f"'{text[:64]}' is not a valid IP subnet") from None
        if whole and "/" not in text:
            raise bad("addresses", f"'{text}' isn't a recognized IP subnet cidr, '{network}' is recommended")
        networks[network] = None
    return tuple(networks)


routes = [
    *resource_routes(
        RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
    ),
    Put("/address-groups/{id}/add_addresses", add_addresses, may="add_addresses", body=AddressesBody),
    Put("/address-groups/{id}/remove_addresses", remove_addresses, may="remove_addresses", body=AddressesBody),
]
