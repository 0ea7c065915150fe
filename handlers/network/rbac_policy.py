"""The rules of RBAC policies: they come, change whom they are for, and go."""

from __future__ import annotations

from bus.execute import Aggregate
from schema.changes import given
from schema.event import Command
from schema.network.rbac_policy import (
    RBAC_POLICY,
    CreateRbacPolicy,
    DeleteRbacPolicy,
    RbacPolicy,
    RbacPolicyCreated,
    RbacPolicyDeleted,
    RbacPolicyEvent,
    RbacPolicyRetargeted,
    RetargetRbacPolicy,
)
from schema.refusal import Conflict, NotFound, Refused

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateRbacPolicy: {ABSENT},
    RetargetRbacPolicy: {THERE},
    DeleteRbacPolicy: {THERE},
}


def decide(policy: RbacPolicy, command: Command) -> list[RbacPolicyEvent]:
    if _already_so(policy, command):
        return []
    if _status(policy) not in ALLOWED[type(command)]:
        raise _wrong_status(policy, command)
    match command:
        case CreateRbacPolicy():
            return [RbacPolicyCreated(**given(command))]
        case RetargetRbacPolicy():
            return [RbacPolicyRetargeted(target_project=command.target_project)]
        case DeleteRbacPolicy():
            return [RbacPolicyDeleted()]
    raise TypeError(f"RBAC policies know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"RBAC policy of type unknown with ID {id} not found", code="RbacPolicyNotFound")


def duplicate() -> Conflict:
    return Conflict("An RBAC policy already exists with those values.", code="DuplicateRbacPolicy")


def in_use(object_id: str, details: str) -> Conflict:
    return Conflict(
        f"RBAC policy on object {object_id} cannot be removed because other objects depend on it.\nDetails: {details}",
        code="RbacPolicyInUse",
    )


def _already_so(policy: RbacPolicy, command: Command) -> bool:
    match command:
        case CreateRbacPolicy():
            return policy.living and all(getattr(policy, name) == it for name, it in given(command).items())
        case RetargetRbacPolicy():
            return policy.living and policy.target_project == command.target_project
        case DeleteRbacPolicy():
            return policy.deleted_at is not None
    return False


def _wrong_status(policy: RbacPolicy, command: Command) -> Refused:
    if isinstance(command, CreateRbacPolicy):
        return Conflict(f"The id {policy.id} is or was another RBAC policy's; ids are not used again.")
    return not_found(policy.id)


def _status(policy: RbacPolicy) -> str:
    if policy.living:
        return THERE
    return GONE if policy.deleted_at else ABSENT


RBAC_POLICIES = Aggregate(RBAC_POLICY, decide, ALLOWED)
