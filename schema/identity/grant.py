"""The words of a grant: the roles one actor (user, group) has on one target (project, domain, the system).

The stream's id is `<actor>/<target>`. It ends when the last role goes, and may begin again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec.structs import replace

from schema.event import Command, Event, Kind, State

Actor = Literal["user", "group"]
Target = Literal["project", "domain", "system"]

SYSTEM = "system"
"""The id of the one system target."""


class RoleGranted(Event):
    actor: Actor
    target: Target
    role_id: str
    inherited: bool = False
    """Not on the target itself but on the projects below it."""


class RoleRevoked(Event):
    role_id: str
    inherited: bool = False


class Grant(State):
    actor: Actor = "user"
    target: Target = "project"
    roles: tuple[str, ...] = ()
    inherited: tuple[str, ...] = ()

    @property
    def actor_id(self) -> str:
        return self.id.partition("/")[0]

    @property
    def target_id(self) -> str:
        return self.id.partition("/")[2]

    @property
    def parent_id(self) -> str:
        """The actor, in the column that listings by actor search."""
        return self.actor_id

    @property
    def project_id(self) -> str:
        """The target, in the column that listings by target search."""
        return self.target_id


class GrantRole(Command):
    actor: Actor
    target: Target
    role_id: str
    inherited: bool = False


class RevokeRole(Command):
    role_id: str
    inherited: bool = False


class RevokeAllRoles(Command):
    """The actor or the target is going."""


def grant_id(actor_id: str, target_id: str) -> str:
    return f"{actor_id}/{target_id}"


def evolve(grant: Grant, event: Any, at: datetime) -> Grant:
    match event:
        case RoleGranted():
            grant = replace(grant, actor=event.actor, target=event.target, deleted_at=None)
            if event.inherited:
                return replace(grant, inherited=(*grant.inherited, event.role_id))
            return replace(grant, roles=(*grant.roles, event.role_id))
        case RoleRevoked():
            if event.inherited:
                grant = replace(grant, inherited=tuple(id for id in grant.inherited if id != event.role_id))
            else:
                grant = replace(grant, roles=tuple(id for id in grant.roles if id != event.role_id))
            return grant if grant.roles or grant.inherited else replace(grant, deleted_at=at)
    return grant


GRANT = Kind("grant", Grant, RoleGranted | RoleRevoked, evolve, reborn=RoleGranted)
