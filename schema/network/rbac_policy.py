"""An RBAC policy: that a project may use a thing of another's.

(absent) ──RbacPolicyCreated──▶ there ──RbacPolicyRetargeted──▶ there ──RbacPolicyDeleted──▶ gone

The thing itself says with whom it is shared; a policy is that sharing's name and owner, made, moved and ended in the
same append. `shared` and `router:external` of a network are policies for everybody (`*`), and no different.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Key, Kind, Said, State

EVERYBODY = "*"
SHARED, EXTERNAL = "access_as_shared", "access_as_external"


class RbacPolicy(State):
    project_id: str = ""
    parent_id: str | None = None
    """The thing that is shared."""
    object_type: str = ""
    action: str = SHARED
    target_project: str = EVERYBODY

    @property
    def object_id(self) -> str:
        return self.parent_id or ""


class _NewRbacPolicy(Said):
    project_id: str
    parent_id: str
    object_type: str
    action: str
    target_project: str


class RbacPolicyCreated(Event, _NewRbacPolicy):
    """It is there."""


class RbacPolicyRetargeted(Event):
    target_project: str


class RbacPolicyDeleted(Event):
    pass


RbacPolicyEvent = RbacPolicyCreated | RbacPolicyRetargeted | RbacPolicyDeleted


class CreateRbacPolicy(Command, _NewRbacPolicy):
    """Make it."""


class RetargetRbacPolicy(Command):
    target_project: str


class DeleteRbacPolicy(Command):
    pass


def evolve(policy: RbacPolicy, event: RbacPolicyEvent, at: datetime) -> RbacPolicy:
    match event:
        case RbacPolicyCreated() | RbacPolicyRetargeted():
            return applied(policy, event)
        case RbacPolicyDeleted():
            return replace(policy, deleted_at=at)


def _unique(policy: RbacPolicy) -> Iterable[Key]:
    """Nothing is shared twice in the same way."""
    yield "rbac policy", f"{policy.object_id} {policy.action} {policy.target_project}"


RBAC_POLICY = Kind("rbac-policy", RbacPolicy, RbacPolicyEvent, evolve, unique=_unique)
