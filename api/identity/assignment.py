"""Who has which role where, over everything: `/v3/role_assignments`, as granted or as it takes effect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from api.identity.words import whole
from api.wire import Call, Get
from api.wire.query import boolean
from bus.documents import Where
from bus.log import Document
from handlers.identity.role import with_implied
from schema.event import Kind
from schema.identity.domain import DOMAIN
from schema.identity.grant import GRANT, SYSTEM, Grant
from schema.identity.group import GROUP
from schema.identity.project import PROJECT
from schema.identity.role import ROLE, Role
from schema.identity.user import USER
from schema.refusal import Invalid


class Line(msgspec.Struct, frozen=True):
    """One role of one actor on one target."""

    role: str
    actor: str
    actor_id: str
    target: str
    target_id: str
    inherited: bool = False
    group: str = ""
    """The group it comes from, where that is the reason."""
    prior: str = ""
    """The role that implies this one."""
    above: str = ""
    above_id: str = ""
    """What the role was granted on (project or domain, and its id), where it is inherited from there."""


async def listing(call: Call) -> dict[str, Any]:
    query = call.query
    effective = _flag(query.get("effective"))
    names = _flag(query.get("include_names"))
    if effective and "group.id" in query:
        raise Invalid("Combining effective and group filter will always result in an empty list.")
    lines = _lines(await _grants(call, effective=effective))
    if effective:
        lines = await _effective(call, lines)
    lines = [line for line in lines if _wanted(call, line)]
    shown = await _Names(call).load(lines) if names else None
    return whole(call, "role_assignments", [_view(call, line, shown) for line in lines])


def _flag(value: str | None) -> bool:
    """A flag by being there: `?effective` and `?effective=1`, but not `?effective=0`."""
    return value is not None and boolean(value) is not False


async def _grants(call: Call, *, effective: bool) -> list[Document]:
    """The grants the filters could be about."""
    query = call.query
    where = []
    if "user.id" in query:
        actors = [query["user.id"]]
        if effective:
            users = await call.cloud.documents.get_many(USER, actors)
            actors += [group for user in users.values() for group in user.state.groups]
        where.append(Where("parent_id", "in", actors))
    elif "group.id" in query:
        where.append(Where("parent_id", "=", query["group.id"]))
    targets = await _targets(call, effective=effective)
    if targets is not None:
        where.append(Where("project_id", "in", targets))
    return await call.cloud.documents.find(GRANT, where=where, limit=None)


async def _targets(call: Call, *, effective: bool) -> list[str] | None:
    query = call.query
    if "scope.project.id" in query:
        id = query["scope.project.id"]
        targets = [id]
        if effective or "include_subtree" in query:
            projects = await call.cloud.documents.get_many(PROJECT, [id])
            targets += [ancestor for project in projects.values() for ancestor in project.state.ancestors]
        if _flag(query.get("include_subtree")):
            below = await call.cloud.documents.find(PROJECT, where=[Where("ancestors", "has", id)], limit=None)
            targets += [project.id for project in below]
        return targets
    if "scope.domain.id" in query:
        return [query["scope.domain.id"]]
    if "scope.system" in query:
        return [SYSTEM]
    return None


def _lines(grants: Iterable[Document]) -> list[Line]:
    lines = []
    for document in grants:
        grant: Grant = document.state
        plain = Line("", grant.actor, grant.actor_id, grant.target, grant.target_id)
        lines += [replace(plain, role=role) for role in grant.roles]
        lines += [replace(plain, role=role, inherited=True) for role in grant.inherited]
    return lines


async def _effective(call: Call, lines: Sequence[Line]) -> list[Line]:
    """Groups become their users, inherited roles those of the projects below, and every role brings what it implies."""
    find = call.cloud.documents
    groups = {line.actor_id for line in lines if line.actor == "group"}
    users: dict[str, list[str]] = {}
    for group in groups:
        members = await find.find(USER, where=[Where("groups", "has", group)], limit=None)
        users[group] = [member.id for member in members]
    below: dict[str, list[str]] = {}
    for above in {line.target_id for line in lines if line.inherited}:
        projects = await find.find(PROJECT, where=[Where("ancestors", "has", above)], limit=None)
        below[above] = [project.id for project in projects]
    roles: dict[str, Role] = {it.id: it.state for it in await find.find(ROLE, limit=None)}
    found_lines: dict[Line, None] = {}
    for line in lines:
        people = [(line.actor_id, "")]
        if line.actor == "group":
            people = [(member, line.actor_id) for member in users[line.actor_id]]
        places = [(line.target, line.target_id, "", "")]
        if line.inherited:
            places = [("project", project, line.target, line.target_id) for project in below[line.target_id]]
        for role in with_implied([line.role], roles.get):
            prior = "" if role.id == line.role else line.role
            for person, group in people:
                for target, target_id, above, above_id in places:
                    effect = Line(
                        role.id, "user", person, target, target_id, line.inherited, group, prior, above, above_id
                    )
                    found_lines[effect] = None
    return list(found_lines)


def _wanted(call: Call, line: Line) -> bool:
    """The filters again, on what the lines have become; and what a domain's reader may see."""
    query = call.query
    if line.role != query.get("role.id", line.role):
        return False
    if line.actor == "user" and "user.id" in query and line.actor_id != query["user.id"]:
        return False
    if "scope.project.id" in query:
        if line.target != "project":
            return False
        if not _flag(query.get("include_subtree")) and line.target_id != query["scope.project.id"]:
            return False
    if "scope.domain.id" in query and (line.target, line.target_id) != ("domain", query["scope.domain.id"]):
        return False
    if "scope.system" in query and line.target != "system":
        return False
    return not ("scope.OS-INHERIT:inherited_to" in query and not line.inherited)


class _Names:
    """Names of everything the lines mention."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.known: dict[tuple[str, str], Any] = {}

    async def load(self, lines: Sequence[Line]) -> _Names:
        wanted: dict[str, tuple[Kind[Any], set[str]]] = {
            "role": (ROLE, {line.role for line in lines}),
            "user": (USER, {line.actor_id for line in lines if line.actor == "user"}),
            "group": (GROUP, {line.actor_id for line in lines if line.actor == "group"}),
            "project": (PROJECT, {line.target_id for line in lines if line.target == "project"}),
            "domain": (DOMAIN, {line.target_id for line in lines if line.target == "domain"}),
        }
        for what, (kind, ids) in wanted.items():
            for id, document in (await self.call.cloud.documents.get_many(kind, list(ids))).items():
                self.known[what, id] = document.state
        houses = {getattr(state, "domain_id", None) or "" for state in self.known.values()} - {""}
        for id, document in (await self.call.cloud.documents.get_many(DOMAIN, sorted(houses))).items():
            self.known["domain", id] = document.state
        return self

    def of(self, what: str, id: str) -> dict[str, Any]:
        state = self.known.get((what, id))
        if state is None:
            return {"id": id}
        answer: dict[str, Any] = {"id": id, "name": state.name}
        house = getattr(state, "domain_id", None)
        if house is not None:
            domain = self.known.get(("domain", house))
            answer["domain"] = {"id": house, "name": domain.name if domain else ""}
        return answer


def _view(call: Call, line: Line, names: _Names | None) -> dict[str, Any]:
    def named(what: str, id: str) -> dict[str, Any]:
        return names.of(what, id) if names else {"id": id}

    scope: dict[str, Any] = {"system": {"all": True}}
    if line.target != "system":
        scope = {line.target: named(line.target, line.target_id)}
    if line.inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
    return {
        "role": named("role", line.role),
        line.actor: named(line.actor, line.actor_id),
        "scope": scope,
        "links": _links(call, line),
    }


def _links(call: Call, line: Line) -> dict[str, str]:
    actor, actor_id = ("group", line.group) if line.group else (line.actor, line.actor_id)
    role = line.prior or line.role
    where = "/system" if line.target == "system" else f"/{line.above or line.target}s/{line.above_id or line.target_id}"
    path = f"{where}/{actor}s/{actor_id}/roles/{role}"
    if line.inherited:
        path = f"/OS-INHERIT{path}/inherited_to_projects"
    links = {"assignment": call.url(path)}
    if line.group:
        links["membership"] = call.url(f"/groups/{line.group}/users/{line.actor_id}")
    if line.prior:
        links["prior_role"] = call.url(f"/roles/{line.prior}")
    return links


routes = [Get("/role_assignments", listing, may="identity:list_role_assignments")]
