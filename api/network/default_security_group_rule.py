"""The rules that new security groups begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict

from api.network.page import selected
from api.network.parts import listed
from api.network.security_group_rule import RuleBody, rule_from
from api.network.words import Body
from api.wire import Call, Delete, Get, Post
from bus import clock
from bus.execute import Wish
from handlers.network.default_rule import DEFAULT_RULE_TEMPLATE, not_found
from schema.network.default_rule import DEFAULT_RULES, STANDARD, STREAM, AddDefaultRule, DefaultRule, RemoveDefaultRule

FIELDS = DefaultRule.__struct_fields__


class NewDefaultRule(RuleBody):
    used_in_default_sg: bool = False
    used_in_non_default_sg: bool = True


class CreateBody(Body):
    default_security_group_rule: NewDefaultRule


async def index(call: Call) -> dict[str, Any]:
    rules = await _rules(call)
    return listed(call, "default_security_group_rules", [asdict(rule) for rule in rules], FIELDS)


async def show(call: Call) -> dict[str, Any]:
    return {"default_security_group_rule": selected(call, asdict(await _rule(call)))}


async def create(call: Call) -> dict[str, Any]:
    body: NewDefaultRule = call.body.default_security_group_rule
    says = asdict(rule_from(body, clock.uuid4()))
    rule = DefaultRule(
        used_in_default_sg=body.used_in_default_sg,
        used_in_non_default_sg=body.used_in_non_default_sg,
        **{name: value for name, value in says.items() if name in FIELDS},
    )
    await call.execute(Wish(DEFAULT_RULE_TEMPLATE, STREAM, AddDefaultRule(rule=rule)))
    return {"default_security_group_rule": asdict(rule)}


async def delete(call: Call) -> None:
    rule = await _rule(call)
    await call.execute(Wish(DEFAULT_RULE_TEMPLATE, STREAM, RemoveDefaultRule(rule_id=rule.id)))


async def _rules(call: Call) -> Sequence[DefaultRule]:
    document = (await call.cloud.documents.get_many(DEFAULT_RULES, [STREAM])).get(STREAM)
    rules: Sequence[DefaultRule] = document.state.rules if document else STANDARD
    return rules


async def _rule(call: Call) -> DefaultRule:
    id = call.path["id"]
    for rule in await _rules(call):
        if rule.id == id:
            return rule
    raise not_found(id)


routes = [
    Get("/default-security-group-rules", index, may="get_default_security_group_rule"),
    Get("/default-security-group-rules/{id}", show, may="get_default_security_group_rule"),
    Post(
        "/default-security-group-rules", create, may="create_default_security_group_rule", body=CreateBody, lenient=True
    ),
    Delete("/default-security-group-rules/{id}", delete, may="delete_default_security_group_rule"),
]
