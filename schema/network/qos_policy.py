"""A QoS policy: how much, and marked how, what it is given to may send and be sent.

(absent) ──QosPolicyCreated──▶ there ──QosRuleAdded, QosRuleChanged, QosRuleRemoved──▶ there ──QosPolicyDeleted──▶ gone

Ports, networks, floating IPs and routers' gateways say themselves which policy they have, and hold a reservation in its
scope for as long: while there is one, the policy stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Key, Kind, Said, State
from schema.network.wiring import Direction

RuleType = Literal["bandwidth_limit", "dscp_marking", "minimum_bandwidth"]
UNSUPPORTED: frozenset[RuleType] = frozenset({"minimum_bandwidth"})
"""What no driver can promise. A policy may say so, and is then given to nothing."""
DEFAULT_SCOPE = "default-qos-policy"
"""Scope of the reservation that a project's default policy holds under the project's id."""


class QosRule(Word):
    """One rule. What it says depends on its type; the rest stays as it is."""

    id: str
    type: RuleType
    direction: Direction = "egress"
    max_kbps: int = 0
    max_burst_kbps: int = 0
    dscp_mark: int = 0
    min_kbps: int = 0


class QosPolicy(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    is_default: bool = False
    """New networks of its project have it unless they say otherwise."""
    rules: tuple[QosRule, ...] = ()
    shared_with: tuple[str, ...] = ()
    """Projects that RBAC lets use it; `*`: all of them (`shared`)."""
    tags: tuple[str, ...] = ()

    def rule(self, id: str) -> QosRule | None:
        return next((it for it in self.rules if it.id == id), None)

    def usable(self, project_id: str) -> bool:
        """Whether that project may give it to what it has."""
        return self.project_id == project_id or not {"*", project_id}.isdisjoint(self.shared_with)


class _NewQosPolicy(Said):
    name: str = ""
    project_id: str = ""
    description: str = ""
    is_default: bool = False
    shared_with: tuple[str, ...] = ()


class QosPolicyCreated(Event, _NewQosPolicy):
    """It is there."""


class _QosPolicyChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class QosPolicyUpdated(Event, _QosPolicyChanges):
    """It is changed."""


class QosRuleAdded(Event):
    rule: QosRule


class QosRuleChanged(Event):
    """The whole of it as it is now."""

    rule: QosRule


class QosRuleRemoved(Event):
    rule_id: str


class QosPolicyShared(Event):
    """A project (`*`: every one) may use it."""

    project_id: str


class QosPolicyUnshared(Event):
    project_id: str


class QosPolicyDeleted(Event):
    pass


QosPolicyEvent = (
    QosPolicyCreated
    | QosPolicyUpdated
    | QosRuleAdded
    | QosRuleChanged
    | QosRuleRemoved
    | QosPolicyShared
    | QosPolicyUnshared
    | QosPolicyDeleted
)


class CreateQosPolicy(Command, _NewQosPolicy):
    """Make it."""


class UpdateQosPolicy(Command, _QosPolicyChanges):
    """Change it."""


class AddQosRule(Command):
    rule: QosRule


class ChangeQosRule(Command):
    rule_id: str
    direction: Direction | UnsetType = UNSET
    max_kbps: int | UnsetType = UNSET
    max_burst_kbps: int | UnsetType = UNSET
    dscp_mark: int | UnsetType = UNSET
    min_kbps: int | UnsetType = UNSET


class RemoveQosRule(Command):
    rule_id: str


class ShareQosPolicy(Command):
    project_id: str


class UnshareQosPolicy(Command):
    """`user`: something that has it and may not any more (`port 4f…`)."""

    project_id: str
    user: str = ""


class UseQosPolicy(Command):
    """Goes into the append that gives something this policy, and changes nothing of it.

    Refused where that project may not use it. `operator`: an administrator gives it, who may give any.
    """

    project_id: str = ""
    operator: bool = False


class DeleteQosPolicy(Command):
    pass


def evolve(policy: QosPolicy, event: QosPolicyEvent, at: datetime) -> QosPolicy:
    match event:
        case QosPolicyCreated() | QosPolicyUpdated():
            return applied(policy, event)
        case QosRuleAdded():
            return replace(policy, rules=(*policy.rules, event.rule))
        case QosRuleChanged():
            return replace(policy, rules=tuple(event.rule if it.id == event.rule.id else it for it in policy.rules))
        case QosRuleRemoved():
            return replace(policy, rules=tuple(it for it in policy.rules if it.id != event.rule_id))
        case QosPolicyShared():
            return replace(policy, shared_with=(*policy.shared_with, event.project_id))
        case QosPolicyUnshared():
            return replace(policy, shared_with=tuple(it for it in policy.shared_with if it != event.project_id))
        case QosPolicyDeleted():
            return replace(policy, deleted_at=at)


def users_of(policy_id: str) -> str:
    """The scope of the reservations that what has this policy holds."""
    return f"qos-policy {policy_id}"


def using(policy_id: str | None, user: str) -> Iterable[Key]:
    """What something that has this policy (if any) reserves. `user`: as Neutron names it, `port 4f…`."""
    if policy_id:
        yield users_of(policy_id), user


def _unique(policy: QosPolicy) -> Iterable[Key]:
    """A project has one default policy."""
    if policy.is_default:
        yield DEFAULT_SCOPE, policy.project_id


QOS_POLICY = Kind("qos-policy", QosPolicy, QosPolicyEvent, evolve, unique=_unique)
