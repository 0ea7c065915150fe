"""Security groups: what may reach the ports that are in them, and what those may send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from msgspec import UNSET, UnsetType

from api.network.filter import Filter
from api.network.kept import keeping
from api.network.resource import Resource, common, listing, project_of, resource_routes, several, to_change, viewed
from api.network.words import Body, LongText, Project, Text
from api.wire import Call
from api.wire.query import boolean
from bus import clock
from bus.documents import AnyOf, Condition, Where
from bus.execute import StillHeld, Wish
from bus.log import Document
from bus.past import PastDocuments
from handlers.network.addressing import Picks, with_addresses
from handlers.network.default_group import default_group, default_id, rules_from_template
from handlers.network.ending import group_ended
from handlers.network.quota import taking
from handlers.network.router import Outdated
from handlers.network.security_group import SECURITY_GROUPS, default_exists, in_use, not_found
from schema.network.security_group import (
    DEFAULT,
    SECURITY_GROUP,
    CreateSecurityGroup,
    SecurityGroup,
    SecurityRule,
    UpdateSecurityGroup,
    members_of,
)


class NewGroup(Body):
    name: Text = ""
    description: LongText = ""
    stateful: bool = True
    tenant_id: Project | None = None
    project_id: Project | None = None
    security_group: NewGroup | None = None
    """In a list of them, each may be wrapped once more."""


class CreateBody(Body):
    security_group: NewGroup | None = None
    security_groups: list[NewGroup] | None = None


class GroupChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    stateful: bool | UnsetType = UNSET


class UpdateBody(Body):
    security_group: GroupChange


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    return [_view(document, call.token.project_id) for document in documents]


def _view(document: Document, viewer: str | None) -> dict[str, Any]:
    group: SecurityGroup = document.state
    return {
        **common(document),
        "stateful": group.stateful,
        "shared": not {"*", viewer}.isdisjoint(group.shared_with),
        "security_group_rules": [rule_view(group, rule) for rule in group.rules],
    }


def rule_view(group: SecurityGroup, rule: SecurityRule) -> dict[str, Any]:
    """A rule as it is shown, by itself and in its group. It is never changed."""
    made = _written(rule.created_at)
    return {
        "id": rule.id,
        "security_group_id": group.id,
        "tenant_id": group.project_id,
        "project_id": group.project_id,
        "direction": rule.direction,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_range_min": rule.port_range_min,
        "port_range_max": rule.port_range_max,
        "remote_ip_prefix": rule.remote_ip_prefix,
        "normalized_cidr": normalized(rule.remote_ip_prefix),
        "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": rule.remote_address_group_id,
        "belongs_to_default_sg": group.is_default,
        "description": rule.description,
        "created_at": made,
        "updated_at": made,
        "revision_number": 0,
        "tags": [],
    }


@lru_cache(4096)
def normalized(prefix: str | None) -> str | None:
    """Without bits beyond its length."""
    return str(ip_network(prefix, strict=False)) if prefix else None


def sharing(call: Call) -> list[list[Where]]:
    """What others let the caller use."""
    return [[Where("shared_with", "has", it)] for it in ("*", call.token.project_id or "")]


def shared(call: Call, values: Sequence[str]) -> list[Condition]:
    """Filter by whether others share it with the caller, or the caller with others."""
    conditions = sharing(call)
    if boolean(values[-1]):
        return [AnyOf(conditions)]
    return [Where(it.field, "has not", it.value) for [it] in conditions]


RESOURCE = Resource(
    name="security_group",
    plural="security_groups",
    kind=SECURITY_GROUP,
    view=view,
    missing=not_found,
    filters={"stateful": Filter(type=bool), "shared": Filter(condition=shared)},
    retagging=lambda id, tags: Wish(SECURITY_GROUPS, id, UpdateSecurityGroup(tags=tags)),
    shared=sharing,
    many=keeping(SECURITY_GROUP, view, alike=lambda group: not group.shared_with),
)


async def with_default(call: Call, read: Callable[[Call], Awaitable[Any]]) -> Any:
    """What is read once the project that is asked about has its default group: asking makes it, as in Neutron."""
    answer = await read(call)
    project_id = call.query.get("project_id") or call.query.get("tenant_id") or call.token.project_id
    if isinstance(call.cloud.documents, PastDocuments):
        return answer
    if not project_id or (project_id != call.token.project_id and not call.token.is_admin):
        return answer
    if _mentions(answer, default_id(project_id)):
        return answer
    _, making = await default_group(call.cloud, project_id)
    if not making:
        return answer
    await call.execute(*making)
    return await read(call)


def _mentions(answer: dict[str, Any] | bytes, id: str) -> bool:
    """Whether a list shows that group, or a rule of it."""
    if isinstance(answer, bytes):
        return id.encode() in answer
    things = next(it for name, it in answer.items() if not name.endswith("_links"))
    return any(id in {it.get("id"), it.get("security_group_id")} for it in things)


async def index(call: Call) -> Any:
    return await with_default(call, _listed)


async def create(call: Call) -> dict[str, Any]:
    bodies, many = several(call, "security_group", "security_groups")
    making: list[Wish] = []
    beside: list[Wish] = []
    counted: dict[str, tuple[list[str], list[str]]] = {}
    for body in (it.security_group or it for it in bodies):
        if body.name.lower() == DEFAULT:
            raise default_exists()
        id, project_id = clock.uuid4(), project_of(call, body.project_id, body.tenant_id)
        rules = await rules_from_template(call.cloud, id, default=False)
        making.append(
            Wish(
                SECURITY_GROUPS,
                id,
                CreateSecurityGroup(
                    name=body.name,
                    project_id=project_id,
                    description=body.description,
                    stateful=body.stateful,
                    rules=rules,
                ),
            )
        )
        ids, rule_ids = counted.setdefault(project_id, ([], []))
        ids.append(id)
        rule_ids += [rule.id for rule in rules]
    for project_id, (ids, rule_ids) in counted.items():
        beside += (await default_group(call.cloud, project_id))[1]
        beside += await taking(call.cloud, project_id, "security_group", ids)
        beside += await taking(call.cloud, project_id, "security_group_rule", rule_ids)
    documents = (await call.execute(*making, *beside))[: len(making)]
    views = await view(call, documents)
    return {RESOURCE.plural: views} if many else {RESOURCE.name: views[0]}


async def update(call: Call) -> dict[str, Any]:
    body: GroupChange = call.body.security_group
    before = await to_change(call, RESOURCE, call.path["id"])
    if body.name is not UNSET and body.name.lower() == DEFAULT:
        raise default_exists()
    command = UpdateSecurityGroup(name=body.name, description=body.description, stateful=body.stateful)
    turned = body.stateful is not UNSET and body.stateful is not before.state.stateful
    vacant = (members_of(before.id),) if turned else ()
    try:
        documents = await call.execute(Wish(SECURITY_GROUPS, before.id, command, vacant=vacant))
    except StillHeld:
        raise in_use(before.id) from None
    return {RESOURCE.name: await viewed(call, RESOURCE, documents[0])}


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> None:
        try:
            await call.execute(*await group_ended(call.cloud, before.id, even_default=call.token.is_admin))
        except StillHeld as held:
            if held.scope == members_of(before.id):
                raise in_use(before.id) from None
            raise Outdated(f"Security group {before.id} was named by a rule meanwhile; try again.") from None

    await with_addresses(call.cloud, attempt)


@lru_cache(4096)
def _written(at: datetime | None) -> str | None:
    """A time as Neutron writes it. The rules of a group have few different ones."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


_listed = listing(RESOURCE)

routes = resource_routes(
    RESOURCE,
    index=index,
    create=create,
    create_body=CreateBody,
    update=update,
    update_body=UpdateBody,
    delete=delete,
)
