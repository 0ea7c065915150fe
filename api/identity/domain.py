"""Domains: `/v3/domains`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.identity.words import Options, ShortName, Tags, Text, conflicts, extra, found, listed, shown
from api.wire import Call, Delete, Get, Patch, Post
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.identity.credential import APPLICATION_CREDENTIALS
from handlers.identity.domain import DOMAINS
from handlers.identity.grant import revoke_all
from handlers.identity.group import GROUPS
from handlers.identity.project import PROJECTS
from handlers.identity.revocation import revoke
from handlers.identity.role import ROLES
from handlers.identity.user import USERS
from schema.identity.credential import APPLICATION_CREDENTIAL, DeleteApplicationCredential
from schema.identity.domain import DOMAIN, CreateDomain, DeleteDomain, UpdateDomain
from schema.identity.grant import GRANT
from schema.identity.group import GROUP, DeleteGroup
from schema.identity.project import PROJECT, DeleteProject
from schema.identity.role import ROLE, DeleteRole
from schema.identity.user import USER, DeleteUser
from schema.refusal import Forbidden


class NewDomain(msgspec.Struct):
    name: ShortName
    description: Text | None = None
    enabled: bool = True
    tags: Tags = []
    options: Options = {}


class NewDomainBody(msgspec.Struct):
    domain: NewDomain


class DomainChanges(msgspec.Struct):
    name: ShortName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    options: Options | UnsetType = UNSET


class DomainChangesBody(msgspec.Struct):
    domain: DomainChanges


def view(call: Call, document: Document) -> dict[str, Any]:
    domain = document.state
    return shown(
        call,
        "domains",
        document,
        name=domain.name,
        description=domain.description,
        enabled=domain.enabled,
        tags=list(domain.tags),
        options=domain.options,
    )


async def create(call: Call) -> dict[str, Any]:
    new: NewDomain = call.body.domain
    command = CreateDomain(
        name=new.name,
        description=new.description or "",
        enabled=new.enabled,
        tags=tuple(dict.fromkeys(new.tags)),
        options=new.options,
        extra=extra(call, "domain", NewDomain, "explicit_domain_id"),
    )
    with conflicts("domain"):
        documents = await call.execute(Wish(DOMAINS, clock.hex_id(), command))
    return {"domain": view(call, documents[0])}


async def listing(call: Call) -> dict[str, Any]:
    own = call.token.domain_id
    where = [Where("id", "=", own)] if own and not call.token.is_admin else []
    return await listed(call, DOMAIN, "domains", view, where=where, fields={"name": "name", "enabled": "enabled"})


async def show(call: Call) -> dict[str, Any]:
    call.must("identity:get_domain", domain_id=call.path["domain_id"])
    return {"domain": view(call, await found(call, DOMAIN, call.path["domain_id"]))}


async def update(call: Call) -> dict[str, Any]:
    document = await found(call, DOMAIN, call.path["domain_id"])
    changes: DomainChanges = call.body.domain
    kept = extra(call, "domain", DomainChanges)
    return {"domain": view(call, await change(call, document, changes, kept))}


async def change(call: Call, document: Document, changes: DomainChanges, kept: dict[str, Any]) -> Document:
    """The domain, changed; `kept`: attributes beyond the known ones."""
    command = UpdateDomain(
        name=changes.name,
        description=changes.description or "" if changes.description is not UNSET else UNSET,
        enabled=changes.enabled,
        tags=tuple(dict.fromkeys(changes.tags)) if changes.tags is not UNSET else UNSET,
        options=changes.options,
        extra=kept or UNSET,
    )
    ends = revoke(f"domain/{document.id}") if changes.enabled is False else ()
    with conflicts("domain"):
        documents = await call.execute(Wish(DOMAINS, document.id, command), *ends)
    return documents[0]


async def delete(call: Call) -> None:
    await end(call, await found(call, DOMAIN, call.path["domain_id"]))


async def end(call: Call, document: Document) -> None:
    """The domain with everything in it goes. Raises Forbidden while it is enabled."""
    if document.state.enabled:
        raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
    find = call.cloud.documents.find
    here = [Where("domain_id", "=", document.id)]
    users = await find(USER, where=here, limit=None)
    groups = await find(GROUP, where=here, limit=None)
    projects = await find(PROJECT, where=here, limit=None)
    roles = await find(ROLE, where=here, limit=None)
    targets = [document.id, *(project.id for project in projects)]
    actors = [thing.id for thing in (*users, *groups)]
    grants = {grant.id: grant for grant in await find(GRANT, where=[Where("project_id", "in", targets)], limit=None)}
    grants |= {grant.id: grant for grant in await find(GRANT, where=[Where("parent_id", "in", actors)], limit=None)}
    of_users = [Where("parent_id", "in", [user.id for user in users])]
    credentials = await find(APPLICATION_CREDENTIAL, where=of_users, limit=None)
    await call.execute(
        Wish(DOMAINS, document.id, DeleteDomain()),
        *revoke(f"domain/{document.id}", *(f"group/{group.id}" for group in groups)),
        *revoke_all(list(grants.values())),
        *(Wish(APPLICATION_CREDENTIALS, credential.id, DeleteApplicationCredential()) for credential in credentials),
        *(Wish(USERS, user.id, DeleteUser()) for user in users),
        *(Wish(GROUPS, group.id, DeleteGroup()) for group in groups),
        *(Wish(PROJECTS, project.id, DeleteProject()) for project in projects),
        *(Wish(ROLES, role.id, DeleteRole()) for role in roles),
    )
    for user in users:
        await call.cloud.vault.erase(f"user/{user.id}")


routes = [
    Post("/domains", create, may="identity:create_domain", body=NewDomainBody),
    Get("/domains", listing, may="identity:list_domains"),
    Get("/domains/{domain_id}", show, may="identity:get_domain"),
    Patch("/domains/{domain_id}", update, may="identity:update_domain", body=DomainChangesBody),
    Delete("/domains/{domain_id}", delete, may="identity:delete_domain"),
]
