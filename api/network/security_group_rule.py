"""Rules of security groups, each under an id of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec.structs import asdict

from api.network import security_group
from api.network.page import selected
from api.network.parts import listed
from api.network.resource import found, project_of, several, visible
from api.network.security_group import rule_view, with_default
from api.network.words import Body, LongText, Project, Text
from api.wire import Call, Delete, Get, Post
from api.wire.call import denied
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from bus.past import PastDocuments
from handlers.network import address_group as address_groups
from handlers.network import security_group as groups
from handlers.network.quota import giving_back, taking
from handlers.network.security_group import SECURITY_GROUPS
from handlers.network.security_rule import rule_not_found, rule_of
from schema.event import id_of
from schema.network.address_group import ADDRESS_GROUP, AddressGroup
from schema.network.security_group import (
    RULE,
    SECURITY_GROUP,
    AddSecurityRules,
    RemoveSecurityRule,
    SecurityGroup,
    SecurityRule,
)
from schema.refusal import Invalid

FIELDS = (
    "id",
    "security_group_id",
    "tenant_id",
    "project_id",
    "direction",
    "ethertype",
    "protocol",
    "port_range_min",
    "port_range_max",
    "remote_ip_prefix",
    "normalized_cidr",
    "remote_group_id",
    "remote_address_group_id",
    "belongs_to_default_sg",
    "description",
    "created_at",
    "updated_at",
    "revision_number",
)


class RuleBody(Body):
    """What a rule says; the values are looked at one by one, for Neutron has words for each."""

    direction: Literal["ingress", "egress"]
    ethertype: Any = "IPv4"
    protocol: Any = None
    port_range_min: Any = None
    port_range_max: Any = None
    remote_ip_prefix: Any = None
    remote_group_id: Text | None = None
    remote_address_group_id: Text | None = None
    description: LongText | None = None
    tenant_id: Project | None = None
    project_id: Project | None = None


class NewRule(RuleBody, kw_only=True):
    security_group_id: Text


class CreateBody(Body):
    security_group_rule: NewRule | None = None
    security_group_rules: list[NewRule] | None = None


def rule_from(body: RuleBody, id: str) -> SecurityRule:
    """The rule that a body asks for. Raises Invalid."""
    says = rule_of(
        direction=body.direction,
        ethertype=body.ethertype,
        protocol=body.protocol,
        ports=(body.port_range_min, body.port_range_max),
        remote_ip_prefix=body.remote_ip_prefix,
        remote_group_id=body.remote_group_id,
        remote_address_group_id=body.remote_address_group_id,
    )
    return SecurityRule(id=id, description=body.description or "", **asdict(says))


async def index(call: Call) -> Any:
    return await with_default(call, _listed)


async def show(call: Call) -> dict[str, Any]:
    group, rule = await _rule(call, call.path["id"])
    return {"security_group_rule": selected(call, rule_view(group.state, rule))}


async def create(call: Call) -> dict[str, Any]:
    bodies, many = several(call, "security_group_rule", "security_group_rules")
    for body in bodies:
        project_of(call, body.project_id, body.tenant_id)
    if len({body.security_group_id for body in bodies}) > 1:
        raise Invalid(
            "Only allowed to update rules for one security profile at a time",
            code="SecurityGroupNotSingleGroupRules",
        )
    if len({body.project_id or body.tenant_id for body in bodies}) > 1:
        raise Invalid(
            "Multiple project_ids in bulk security group rule create not allowed",
            code="SecurityGroupRulesNotSingleProject",
        )
    rules = tuple(rule_from(body, clock.uuid4()) for body in bodies)
    named = await _named(call, rules)
    group = await found(call, security_group.RESOURCE, bodies[0].security_group_id)
    project_id = group.state.project_id
    if not call.may("create_security_group_rule", project_id=project_id):
        raise denied("create_security_group_rule")
    counted = await taking(call.cloud, project_id, "security_group_rule", [rule.id for rule in rules])
    adding = Wish(SECURITY_GROUPS, group.id, AddSecurityRules(rules=rules))
    after: SecurityGroup = (await call.execute(adding, *named, *counted))[0].state
    ids = {rule.id for rule in rules}
    views = [rule_view(after, rule) for rule in after.rules if rule.id in ids]
    return {"security_group_rules": views} if many else {"security_group_rule": views[0]}


async def delete(call: Call) -> None:
    group, rule = await _rule(call, call.path["id"])
    project_id = group.state.project_id
    if not call.may("delete_security_group_rule", project_id=project_id):
        raise denied("delete_security_group_rule")
    removing = Wish(SECURITY_GROUPS, group.id, RemoveSecurityRule(rule_id=rule.id))
    await call.execute(removing, *giving_back(project_id, "security_group_rule", [rule.id]))


async def _listed(call: Call) -> dict[str, Any]:
    where = visible(call, security_group.RESOURCE)
    if ids := call.query.getall("security_group_id", []):
        where.append(Where("id", "in", ids))
    if projects := [*call.query.getall("project_id", []), *call.query.getall("tenant_id", [])]:
        where.append(Where("project_id", "in", projects))
    rules = call.query.getall("id", [])
    if rules and not isinstance(call.cloud.documents, PastDocuments):
        held = await call.cloud.executor.log.held([(RULE, id) for id in rules])
        where.append(Where("id", "in", [id_of(it.stream) for it in held]))
    documents = await call.cloud.documents.find(SECURITY_GROUP, where=where, limit=None)
    views = [rule_view(document.state, rule) for document in documents for rule in document.state.rules]
    return listed(call, "security_group_rules", views, FIELDS)


async def _rule(call: Call, id: str) -> tuple[Document, SecurityRule]:
    """A rule that the caller sees, and the group it is of. Raises NotFound."""
    if isinstance(call.cloud.documents, PastDocuments):
        here = Where("rules", "contains", [{"id": id}])
    else:
        here = Where("id", "=", id_of(await call.cloud.executor.log.holder(RULE, id) or ""))
    where = [here, *visible(call, security_group.RESOURCE)]
    documents = await call.cloud.documents.find(SECURITY_GROUP, where=where, limit=1)
    rule = documents[0].state.rule(id) if documents else None
    if rule is None:
        raise rule_not_found(id)
    return documents[0], rule


async def _named(call: Call, rules: Sequence[SecurityRule]) -> list[Wish]:
    """That the groups these rules name stay until the rules are there. Raises NotFound for what the caller sees not."""
    for id in {rule.remote_group_id: None for rule in rules if rule.remote_group_id}:
        await found(call, security_group.RESOURCE, id)
    ids = list(dict.fromkeys(rule.remote_address_group_id for rule in rules if rule.remote_address_group_id))
    await refuse_unseen(call, ids)
    return [
        *groups.standing(rule.remote_group_id for rule in rules if rule.remote_group_id),
        *address_groups.standing(ids),
    ]


async def refuse_unseen(call: Call, ids: Sequence[str]) -> None:
    """Raises NotFound for an address group that the caller may not use."""
    known = await call.cloud.documents.get_many(ADDRESS_GROUP, ids) if ids else {}
    mine = call.token.project_id or ""
    for id in ids:
        group: AddressGroup | None = known[id].state if id in known else None
        if group is None or not group.living:
            raise address_groups.not_found(id)
        if not (call.token.is_admin or group.project_id == mine or {"*", mine} & set(group.shared_with)):
            raise address_groups.not_found(id)


routes = [
    Get("/security-group-rules", index, may="get_security_group_rule"),
    Get("/security-group-rules/{id}", show, may="get_security_group_rule"),
    Post("/security-group-rules", create, may="create_security_group_rule", body=CreateBody, lenient=True),
    Delete("/security-group-rules/{id}", delete, may="delete_security_group_rule"),
]
