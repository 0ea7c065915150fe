"""A QoS policy: how much, and marked how, what it is given to may send and be sent.

(absent) ──QosPolicyCreated──▶ there ──QosRuleAdded, QosRuleChanged, QosRuleRemoved──▶ there ──QosPolicyDeleted──▶ gone

Ports, networks, floating IPs and routers' gateways say themselves which policy they have. A policy only counts how
often it was taken, in the same append as what took it: who wishes its end says up to which use it looked for users.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Key, Kind, State
from schema.network.wiring import Direction

RuleType = Literal["bandwidth_limit", "dscp_marking"]
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
    revision: int = 0
    """Neutron's revision_number: it is taken without one."""
    uses: int = 0
    """How often it was taken."""
    use_id: str = ""
    """The last time."""

    def rule(self, id: str) -> QosRule | None:
        return next((it for it in self.rules if it.id == id), None)

    def usable(self, project_id: str) -> bool:
        """Whether that project may give it to what it has."""
        return self.project_id == project_id or not {"*", project_id}.isdisjoint(self.shared_with)


class QosPolicyCreated(Event):
    name: str = ""
    project_id: str = ""
    description: str = ""
    is_default: bool = False
    shared_with: tuple[str, ...] = ()


class QosPolicyUpdated(Event):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


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


class QosPolicyUsed(Event):
    """Something was given it, in the same append."""

    use_id: str


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
    | QosPolicyUsed
    | QosPolicyDeleted
)


class CreateQosPolicy(Command):
    name: str = ""
    project_id: str = ""
    description: str = ""
    is_default: bool = False
    shared_with: tuple[str, ...] = ()


class UpdateQosPolicy(Command):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class AddQosRule(Command):
    rule: QosRule


class ChangeQosRule(Command):
    rule_id: str
    direction: Direction | UnsetType = UNSET
    max_kbps: int | UnsetType = UNSET
    max_burst_kbps: int | UnsetType = UNSET
    dscp_mark: int | UnsetType = UNSET


class RemoveQosRule(Command):
    rule_id: str


class ShareQosPolicy(Command):
    project_id: str


class UnshareQosPolicy(Command):
    """`user`: something of that project's that has it (`port 4f…`); `expected`: the `uses` it was looked for at."""

    project_id: str
    user: str = ""
    expected: int | UnsetType = UNSET


class UseQosPolicy(Command):
    """Goes into the append that gives something this policy. Refused where that project may not use it.

    `operator`: an administrator gives it, who may give any. `use_id` is of this one time.
    """

    use_id: str
    project_id: str = ""
    operator: bool = False


class DeleteQosPolicy(Command):
    """`user`: something that has it (`port 4f…`); `expected`: the `uses` it was looked for at."""

    user: str = ""
    expected: int | UnsetType = UNSET


def evolve(policy: QosPolicy, event: QosPolicyEvent, at: datetime) -> QosPolicy:
    if isinstance(event, QosPolicyUsed):
        return replace(policy, uses=policy.uses + 1, use_id=event.use_id)
    return replace(_evolved(policy, event, at), revision=policy.revision + 1)


def _evolved(policy: QosPolicy, event: QosPolicyEvent, at: datetime) -> QosPolicy:
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
    return policy


def _unique(policy: QosPolicy) -> Iterable[Key]:
    """A project has one default policy."""
    if policy.is_default:
        yield DEFAULT_SCOPE, policy.project_id


QOS_POLICY = Kind("qos-policy", QosPolicy, QosPolicyEvent, evolve, unique=_unique)
