"""Roles and which imply which: `/v3/roles`, `/v3/role_inferences`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.identity.words import Id, Name, Options, Text, conditions_of, conflicts, extra, found, listed, shown, whole
from api.wire import Call, Delete, Get, Head, Patch, Post, Put
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.identity.grant import GRANTS
from handlers.identity.resource import not_found
from handlers.identity.revocation import revoke
from handlers.identity.role import ROLES
from schema.identity.domain import DOMAIN
from schema.identity.grant import GRANT, RevokeRole
from schema.identity.role import ROLE, CreateRole, DeleteRole, ImplyRole, StopImplyingRole, UpdateRole
from schema.refusal import Forbidden, Invalid


class NewRole(msgspec.Struct):
    name: Name
    domain_id: Id | None = None
    description: Text | None = None
    options: Options = {}


class NewRoleBody(msgspec.Struct):
    role: NewRole


class RoleChanges(msgspec.Struct):
    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    options: Options | UnsetType = UNSET


class RoleChangesBody(msgspec.Struct):
    role: RoleChanges


def view(call: Call, document: Document) -> dict[str, Any]:
    role = document.state
    return shown(
        call,
        "roles",
        document,
        name=role.name,
        domain_id=role.domain_id,
        description=role.description,
        options=role.options,
    )


async def create(call: Call) -> dict[str, Any]:
    new: NewRole = call.body.role
    if new.domain_id is not None:
        await found(call, DOMAIN, new.domain_id)
    command = CreateRole(
        name=new.name,
        domain_id=new.domain_id,
        description=new.description,
        options=new.options,
        extra=extra(call, "role", NewRole),
    )
    with conflicts("role"):
        documents = await call.execute(Wish(ROLES, clock.hex_id(), command))
    return {"role": view(call, documents[0])}


async def listing(call: Call) -> dict[str, Any]:
    """Roles of all; with `domain_id`, those of that domain."""
    where = [Where("domain_id", "=", call.query.get("domain_id") or None)]
    return await listed(call, ROLE, "roles", view, where=where, fields={"name": "name"})


async def show(call: Call) -> dict[str, Any]:
    return {"role": view(call, await found(call, ROLE, call.path["role_id"]))}


async def update(call: Call) -> dict[str, Any]:
    document = await found(call, ROLE, call.path["role_id"])
    changes: RoleChanges = call.body.role
    if changes.domain_id is not UNSET and changes.domain_id != document.state.domain_id:
        raise Invalid("Update of `domain_id` is not allowed.")
    command = UpdateRole(
        name=changes.name,
        description=changes.description,
        options=changes.options,
        extra=extra(call, "role", RoleChanges) or UNSET,
    )
    with conflicts("role"):
        documents = await call.execute(Wish(ROLES, document.id, command))
    return {"role": view(call, documents[0])}


async def delete(call: Call) -> None:
    """The role, and every grant of it."""
    document = await found(call, ROLE, call.path["role_id"])
    id = document.id
    find = call.cloud.documents.find
    plain = await find(GRANT, where=[Where("roles", "has", id)], limit=None)
    inherited = await find(GRANT, where=[Where("inherited", "has", id)], limit=None)
    implying = await find(ROLE, where=[Where("implies", "has", id)], limit=None)
    await call.execute(
        Wish(ROLES, id, DeleteRole()),
        *revoke(f"role/{id}"),
        *(Wish(GRANTS, grant.id, RevokeRole(role_id=id)) for grant in plain),
        *(Wish(GRANTS, grant.id, RevokeRole(role_id=id, inherited=True)) for grant in inherited),
        *(Wish(ROLES, role.id, StopImplyingRole(role_id=id)) for role in implying),
    )


def _short(call: Call, document: Document) -> dict[str, Any]:
    links = {"self": call.url(f"/roles/{document.id}")}
    return {"id": document.id, "name": document.state.name, "links": links}


async def _pair(call: Call) -> tuple[Document, Document]:
    prior = await found(call, ROLE, call.path["role_id"])
    return prior, await found(call, ROLE, call.path["implied_id"])


def _inference(call: Call, prior: Document, implied: Document) -> dict[str, Any]:
    inference = {"prior_role": _short(call, prior), "implies": _short(call, implied)}
    return {"role_inference": inference, "links": {"self": call.url(f"/roles/{prior.id}/implies/{implied.id}")}}


async def imply(call: Call) -> dict[str, Any]:
    prior, implied = await _pair(call)
    if implied.state.domain_id is not None and prior.state.domain_id is None:
        raise Forbidden(f"Role {implied.id} is of a domain: a role of all domains cannot imply it.")
    await call.execute(Wish(ROLES, prior.id, ImplyRole(role_id=implied.id)))
    return _inference(call, prior, implied)


async def check_implied(call: Call) -> dict[str, Any]:
    prior, implied = await _pair(call)
    if implied.id not in prior.state.implies:
        raise not_found("implied role", f"{prior.id} implies {implied.id}")
    return _inference(call, prior, implied)


async def stop_implying(call: Call) -> None:
    prior, implied = await _pair(call)
    if implied.id not in prior.state.implies:
        raise not_found("implied role", f"{prior.id} implies {implied.id}")
    await call.execute(Wish(ROLES, prior.id, StopImplyingRole(role_id=implied.id)), *revoke(f"role/{prior.id}"))


async def implied(call: Call) -> dict[str, Any]:
    prior = await found(call, ROLE, call.path["role_id"])
    documents = await call.cloud.documents.get_many(ROLE, prior.state.implies)
    implies = [_short(call, documents[id]) for id in prior.state.implies if id in documents]
    inference = {"prior_role": _short(call, prior), "implies": implies}
    return {"role_inference": inference, "links": {"self": call.url(f"/roles/{prior.id}/implies")}}


async def inferences(call: Call) -> dict[str, Any]:
    documents = {it.id: it for it in await call.cloud.documents.find(ROLE, where=conditions_of(call, {}), limit=None)}
    found_inferences = [
        {
            "prior_role": _short(call, prior),
            "implies": [_short(call, documents[id]) for id in prior.state.implies if id in documents],
        }
        for prior in documents.values()
        if prior.state.implies
    ]
    return whole(call, "role_inferences", found_inferences)


_IMPLIED = "/roles/{role_id}/implies/{implied_id}"

routes = [
    Post("/roles", create, may="identity:create_role", body=NewRoleBody),
    Get("/roles", listing, may="identity:list_roles"),
    Get("/roles/{role_id}", show, may="identity:get_role"),
    Patch("/roles/{role_id}", update, may="identity:update_role", body=RoleChangesBody),
    Delete("/roles/{role_id}", delete, may="identity:delete_role"),
    Get("/roles/{role_id}/implies", implied, may="identity:get_implied_role"),
    Get(_IMPLIED, check_implied, may="identity:get_implied_role"),
    Head(_IMPLIED, check_implied, may="identity:get_implied_role", answers=204),
    Put(_IMPLIED, imply, may="identity:create_implied_role", answers=201),
    Delete(_IMPLIED, stop_implying, may="identity:delete_implied_role"),
    Get("/role_inferences", inferences, may="identity:get_implied_role"),
]
