"""The rules of QoS policies: which rules go together, one default for a project, and that one in use stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Aggregate, AlreadyTaken, Wish
from schema.changes import differing, given
from schema.event import Command, Kind
from schema.network.floating_ip import FLOATING_IP
from schema.network.network import NETWORK
from schema.network.port import PORT
from schema.network.qos_policy import (
    DEFAULT_SCOPE,
    QOS_POLICY,
    UNSUPPORTED,
    AddQosRule,
    ChangeQosRule,
    CreateQosPolicy,
    DeleteQosPolicy,
    QosPolicy,
    QosPolicyCreated,
    QosPolicyDeleted,
    QosPolicyEvent,
    QosPolicyShared,
    QosPolicyUnshared,
    QosPolicyUpdated,
    QosRule,
    QosRuleAdded,
    QosRuleChanged,
    QosRuleRemoved,
    RemoveQosRule,
    RuleType,
    ShareQosPolicy,
    UnshareQosPolicy,
    UpdateQosPolicy,
    UseQosPolicy,
    users_of,
)
from schema.network.router import ROUTER
from schema.refusal import Conflict, Forbidden, NotFound, Refused

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateQosPolicy: {ABSENT},
    UpdateQosPolicy: {THERE},
    AddQosRule: {THERE},
    ChangeQosRule: {THERE},
    RemoveQosRule: {THERE},
    ShareQosPolicy: {THERE},
    UnshareQosPolicy: {THERE},
    UseQosPolicy: {THERE},
    DeleteQosPolicy: {THERE},
}


def decide(policy: QosPolicy, command: Command) -> Sequence[QosPolicyEvent]:
    if _already_so(policy, command):
        return []
    if _status(policy) not in ALLOWED[type(command)]:
        raise _wrong_status(policy, command)
    match command:
        case CreateQosPolicy():
            return [QosPolicyCreated(**given(command))]
        case UpdateQosPolicy():
            return [QosPolicyUpdated(**differing(policy, command))]
        case AddQosRule():
            _refuse_second(policy, command.rule)
            return [QosRuleAdded(rule=command.rule)]
        case ChangeQosRule():
            rule = _changed(policy, command)
            _refuse_second(policy, rule)
            return [QosRuleChanged(rule=rule)]
        case RemoveQosRule():
            return [QosRuleRemoved(rule_id=command.rule_id)]
        case ShareQosPolicy():
            return [QosPolicyShared(project_id=command.project_id)]
        case UnshareQosPolicy():
            if command.user:
                raise _needed(policy.id, command.user)
            return [QosPolicyUnshared(project_id=command.project_id)]
        case UseQosPolicy() if command.operator or policy.usable(command.project_id):
            raise not_supported(next(it.type for it in policy.rules if it.type in UNSUPPORTED), "any driver here")
        case UseQosPolicy():
            raise not_found(policy.id)  # not for that project
        case DeleteQosPolicy():
            return [QosPolicyDeleted()]
    raise TypeError(f"QoS policies know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"QoS policy {id} could not be found.", code="QosPolicyNotFound")


def rule_not_found(id: str, policy_id: str) -> NotFound:
    return NotFound(f"QoS rule {id} for policy {policy_id} could not be found.", code="QosRuleNotFound")


def reworded(taken: AlreadyTaken) -> Refused:
    """That the project has a default policy, in Neutron's words."""
    if taken.scope != DEFAULT_SCOPE:
        return taken
    return Conflict(f"A default QoS policy exists for project {taken.key}.", code="QoSPolicyDefaultAlreadyExists")


def using(policy_id: str | None, project_id: str, *, operator: bool = False) -> list[Wish]:
    """What belongs into the append that gives something new this policy; None is no policy.

    Refused as not found where there is no such policy, or it is not for that project. `operator`: any will do.
    """
    if not policy_id:
        return []
    return [Wish(QOS_POLICIES, policy_id, UseQosPolicy(project_id=project_id, operator=operator))]


async def changing(
    cloud: Cloud, before: str | None, after: str | None | UnsetType, project_id: str, *, operator: bool = False
) -> list[Wish]:
    """What belongs into the append that gives something another policy (None: none any more; UNSET: the same).

    Raises Forbidden where the policy it has was given it by somebody whose policies are not that project's to take off.
    """
    if after is UNSET or after == before:
        return []
    if before and not operator:
        document = (await cloud.executor.load([QOS_POLICY.stream(before)])).get(QOS_POLICY.stream(before))
        if document is not None and not document.state.usable(project_id):
            raise Forbidden(
                f"Failed to remove provided policy {before} because you are not authorized.",
                code="PolicyRemoveAuthorizationError",
            )
    return using(after, project_id, operator=operator)


async def default_policy(cloud: Cloud, project_id: str) -> str | None:
    """The policy that a project's new networks have when they say nothing of one."""
    where = [Where("project_id", "=", project_id), Where("is_default", "=", True)]
    found = await cloud.documents.find(QOS_POLICY, where=where, limit=1)
    return found[0].id if found else None


def adding(policy_id: str, rule: QosRule) -> Wish:
    """One more rule; StillHeld when it says what no driver can do and something has the policy."""
    vacant = (users_of(policy_id),) if rule.type in UNSUPPORTED else ()
    return Wish(QOS_POLICIES, policy_id, AddQosRule(rule=rule), vacant=vacant)


def not_supported(type: str, user: str) -> Conflict:
    """`user`: as what it holds is called, `port 4f…`."""
    return Conflict(f"Rule {type} is not supported by {user}", code="QosRuleNotSupported")


def ending(policy_id: str) -> Wish:
    """The end of a policy; StillHeld when something has it."""
    return Wish(QOS_POLICIES, policy_id, DeleteQosPolicy(), vacant=(users_of(policy_id),))


def in_use(policy_id: str, user: str) -> Conflict:
    """`user`: as what it holds is called, `port 4f…`."""
    return Conflict(f"QoS Policy {policy_id} is used by {user}.", code="QosPolicyInUse")


async def unsharing(cloud: Cloud, policy_id: str, project_id: str) -> Wish:
    """That a project (`*`: any) may use it no more; refused while something of theirs has it."""
    document = (await cloud.executor.load([QOS_POLICY.stream(policy_id)])).get(QOS_POLICY.stream(policy_id))
    if document is None or not document.state.living:
        raise not_found(policy_id)
    policy: QosPolicy = document.state
    others = set(policy.shared_with) - {project_id}
    if "*" in others:
        user = ""
    elif project_id == "*":
        # Its own project as well, as Neutron has it: who takes it from all shall see to what is left.
        user = await _user(cloud, policy_id, Where("project_id", "not in", sorted(others)))
    else:
        user = await _user(cloud, policy_id, Where("project_id", "=", project_id))
    return Wish(QOS_POLICIES, policy_id, UnshareQosPolicy(project_id=project_id, user=user))


_USERS: tuple[tuple[Kind[Any], str, str], ...] = (
    (NETWORK, "network", "qos_policy_id"),
    (PORT, "port", "qos_policy_id"),
    (FLOATING_IP, "floatingip", "qos_policy_id"),
    (ROUTER, "router", "gateway.qos_policy_id"),
)
"""What may have a policy, as Neutron names it, and where it says so."""


async def _user(cloud: Cloud, policy_id: str, *where: Where) -> str:
    """Something that has the policy; empty: nothing."""
    for kind, name, field in _USERS:
        found = await cloud.documents.versions(kind, where=[Where(field, "=", policy_id), *where], limit=1)
        if found:
            return f"{name} {found[0][0]}"
    return ""


def _already_so(policy: QosPolicy, command: Command) -> bool:
    match command:
        case CreateQosPolicy():
            return policy.living and all(getattr(policy, name) == it for name, it in given(command).items())
        case DeleteQosPolicy():
            return policy.deleted_at is not None
        case RemoveQosRule() | UnshareQosPolicy() if not policy.living:
            return policy.deleted_at is not None
    if not policy.living:
        return False
    match command:
        case UpdateQosPolicy():
            return not differing(policy, command)
        case AddQosRule():
            return command.rule in policy.rules
        case ChangeQosRule():
            return policy.rule(command.rule_id) is not None and _changed(policy, command) in policy.rules
        case RemoveQosRule():
            return policy.rule(command.rule_id) is None
        case ShareQosPolicy():
            return command.project_id in policy.shared_with
        case UnshareQosPolicy():
            return command.project_id not in policy.shared_with
        case UseQosPolicy():
            promised = any(it.type in UNSUPPORTED for it in policy.rules)
            return not promised and (command.operator or policy.usable(command.project_id))
    return False


def _changed(policy: QosPolicy, command: ChangeQosRule) -> QosRule:
    rule = policy.rule(command.rule_id)
    if rule is None:
        raise rule_not_found(command.rule_id, policy.id)
    changes = {name: value for name, value in given(command).items() if name != "rule_id"}
    return msgspec.structs.replace(rule, **changes)


def _refuse_second(policy: QosPolicy, rule: QosRule) -> None:
    """There is one rule of a type, of bandwidths one each way, and no more is promised than let through."""
    for it in policy.rules:
        if it.id != rule.id and it.type == rule.type and it.direction == rule.direction:
            raise Conflict(
                f"Rule {rule.type} conflicts with rule {it.id} which already exists in QoS Policy {policy.id}.",
                code="QoSRulesConflict",
            )
    least, most = (_value(policy, rule, it) for it in ("minimum_bandwidth", "bandwidth_limit"))
    if least is not None and most is not None and least > most:
        mine, other = (least, most) if rule.type == "minimum_bandwidth" else (most, least)
        kind = "bandwidth_limit" if rule.type == "minimum_bandwidth" else "minimum_bandwidth"
        raise Conflict(
            f"Unable to add the rule with value {mine} to the policy {policy.id} as the existing rule of type {kind} "
            f"has value {other}.",
            code="QoSRuleParameterConflict",
        )


def _value(policy: QosPolicy, rule: QosRule, type: RuleType) -> int | None:
    """What the policy would say of that type in the rule's direction, with the rule in it."""
    rules = [*(it for it in policy.rules if it.id != rule.id), rule]
    found = next((it for it in rules if it.type == type and it.direction == rule.direction), None)
    if found is None:
        return None
    return found.min_kbps if type == "minimum_bandwidth" else found.max_kbps


def _needed(policy_id: str, user: str) -> Conflict:
    return Conflict(
        f"RBAC policy on object {policy_id} cannot be removed because other objects depend on it.\n"
        f"Details: QoS Policy {policy_id} is used by {user}.",
        code="RbacPolicyInUse",
    )


def _wrong_status(policy: QosPolicy, command: Command) -> Refused:
    if isinstance(command, CreateQosPolicy):
        return Conflict(f"The id {policy.id} is or was another QoS policy's; ids are not used again.")
    return not_found(policy.id)


def _status(policy: QosPolicy) -> str:
    if policy.living:
        return THERE
    return GONE if policy.deleted_at else ABSENT


QOS_POLICIES = Aggregate(QOS_POLICY, decide, ALLOWED)
