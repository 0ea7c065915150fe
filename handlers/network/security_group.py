"""The rules of security groups: what is in them, what of a default group stays as it is, and which may go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import UNSET

from bus.cloud import Cloud
from bus.execute import Aggregate, Wish
from handlers.network.router import Outdated
from schema.changes import differing
from schema.event import Command
from schema.network.security_group import (
    DEFAULT,
    SECURITY_GROUP,
    AddSecurityRules,
    CreateSecurityGroup,
    DeleteSecurityGroup,
    RemoveSecurityRule,
    SecurityGroup,
    SecurityGroupCreated,
    SecurityGroupDeleted,
    SecurityGroupEvent,
    SecurityGroupShared,
    SecurityGroupUnshared,
    SecurityGroupUpdated,
    SecurityRule,
    SecurityRuleRemoved,
    SecurityRulesAdded,
    ShareSecurityGroup,
    UnshareSecurityGroup,
    UpdateSecurityGroup,
    members_of,
    named_by_rules,
)
from schema.refusal import Conflict, Invalid, NotFound, Refused

ABSENT, THERE, GONE = "absent", "there", "gone"
RULES = 1000
"""Rules in one group, at most, whatever the quota says."""

ALLOWED: dict[type[Command], set[str]] = {
    CreateSecurityGroup: {ABSENT},
    UpdateSecurityGroup: {THERE},
    AddSecurityRules: {THERE},
    RemoveSecurityRule: {THERE},
    ShareSecurityGroup: {THERE},
    UnshareSecurityGroup: {THERE},
    DeleteSecurityGroup: {THERE},
}


def decide(group: SecurityGroup, command: Command) -> list[SecurityGroupEvent]:
    if _already_so(group, command):
        return []
    if status(group) not in ALLOWED[type(command)]:
        raise _wrong_status(group, command)
    match command:
        case CreateSecurityGroup():
            _refuse_doubles(group, (), command.rules)
            created = {name: getattr(command, name) for name in command.__struct_fields__}
            return [SecurityGroupCreated(**created)]
        case UpdateSecurityGroup():
            return _update(group, command)
        case AddSecurityRules():
            fresh = tuple(rule for rule in command.rules if group.rule(rule.id) is None)
            _refuse_doubles(group, group.rules, fresh)
            return [SecurityRulesAdded(rules=fresh)]
        case RemoveSecurityRule():
            return [SecurityRuleRemoved(rule_id=command.rule_id)]
        case ShareSecurityGroup():
            return [SecurityGroupShared(project_id=command.project_id)]
        case UnshareSecurityGroup():
            return [SecurityGroupUnshared(project_id=command.project_id)]
        case DeleteSecurityGroup():
            if group.is_default and not command.even_default:
                raise Conflict(
                    "Insufficient rights for removing default security group.",
                    code="SecurityGroupCannotRemoveDefault",
                )
            if command.rule_ids is not UNSET and not {rule.id for rule in group.rules} <= set(command.rule_ids):
                raise Outdated(f"Security group {group.id} has other rules by now; try again.", code="Conflict")
            return [SecurityGroupDeleted()]
    raise TypeError(f"security groups know no {type(command).__name__}")


def status(group: Any) -> str:
    if group.living:
        return THERE
    return GONE if group.deleted_at else ABSENT


def not_found(id: str) -> NotFound:
    return NotFound(f"Security group {id} does not exist", code="SecurityGroupNotFound")


def in_use(id: str) -> Conflict:
    return Conflict(f"Security Group {id} in use.", code="SecurityGroupInUse")


def rule_exists(id: str) -> Conflict:
    return Conflict(f"Security group rule already exists. Rule id is {id}.", code="SecurityGroupRuleExists")


def standing(ids: Iterable[str]) -> list[Wish]:
    """For the append of what comes to be in these groups, or to name them: refused when one is gone by then."""
    return [Wish(SECURITY_GROUPS, id, UpdateSecurityGroup()) for id in dict.fromkeys(ids)]


async def refuse_mixed(cloud: Cloud, ports: Iterable[Sequence[str]]) -> None:
    """Raises Conflict when a port is to be both in groups that follow connections and in such that do not.

    `ports`: of each the ids of its groups.
    """
    several = [ids for ids in ports if len(ids) > 1]
    streams = dict.fromkeys(SECURITY_GROUP.stream(id) for ids in several for id in ids)
    found = {it.id: it.state for it in (await cloud.executor.load(list(streams))).values()} if several else {}
    for ids in several:
        if len({found[id].stateful for id in ids if id in found}) > 1:
            raise Conflict(
                "Error Cannot apply both stateful and stateless security groups on the same port at the same time "
                "while attempting the operation.",
                code="SecurityGroupConflict",
            )


def ending(group: SecurityGroup, *, even_default: bool) -> Wish:
    """Its end; StillHeld when ports are in it, or rules name it that do not go in the same append."""
    command = DeleteSecurityGroup(even_default=even_default, rule_ids=tuple(rule.id for rule in group.rules))
    return Wish(SECURITY_GROUPS, group.id, command, vacant=(members_of(group.id), named_by_rules(group.id)))


def _already_so(group: SecurityGroup, command: Command) -> bool:
    match command:
        case CreateSecurityGroup():
            return group.living and (group.name, group.project_id) == (command.name, command.project_id)
        case UpdateSecurityGroup():
            return group.living and not differing(group, command)
        case AddSecurityRules():
            return group.living and all(group.rule(rule.id) is not None for rule in command.rules)
        case RemoveSecurityRule():
            return group.created_at is not None and group.rule(command.rule_id) is None
        case ShareSecurityGroup():
            return group.living and command.project_id in group.shared_with
        case UnshareSecurityGroup():
            return command.project_id not in group.shared_with or not group.living
        case DeleteSecurityGroup():
            return group.deleted_at is not None
    return False


def _update(group: SecurityGroup, command: UpdateSecurityGroup) -> list[SecurityGroupEvent]:
    changes = differing(group, command)
    if group.is_default and "name" in changes:
        raise Conflict("Updating default security group not allowed.", code="SecurityGroupCannotUpdateDefault")
    if changes.get("name") == DEFAULT:
        raise default_exists()
    return [SecurityGroupUpdated(**changes)]


def default_exists() -> Conflict:
    return Conflict("Default security group already exists.", code="SecurityGroupDefaultAlreadyExists")


def _refuse_doubles(group: SecurityGroup, there: tuple[SecurityRule, ...], more: tuple[SecurityRule, ...]) -> None:
    if len(there) + len(more) > RULES:
        raise Invalid(f"Security group {group.id} would have more than {RULES} rules, the most a group may have.")
    wanted = {rule.match for rule in more}
    if len(wanted) < len(more):
        raise Conflict("Duplicate Security Group Rule in POST.", code="DuplicateSecurityGroupRuleInPost")
    for rule in there:
        if rule.match in wanted:
            raise rule_exists(rule.id)


def _wrong_status(group: SecurityGroup, command: Command) -> Refused:
    if isinstance(command, CreateSecurityGroup):
        return Conflict(f"The id {group.id} is or was another security group's; ids are not used again.")
    return not_found(group.id)


SECURITY_GROUPS = Aggregate(SECURITY_GROUP, decide, ALLOWED)
