"""The rules a new security group begins with: one list for the whole cloud, which an administrator may change."""

from __future__ import annotations

from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from schema.compute.domain import Word
from schema.event import Command, Event, Kind, State
from schema.network.wiring import Direction

PARENT = "PARENT"
"""As `remote_group_id` of a template: the very group the rule comes to be in."""
STREAM = "all"
"""`default-security-rules/all`: the one list."""


class DefaultRule(Word):
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
    used_in_default_sg: bool = False
    used_in_non_default_sg: bool = True

    @property
    def from_own_group(self) -> bool:
        return self.remote_group_id == PARENT


_OUT, _IN = "Legacy default SG rule for egress traffic", "Legacy default SG rule for ingress traffic"

STANDARD = (
    DefaultRule(
        id="d2ac8a3e-60f5-5d1c-9f5c-6c0f0c5be0a1",
        direction="egress",
        ethertype="IPv4",
        used_in_default_sg=True,
        description=_OUT,
    ),
    DefaultRule(
        id="d2ac8a3e-60f5-5d1c-9f5c-6c0f0c5be0a2",
        direction="egress",
        ethertype="IPv6",
        used_in_default_sg=True,
        description=_OUT,
    ),
    DefaultRule(
        id="d2ac8a3e-60f5-5d1c-9f5c-6c0f0c5be0a3",
        direction="ingress",
        ethertype="IPv4",
        remote_group_id=PARENT,
        description=_IN,
        used_in_default_sg=True,
        used_in_non_default_sg=False,
    ),
    DefaultRule(
        id="d2ac8a3e-60f5-5d1c-9f5c-6c0f0c5be0a4",
        direction="ingress",
        ethertype="IPv6",
        remote_group_id=PARENT,
        description=_IN,
        used_in_default_sg=True,
        used_in_non_default_sg=False,
    ),
)
"""What a cloud has that nobody changed: everything may go out; what is in the default group hears its own members."""


class DefaultRules(State):
    rules: tuple[DefaultRule, ...] = field(default_factory=lambda: STANDARD)


class DefaultRuleAdded(Event):
    rule: DefaultRule


class DefaultRuleRemoved(Event):
    rule_id: str


DefaultRulesEvent = DefaultRuleAdded | DefaultRuleRemoved


class AddDefaultRule(Command):
    rule: DefaultRule


class RemoveDefaultRule(Command):
    rule_id: str


def evolve(template: DefaultRules, event: DefaultRulesEvent, at: datetime) -> DefaultRules:
    match event:
        case DefaultRuleAdded():
            return replace(template, rules=(*template.rules, event.rule))
        case DefaultRuleRemoved():
            return replace(template, rules=tuple(rule for rule in template.rules if rule.id != event.rule_id))


DEFAULT_RULES = Kind("default-security-rules", DefaultRules, DefaultRulesEvent, evolve)
