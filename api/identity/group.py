"""Groups: `/v3/groups`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.identity.words import Id, Name, Text, conflicts, extra, found, listed, shown, within
from api.wire import Call, Delete, Get, Patch, Post
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.identity.grant import revoke_all
from handlers.identity.group import GROUPS
from handlers.identity.revocation import revoke
from schema.identity.domain import DOMAIN
from schema.identity.grant import GRANT
from schema.identity.group import GROUP, CreateGroup, DeleteGroup, UpdateGroup
from schema.refusal import Invalid


class NewGroup(msgspec.Struct):
    name: Name
    domain_id: Id | None = None
    description: Text | None = None


class NewGroupBody(msgspec.Struct):
    group: NewGroup


class GroupChanges(msgspec.Struct):
    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET


class GroupChangesBody(msgspec.Struct):
    group: GroupChanges


def view(call: Call, document: Document) -> dict[str, Any]:
    group = document.state
    return shown(call, "groups", document, name=group.name, domain_id=group.domain_id, description=group.description)


async def create(call: Call) -> dict[str, Any]:
    new: NewGroup = call.body.group
    domain_id = new.domain_id or call.token.domain_id or call.token.project_domain_id or call.token.user_domain_id
    await found(call, DOMAIN, domain_id)
    call.must("identity:create_group", domain_id=domain_id)
    command = CreateGroup(
        name=new.name,
        domain_id=domain_id,
        description=new.description or "",
        extra=extra(call, "group", NewGroup),
    )
    with conflicts("group"):
        documents = await call.execute(Wish(GROUPS, clock.hex_id(), command))
    return {"group": view(call, documents[0])}


async def listing(call: Call) -> dict[str, Any]:
    fields = {"name": "name", "domain_id": "domain_id"}
    return await listed(call, GROUP, "groups", view, where=within(call), fields=fields)


async def in_path(call: Call, rule: str) -> Document:
    """The group of the path, if the caller may do that to it."""
    document = await found(call, GROUP, call.path["group_id"])
    call.must(rule, domain_id=document.state.domain_id)
    return document


async def show(call: Call) -> dict[str, Any]:
    return {"group": view(call, await in_path(call, "identity:get_group"))}


async def update(call: Call) -> dict[str, Any]:
    document = await in_path(call, "identity:update_group")
    changes: GroupChanges = call.body.group
    if changes.domain_id is not UNSET and changes.domain_id != document.state.domain_id:
        raise Invalid("Update of `domain_id` is not allowed.")
    command = UpdateGroup(
        name=changes.name,
        description=changes.description or "" if changes.description is not UNSET else UNSET,
        extra=extra(call, "group", GroupChanges) or UNSET,
    )
    with conflicts("group"):
        documents = await call.execute(Wish(GROUPS, document.id, command))
    return {"group": view(call, documents[0])}


async def delete(call: Call) -> None:
    document = await in_path(call, "identity:delete_group")
    grants = await call.cloud.documents.find(GRANT, where=[Where("parent_id", "=", document.id)], limit=None)
    await call.execute(Wish(GROUPS, document.id, DeleteGroup()), *revoke(f"group/{document.id}"), *revoke_all(grants))


routes = [
    Post("/groups", create, may="identity:create_group", body=NewGroupBody),
    Get("/groups", listing, may="identity:list_groups"),
    Get("/groups/{group_id}", show, may="identity:get_group"),
    Patch("/groups/{group_id}", update, may="identity:update_group", body=GroupChangesBody),
    Delete("/groups/{group_id}", delete, may="identity:delete_group"),
]
