"""Roles of users and groups on projects, domains and the system, plain and inherited.

/v3/{projects|domains}/{id}/{users|groups}/{id}/roles[/{id}], /v3/system/…, /v3/OS-INHERIT/…/inherited_to_projects
"""

from __future__ import annotations

from typing import Any

import msgspec

from api.identity.role import view
from api.identity.words import found, whole
from api.wire import Call, Delete, Get, Put, Route
from api.wire.route import Handler
from bus.execute import Wish
from bus.log import Document
from handlers.identity.grant import GRANTS, revoke_role
from schema.identity.domain import DOMAIN
from schema.identity.grant import GRANT, SYSTEM, Actor, GrantRole, Target, grant_id
from schema.identity.group import GROUP
from schema.identity.project import PROJECT
from schema.identity.role import ROLE
from schema.identity.user import USER
from schema.refusal import Forbidden, NotFound


class Door(msgspec.Struct, frozen=True):
    """One shape of URL: whose roles on what."""

    target: Target
    actor: Actor
    inherited: bool = False

    @property
    def path(self) -> str:
        where = "/system" if self.target == "system" else f"/{self.target}s/{{target_id}}"
        return f"{'/OS-INHERIT' if self.inherited else ''}{where}/{self.actor}s/{{actor_id}}/roles"

    @property
    def tail(self) -> str:
        return "/inherited_to_projects" if self.inherited else ""

    def rule(self, verb: str) -> str:
        middle = "system_grant" if self.target == "system" else "grant"
        return f"identity:{verb}_{middle}{'s' if verb == 'list' else ''}"

    async def actor_and_target(self, call: Call, verb: str) -> tuple[str, str]:
        """Ids of both. Raises NotFound unless both are there, Forbidden unless the caller may."""
        actor = await found(call, USER if self.actor == "user" else GROUP, call.path["actor_id"])
        if self.target == "system":
            return actor.id, SYSTEM
        target = await self._target(call)
        domain_id = target.id if target.stream.startswith("domain/") else target.state.domain_id
        call.must(self.rule(verb), domain_id=domain_id)
        call.must(self.rule(verb), domain_id=actor.state.domain_id)
        return actor.id, target.id

    async def _target(self, call: Call) -> Document:
        return await found(call, PROJECT if self.target == "project" else DOMAIN, call.path["target_id"])

    async def held(self, call: Call, actor_id: str, target_id: str) -> tuple[str, ...]:
        """The roles of that grant, of this door's sort."""
        id = grant_id(actor_id, target_id)
        grant = (await call.cloud.documents.get_many(GRANT, [id])).get(id)
        if grant is None or not grant.state.living:
            return ()
        roles: tuple[str, ...] = grant.state.inherited if self.inherited else grant.state.roles
        return roles

    def missing(self, call: Call) -> NotFound:
        path = call.path
        target = path.get("target_id", SYSTEM)
        return NotFound(
            f"Could not find role assignment with role: {path['role_id']}, user or group: {path['actor_id']}, "
            f"project, domain, or system: {target}."
        )


def _routes(door: Door) -> list[Route]:
    async def listing(call: Call) -> dict[str, Any]:
        roles = await door.held(call, *await door.actor_and_target(call, "list"))
        documents = await call.cloud.documents.get_many(ROLE, roles)
        return whole(call, "roles", [view(call, documents[id]) for id in roles if id in documents])

    async def check(call: Call) -> None:
        actor_id, target_id = await door.actor_and_target(call, "check")
        role = await found(call, ROLE, call.path["role_id"])
        if role.id not in await door.held(call, actor_id, target_id):
            raise door.missing(call)

    async def add(call: Call) -> None:
        actor_id, target_id = await door.actor_and_target(call, "create")
        role = await found(call, ROLE, call.path["role_id"])
        if role.state.name == "admin" and not call.token.is_admin:
            raise Forbidden("Only an admin may grant the role admin.")
        command = GrantRole(actor=door.actor, target=door.target, role_id=role.id, inherited=door.inherited)
        await call.execute(Wish(GRANTS, grant_id(actor_id, target_id), command))

    async def remove(call: Call) -> None:
        actor_id, target_id = await door.actor_and_target(call, "revoke")
        role = await found(call, ROLE, call.path["role_id"])
        if role.id not in await door.held(call, actor_id, target_id):
            raise door.missing(call)
        await call.execute(*revoke_role(actor_id, target_id, role.id, inherited=door.inherited))

    one = f"{door.path}/{{role_id}}{door.tail}"
    handlers: list[tuple[Any, Handler, str]] = [
        (Get, check, "check"),
        (Put, add, "create"),
        (Delete, remove, "revoke"),
    ]
    return [
        Get(f"{door.path}{door.tail}", listing, may=door.rule("list")),
        *(row(one, handler, may=door.rule(verb), answers=204) for row, handler, verb in handlers),
    ]


DOORS = [
    Door(target, actor, inherited)
    for target in ("project", "domain", "system")
    for actor in ("user", "group")
    for inherited in (False, True)
    if not (inherited and target == "system")
]

routes = [route for door in DOORS for route in _routes(door)]
