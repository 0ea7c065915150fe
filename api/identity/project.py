"""Projects and their hierarchy: `/v3/projects`. A domain can be seen, and made, as a project that acts as one."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.identity import domain
from api.identity.words import (
    Id,
    Options,
    ShortName,
    Tags,
    Text,
    conditions_of,
    conflicts,
    extra,
    found,
    listed,
    shown,
    whole,
    within,
)
from api.wire import Call, Delete, Get, Patch, Post
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.identity.credential import APPLICATION_CREDENTIALS
from handlers.identity.domain import DOMAINS
from handlers.identity.grant import revoke_all
from handlers.identity.project import DEPTH, PROJECTS
from handlers.identity.resource import not_found
from handlers.identity.revocation import revoke
from schema.identity.credential import APPLICATION_CREDENTIAL, DeleteApplicationCredential
from schema.identity.domain import DOMAIN, CreateDomain
from schema.identity.grant import GRANT
from schema.identity.project import PROJECT, CreateProject, DeleteProject, UpdateProject
from schema.refusal import Forbidden, Invalid


class NewProject(msgspec.Struct):
    name: ShortName
    domain_id: Id | None = None
    parent_id: Id | None = None
    is_domain: bool = False
    description: Text | None = None
    enabled: bool = True
    tags: Tags = []
    options: Options = {}


class NewProjectBody(msgspec.Struct):
    project: NewProject


class ProjectChanges(msgspec.Struct):
    name: ShortName | UnsetType = UNSET
    domain_id: Id | UnsetType | None = UNSET
    parent_id: Id | UnsetType | None = UNSET
    is_domain: bool | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    options: Options | UnsetType = UNSET


class ProjectChangesBody(msgspec.Struct):
    project: ProjectChanges


def view(call: Call, document: Document) -> dict[str, Any]:
    """A project; or a domain, as the project that acts as it."""
    state = document.state
    is_domain = document.stream.startswith("domain/")
    return shown(
        call,
        "projects",
        document,
        name=state.name,
        domain_id=None if is_domain else state.domain_id,
        parent_id=None if is_domain else state.parent_id,
        is_domain=is_domain,
        description=state.description,
        enabled=state.enabled,
        tags=list(state.tags),
        options=state.options,
    )


async def create(call: Call) -> dict[str, Any]:
    new: NewProject = call.body.project
    common: dict[str, Any] = {
        "name": new.name,
        "description": new.description or "",
        "enabled": new.enabled,
        "tags": tuple(dict.fromkeys(new.tags)),
        "options": new.options,
        "extra": extra(call, "project", NewProject),
    }
    if new.is_domain:
        call.must("identity:create_domain")
        if new.parent_id or new.domain_id:
            raise Invalid("A project that acts as a domain cannot have a parent or a domain.")
        with conflicts("domain"):
            documents = await call.execute(Wish(DOMAINS, clock.hex_id(), CreateDomain(**common)))
        return {"project": view(call, documents[0])}
    domain_id, ancestors = await _place(call, new)
    call.must("identity:create_project", domain_id=domain_id)
    command = CreateProject(domain_id=domain_id, ancestors=ancestors, **common)
    with conflicts("project"):
        documents = await call.execute(Wish(PROJECTS, clock.hex_id(), command))
    return {"project": view(call, documents[0])}


async def _place(call: Call, new: NewProject) -> tuple[str, tuple[str, ...]]:
    """Domain and ancestors of a project to be. Without either named, the domain of the caller's scope."""
    domain_id = new.domain_id
    if new.parent_id and new.parent_id != domain_id:
        documents = await call.cloud.documents.get_many(PROJECT, [new.parent_id])
        parent = documents.get(new.parent_id)
        if parent is not None and parent.state.living:
            if domain_id and domain_id != parent.state.domain_id:
                raise Invalid("Invalid domain_id: a project must be of the same domain as its parent.")
            if not parent.state.enabled:
                raise Forbidden(f"Cannot create a project below project {parent.id}, which is disabled.")
            ancestors = (parent.id, *parent.state.ancestors)
            if len(ancestors) > DEPTH:
                raise Forbidden(f"Max hierarchy depth reached: projects may lie {DEPTH} deep.")
            return parent.state.domain_id, ancestors
        if domain_id:
            raise not_found("project", new.parent_id)
        domain_id = new.parent_id
    token = call.token
    domain_id = domain_id or token.domain_id or token.project_domain_id or token.user_domain_id
    house = await found(call, DOMAIN, domain_id)
    if not house.state.enabled:
        raise Forbidden(f"Cannot create a project in domain {house.id}, which is disabled.")
    return house.id, (house.id,)


FILTERS = {
    "name": "name",
    "enabled": "enabled",
    "domain_id": "domain_id",
    "parent_id": "parent_id",
}


async def listing(call: Call) -> dict[str, Any]:
    query = call.query
    if query.get("is_domain", "").lower() in {"true", "1"}:
        return await listed(call, DOMAIN, "projects", view, fields={"name": "name", "enabled": "enabled"})
    where = [*within(call), *(Where("tags", "has", tag) for tag in _tags(query.get("tags")))]
    if not {"tags-any", "not-tags", "not-tags-any"}.isdisjoint(query):
        documents = await call.cloud.documents.find(PROJECT, where=[*where, *conditions_of(call, FILTERS)], limit=None)
        return whole(call, "projects", [view(call, document) for document in documents if _tagged(call, document)])
    return await listed(call, PROJECT, "projects", view, where=where, fields=FILTERS)


def _tagged(call: Call, document: Document) -> bool:
    """Whether a project passes the filters that ask for any of some tags, or for their absence."""
    query, tags = call.query, set(document.state.tags)
    if "tags-any" in query and tags.isdisjoint(_tags(query["tags-any"])):
        return False
    if "not-tags" in query and tags.issuperset(_tags(query["not-tags"])):
        return False
    return "not-tags-any" not in query or tags.isdisjoint(_tags(query["not-tags-any"]))


def _tags(text: str | None) -> list[str]:
    return [tag for tag in (text or "").split(",") if tag]


async def show(call: Call) -> dict[str, Any]:
    id = call.path["project_id"]
    documents = await call.cloud.documents.get_many(PROJECT, [id])
    document = documents.get(id)
    if document is None or not document.state.living:
        if document is None and call.may("identity:get_domain", domain_id=id):
            return {"project": view(call, await _domain(call, id))}
        raise not_found("project", id)
    call.must("identity:get_project", project_id=id, domain_id=document.state.domain_id)
    answer = view(call, document)
    query = call.query
    if "parents_as_list" in query or "parents_as_ids" in query:
        answer["parents"] = await _parents(call, document, as_list="parents_as_list" in query)
    if "subtree_as_list" in query or "subtree_as_ids" in query:
        answer["subtree"] = await _subtree(call, document, as_list="subtree_as_list" in query)
    return {"project": answer}


async def _domain(call: Call, id: str) -> Document:
    documents = await call.cloud.documents.get_many(DOMAIN, [id])
    if id not in documents or not documents[id].state.living:
        raise not_found("project", id)
    return documents[id]


async def _parents(call: Call, document: Document, *, as_list: bool) -> Any:
    ancestors = document.state.ancestors
    if as_list:
        parents = await call.cloud.documents.get_many(PROJECT, ancestors[:-1])
        return [{"project": view(call, parents[id])} for id in ancestors if id in parents]
    nested: dict[str, Any] | None = None
    for id in reversed(ancestors):
        nested = {id: nested}
    return nested


async def _subtree(call: Call, document: Document, *, as_list: bool) -> Any:
    below = await call.cloud.documents.find(PROJECT, where=[Where("ancestors", "has", document.id)], limit=None)
    if as_list:
        return [{"project": view(call, project)} for project in below]

    def nest(id: str) -> dict[str, Any] | None:
        return {project.id: nest(project.id) for project in below if project.state.parent_id == id} or None

    return nest(document.id)


async def update(call: Call) -> dict[str, Any]:
    document = await _project_or_domain(call)
    if document.stream.startswith("domain/"):
        call.must("identity:update_domain", domain_id=document.id)
        return {"project": view(call, await _change_domain(call, document))}
    call.must("identity:update_project", project_id=document.id, domain_id=document.state.domain_id)
    changes: ProjectChanges = call.body.project
    if changes.parent_id is not UNSET and changes.parent_id != document.state.parent_id:
        raise Forbidden("Update of `parent_id` is not allowed.")
    if changes.domain_id is not UNSET and changes.domain_id != document.state.domain_id:
        raise Invalid("Update of `domain_id` is not allowed.")
    if changes.is_domain is True:
        raise Invalid("Update of `is_domain` is not allowed.")
    await _check_enabled(call, document, changes)
    command = UpdateProject(
        name=changes.name,
        description=changes.description or "" if changes.description is not UNSET else UNSET,
        enabled=changes.enabled,
        tags=tuple(dict.fromkeys(changes.tags)) if changes.tags is not UNSET else UNSET,
        options=changes.options,
        extra=extra(call, "project", ProjectChanges) or UNSET,
    )
    ends = revoke(f"project/{document.id}") if changes.enabled is False else ()
    with conflicts("project"):
        documents = await call.execute(Wish(PROJECTS, document.id, command), *ends)
    return {"project": view(call, documents[0])}


async def _check_enabled(call: Call, document: Document, changes: ProjectChanges) -> None:
    """A disabled project has no enabled ones below it."""
    find = call.cloud.documents
    if changes.enabled is False:
        below = [Where("ancestors", "has", document.id), Where("enabled", "=", True)]
        if await find.find(PROJECT, where=below, limit=1):
            raise Forbidden(f"Cannot disable project {document.id} since its subtree contains enabled projects.")
    elif changes.enabled is True and not document.state.enabled:
        above = await find.get_many(PROJECT, document.state.ancestors[:-1])
        if any(not parent.state.enabled for parent in above.values()):
            raise Forbidden(f"Cannot enable project {document.id} since it has disabled parents.")


async def _project_or_domain(call: Call) -> Document:
    """What the path names. Raises NotFound for neither."""
    id = call.path["project_id"]
    document = (await call.cloud.documents.get_many(PROJECT, [id])).get(id)
    return document if document is not None and document.state.living else await _domain(call, id)


async def _change_domain(call: Call, document: Document) -> Document:
    """A domain changed as the project it also is."""
    changes: ProjectChanges = call.body.project
    if changes.is_domain is False:
        raise Invalid("Update of `is_domain` is not allowed.")
    if changes.parent_id or changes.domain_id:
        raise Invalid("A project that acts as a domain cannot have a parent or a domain.")
    same = domain.DomainChanges(
        name=changes.name,
        description=changes.description,
        enabled=changes.enabled,
        tags=changes.tags,
        options=changes.options,
    )
    return await domain.change(call, document, same, extra(call, "project", ProjectChanges))


async def delete(call: Call) -> None:
    document = await _project_or_domain(call)
    if document.stream.startswith("domain/"):
        call.must("identity:delete_domain", domain_id=document.id)
        await domain.end(call, document)
        return
    id = document.id
    call.must("identity:delete_project", project_id=id, domain_id=document.state.domain_id)
    find = call.cloud.documents.find
    if await find(PROJECT, where=[Where("parent_id", "=", id)], limit=1):
        raise Forbidden(f"Cannot delete the project {id} since it is not a leaf in the hierarchy.")
    grants = await find(GRANT, where=[Where("project_id", "=", id)], limit=None)
    credentials = await find(APPLICATION_CREDENTIAL, where=[Where("project_id", "=", id)], limit=None)
    await call.execute(
        Wish(PROJECTS, id, DeleteProject()),
        *revoke(f"project/{id}"),
        *revoke_all(grants),
        *(Wish(APPLICATION_CREDENTIALS, credential.id, DeleteApplicationCredential()) for credential in credentials),
    )


routes = [
    Post("/projects", create, may="identity:create_project", body=NewProjectBody),
    Get("/projects", listing, may="identity:list_projects"),
    Get("/projects/{project_id}", show, may="identity:get_project"),
    Patch("/projects/{project_id}", update, may="identity:update_project", body=ProjectChangesBody),
    Delete("/projects/{project_id}", delete, may="identity:delete_project"),
]
