"""QoS policies, and how what is made or changed over HTTP comes by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.network.filter import Filter
from api.network.qos_rule import RULE_KINDS, rule_routes, rule_view
from api.network.resource import Resource, common, project_of, resource_routes, to_change, viewed
from api.network.words import Body, LongText, Project, Text, bad
from api.wire import Call, Delete, Put
from api.wire.query import boolean
from bus import clock
from bus.documents import Where
from bus.execute import AlreadyTaken, StillHeld, Wish
from bus.log import Document
from handlers.network.qos_policy import (
    QOS_POLICIES,
    changing,
    default_policy,
    ending,
    in_use,
    not_found,
    reworded,
    unsharing,
    using,
)
from handlers.network.sharable import forgetting, recording
from schema.network.qos_policy import (
    QOS_POLICY,
    CreateQosPolicy,
    QosPolicy,
    ShareQosPolicy,
    UpdateQosPolicy,
)
from schema.network.rbac_policy import SHARED

EVERYBODY = "*"


class NewPolicy(Body):
    name: Text = ""
    description: LongText = ""
    shared: bool = False
    is_default: bool = False
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    policy: NewPolicy


class PolicyChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET


class UpdateBody(Body):
    policy: PolicyChange


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    return [_view(call, document) for document in documents]


def _view(call: Call, document: Document) -> dict[str, Any]:
    policy: QosPolicy = document.state
    return {
        **common(document),
        "is_default": policy.is_default,
        "shared": not {EVERYBODY, call.token.project_id}.isdisjoint(policy.shared_with),
        "rules": [
            {**rule_view(RULE_KINDS[it.type], it), "type": it.type, "qos_policy_id": policy.id} for it in policy.rules
        ],
    }


def _shared_with(call: Call) -> Sequence[Sequence[Where]]:
    return [[Where("shared_with", "has", it)] for it in (EVERYBODY, call.token.project_id or "")]


def _by_shared(call: Call, values: Sequence[str]) -> Sequence[Where]:
    shared = boolean(values[0])
    if shared is None:
        raise bad("shared", f"'{values[0][:64]}' is not boolean")
    return [Where("shared_with", "has" if shared else "has not", EVERYBODY)]


RESOURCE = Resource(
    name="policy",
    plural="policies",
    path="/qos/policies",
    kind=QOS_POLICY,
    view=view,
    missing=not_found,
    filters={
        "is_default": Filter(type=bool),
        "shared": Filter(condition=_by_shared),
    },
    retagging=lambda id, tags: Wish(QOS_POLICIES, id, UpdateQosPolicy(tags=tags)),
    shared=_shared_with,
)


def policy_given(call: Call, policy_id: str | None) -> list[Wish]:
    """What belongs into the append that makes something with this policy: 404 where the caller has no such policy."""
    return using(policy_id, call.token.project_id or "", operator=call.token.is_admin)


async def policy_of_new_network(call: Call, policy_id: str | None, project_id: str) -> tuple[str | None, list[Wish]]:
    """The policy asked for; else the default one of the network's project, whoever makes the network."""
    if policy_id:
        return policy_id, policy_given(call, policy_id)
    default = await default_policy(call.cloud, project_id)
    return default, using(default, project_id)


async def policy_changed(call: Call, before: str | None, after: str | None | UnsetType) -> list[Wish]:
    """The same for a change of what has a policy already: 403 where the caller may not take that one off."""
    mine = call.token.project_id or ""
    return await changing(call.cloud, before, after, mine, operator=call.token.is_admin)


async def create(call: Call) -> dict[str, Any]:
    body: NewPolicy = call.body.policy
    command = CreateQosPolicy(
        name=body.name,
        project_id=project_of(call, body.project_id, body.tenant_id),
        description=body.description,
        is_default=body.is_default,
        shared_with=(EVERYBODY,) if body.shared else (),
    )
    id = clock.uuid4()
    opened = recording("qos_policy", id, command.project_id) if body.shared else []
    return await _answer(call, await _execute(call, Wish(QOS_POLICIES, id, command), *opened))


async def update(call: Call) -> dict[str, Any]:
    body: PolicyChange = call.body.policy
    before = await to_change(call, RESOURCE, call.path["id"], "update_policy")
    changes = UpdateQosPolicy(name=body.name, description=body.description, is_default=body.is_default)

    wishes = [Wish(QOS_POLICIES, before.id, changes)]
    if body.shared is True and EVERYBODY not in before.state.shared_with:
        wishes.append(Wish(QOS_POLICIES, before.id, ShareQosPolicy(project_id=EVERYBODY)))
        wishes += recording("qos_policy", before.id, before.state.project_id)
    elif body.shared is False:
        wishes.append(await unsharing(call.cloud, before.id, EVERYBODY))
        wishes += await forgetting(call.cloud, before.id, SHARED, EVERYBODY)
    return await _answer(call, await _execute(call, *wishes))


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"], "delete_policy")
    try:
        await call.execute(ending(before.id), *await forgetting(call.cloud, before.id))
    except StillHeld as held:
        raise in_use(before.id, held.key) from None


async def _execute(call: Call, *wishes: Wish) -> Document:
    try:
        return (await call.execute(*wishes))[0]
    except AlreadyTaken as taken:
        raise reworded(taken) from None


async def _answer(call: Call, document: Document) -> dict[str, Any]:
    return {"policy": await viewed(call, RESOURCE, document)}


routes = [
    *resource_routes(RESOURCE, create=create, create_body=CreateBody),
    # Whether somebody may is asked once they are seen to see it: what they do not see is not there, not forbidden.
    Put("/qos/policies/{id}", update, may="get_policy", body=UpdateBody, lenient=True),
    Delete("/qos/policies/{id}", delete, may="get_policy"),
    # Neutron has the tags of policies there, its newer clients look for them below the policy.
    *(it for it in resource_routes(msgspec.structs.replace(RESOURCE, path="/policies")) if "/tags" in it.path),
    *rule_routes(RESOURCE),
]
