"""The rules of the template that new security groups begin with."""

from __future__ import annotations

from bus.cloud import Cloud
from bus.execute import Aggregate
from schema.event import Command
from schema.network.default_rule import (
    DEFAULT_RULES,
    STREAM,
    AddDefaultRule,
    DefaultRule,
    DefaultRuleAdded,
    DefaultRuleRemoved,
    DefaultRules,
    DefaultRulesEvent,
    RemoveDefaultRule,
)
from schema.network.security_group import match_of
from schema.refusal import Conflict, NotFound

ANY = "any"
"""The list is always there."""
RULES = 100

ALLOWED: dict[type[Command], set[str]] = {AddDefaultRule: {ANY}, RemoveDefaultRule: {ANY}}


def decide(template: DefaultRules, command: Command) -> list[DefaultRulesEvent]:
    match command:
        case AddDefaultRule():
            if any(rule == command.rule for rule in template.rules):
                return []
            same = next((rule for rule in template.rules if _doubled(rule, command.rule)), None)
            if same:
                raise Conflict(
                    f"Default Security Group rule already exists. Rule id is {same.id}.",
                    code="DefaultSecurityGroupRuleExists",
                )
            if len(template.rules) >= RULES:
                raise Conflict(f"New security groups begin with {RULES} rules at most; delete one first.")
            return [DefaultRuleAdded(rule=command.rule)]
        case RemoveDefaultRule():
            there = any(rule.id == command.rule_id for rule in template.rules)
            return [DefaultRuleRemoved(rule_id=command.rule_id)] if there else []
    raise TypeError(f"default security group rules know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"Default Security Group rule {id} does not exist", code="DefaultSecurityGroupRuleNotFound")


async def default_rules(cloud: Cloud) -> tuple[DefaultRule, ...]:
    """The template as it stands."""
    stream = DEFAULT_RULES.stream(STREAM)
    document = (await cloud.executor.load([stream])).get(stream)
    rules: tuple[DefaultRule, ...] = document.state.rules if document else DEFAULT_RULES.unborn(STREAM).rules
    return rules


def _doubled(one: DefaultRule, other: DefaultRule) -> bool:
    """Whether some new group would have two rules that let the same through."""
    together = (one.used_in_default_sg and other.used_in_default_sg) or (
        one.used_in_non_default_sg and other.used_in_non_default_sg
    )
    return one.id == other.id or (together and match_of(one) == match_of(other))


DEFAULT_RULE_TEMPLATE = Aggregate(DEFAULT_RULES, decide, ALLOWED)
