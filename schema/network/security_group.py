"""A security group: rules for what may reach the ports that are in it, and what they may send.

(absent) ──SecurityGroupCreated──▶ there ──SecurityGroupDeleted──▶ gone          there: rules come and go
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Key, Kind, Said, State
from schema.network.default_rule import DefaultRule
from schema.network.protocol import ICMP, ICMP_V6, NUMBERS
from schema.network.wiring import Direction

DEFAULT = "default"
"""The name of the group every project has one of."""
EVERYWHERE = ("0.0.0.0/0", "::/0")
RULE = "security group rule"
"""The scope in which a group holds the ids of its rules."""


def members_of(id: str) -> str:
    """The scope in which ports hold a reservation, each under its id, as long as they are in that group."""
    return f"members of security group {id}"


def named_by_rules(id: str) -> str:
    """The scope in which rules (of other groups) hold one that name that security group or address group."""
    return f"rules that name {id}"


Match = tuple[Any, ...]


def match_of(rule: SecurityRule | DefaultRule) -> Match:
    """What a rule lets through, however it is written: `tcp` is 6, and every address is none in particular."""
    protocol = str(NUMBERS.get(rule.protocol or "", rule.protocol))
    if (protocol, rule.ethertype) == (str(ICMP), "IPv6"):
        protocol = str(ICMP_V6)
    return (
        rule.direction,
        rule.ethertype,
        protocol,
        rule.port_range_min,
        rule.port_range_max,
        None if rule.remote_ip_prefix in EVERYWHERE else rule.remote_ip_prefix,
        rule.remote_group_id,
        rule.remote_address_group_id,
    )


class SecurityRule(Word):
    id: str
    direction: Direction
    ethertype: str = "IPv4"
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None
    remote_address_group_id: str | None = None
    description: str = ""
    created_at: datetime | None = None

    @property
    def match(self) -> Match:
        """What it lets through: no two rules of a group let the same through."""
        return match_of(self)


class SecurityGroup(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    stateful: bool = True
    rules: tuple[SecurityRule, ...] = ()
    shared_with: tuple[str, ...] = ()
    """Projects that RBAC lets use it; `*`: all of them."""
    tags: tuple[str, ...] = ()

    @property
    def is_default(self) -> bool:
        return self.name == DEFAULT

    def rule(self, id: str) -> SecurityRule | None:
        return next((rule for rule in self.rules if rule.id == id), None)


class _NewSecurityGroup(Said):
    name: str
    project_id: str
    description: str = ""
    stateful: bool = True
    rules: tuple[SecurityRule, ...] = ()


class SecurityGroupCreated(Event, _NewSecurityGroup):
    """It is there."""


class _SecurityGroupChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    stateful: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class SecurityGroupUpdated(Event, _SecurityGroupChanges):
    """It is changed."""


class SecurityRulesAdded(Event):
    rules: tuple[SecurityRule, ...]


class SecurityRuleRemoved(Event):
    rule_id: str


class SecurityGroupShared(Event):
    project_id: str


class SecurityGroupUnshared(Event):
    project_id: str


class SecurityGroupDeleted(Event):
    pass


SecurityGroupEvent = (
    SecurityGroupCreated
    | SecurityGroupUpdated
    | SecurityRulesAdded
    | SecurityRuleRemoved
    | SecurityGroupShared
    | SecurityGroupUnshared
    | SecurityGroupDeleted
)


class CreateSecurityGroup(Command, _NewSecurityGroup):
    """Make it."""


class UpdateSecurityGroup(Command, _SecurityGroupChanges):
    """Change it."""


class AddSecurityRules(Command):
    rules: tuple[SecurityRule, ...]


class RemoveSecurityRule(Command):
    rule_id: str


class ShareSecurityGroup(Command):
    project_id: str


class UnshareSecurityGroup(Command):
    project_id: str


class DeleteSecurityGroup(Command):
    even_default: bool = False
    """An administrator may delete a project's default group; it is made anew when it is needed."""
    rule_ids: tuple[str, ...] | UnsetType = UNSET
    """The rules that no longer count, in the same append; outdated when it has others."""


def evolve(group: SecurityGroup, event: SecurityGroupEvent, at: datetime) -> SecurityGroup:
    match event:
        case SecurityGroupCreated():
            return replace(applied(group, event), rules=_dated(event.rules, at))
        case SecurityGroupUpdated():
            return applied(group, event)
        case SecurityRulesAdded():
            return replace(group, rules=group.rules + _dated(event.rules, at))
        case SecurityRuleRemoved():
            return replace(group, rules=tuple(rule for rule in group.rules if rule.id != event.rule_id))
        case SecurityGroupShared():
            return replace(group, shared_with=(*group.shared_with, event.project_id))
        case SecurityGroupUnshared():
            return replace(group, shared_with=tuple(it for it in group.shared_with if it != event.project_id))
        case SecurityGroupDeleted():
            return replace(group, deleted_at=at)


def _dated(rules: tuple[SecurityRule, ...], at: datetime) -> tuple[SecurityRule, ...]:
    return tuple(replace(rule, created_at=rule.created_at or at) for rule in rules)


def _unique(group: SecurityGroup) -> Iterable[Key]:
    for rule in group.rules:
        yield RULE, rule.id
        for id in (rule.remote_group_id, rule.remote_address_group_id):
            if id and id != group.id:
                yield named_by_rules(id), rule.id
    if group.is_default:
        yield "default security group", group.project_id


SECURITY_GROUP = Kind("security-group", SecurityGroup, SecurityGroupEvent, evolve, unique=_unique)
