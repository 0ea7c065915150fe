"""RBAC policies: who may use things of others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from api.network.filter import Filter
from api.network.resource import Resource, living, project_of, resource_routes, several, to_change, viewed
from api.network.words import Body, Project, Text, Uuid, bad
from api.wire import Call
from api.wire.call import denied
from bus import clock
from bus.execute import AlreadyTaken, Wish
from bus.log import Document
from handlers.network.address_scope import usable
from handlers.network.addressing import Picks, with_addresses
from handlers.network.rbac_policy import duplicate, not_found
from handlers.network.refusing import invalid_input
from handlers.network.sharable import SHARABLE, granting, moving, revoking
from schema.network.address_scope import ADDRESS_SCOPE
from schema.network.rbac_policy import EVERYBODY, RBAC_POLICY, CreateRbacPolicy, RbacPolicy
from schema.network.subnet_pool import SubnetPool
from schema.refusal import Invalid

_PROJECT = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


class NewPolicy(Body):
    object_type: Text
    object_id: Uuid
    action: Text
    target_tenant: Project | None = None
    target_project: Project | None = None
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    rbac_policy: NewPolicy | None = None
    rbac_policies: list[NewPolicy] | None = None


class PolicyChange(Body):
    target_tenant: Project | UnsetType = UNSET
    target_project: Project | UnsetType = UNSET


class UpdateBody(Body):
    rbac_policy: PolicyChange


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    return [_view(document.state) for document in documents]


def _view(policy: RbacPolicy) -> dict[str, Any]:
    return {
        "id": policy.id,
        "object_type": policy.object_type,
        "object_id": policy.object_id,
        "action": policy.action,
        "target_tenant": policy.target_project,
        "tenant_id": policy.project_id,
        "project_id": policy.project_id,
    }


RESOURCE = Resource(
    name="rbac_policy",
    plural="rbac_policies",
    kind=RBAC_POLICY,
    view=view,
    missing=not_found,
    filters={
        "object_type": Filter(),
        "object_id": Filter("parent_id"),
        "action": Filter(),
        "target_tenant": Filter("target_project"),
        "target_project": Filter(),
    },
)


async def create(call: Call) -> dict[str, Any]:
    bodies, many = several(call, "rbac_policy", "rbac_policies")
    made: list[Wish] = []
    beside: list[Wish] = []
    for body in bodies:
        command = await _command(call, body)
        first, *others = await granting(call.cloud, clock.uuid4(), command)
        made.append(first)
        beside += others
    try:
        documents = await call.execute(*made, *beside)
    except AlreadyTaken:
        raise duplicate() from None
    views = await view(call, documents[: len(made)])
    return {RESOURCE.plural: views} if many else {RESOURCE.name: views[0]}


async def update(call: Call) -> dict[str, Any]:
    body: PolicyChange = call.body.rbac_policy
    before = await to_change(call, RESOURCE, call.path["id"])
    target = body.target_project if body.target_tenant is UNSET else body.target_tenant
    if target is UNSET:
        return {RESOURCE.name: await viewed(call, RESOURCE, before)}
    _refuse_target(call, target, "update_rbac_policy:target_tenant")
    await _thing(call, before.state.object_type, before.state.object_id)

    async def attempt(picks: Picks) -> Document:
        document = await _now(call, before.id)
        policy: RbacPolicy = document.state
        if policy.target_project == target:
            return document
        thing = await _thing(call, policy.object_type, policy.object_id)
        try:
            return (await call.execute(*await moving(call.cloud, policy, thing, target)))[0]
        except AlreadyTaken:
            raise duplicate() from None

    return {RESOURCE.name: await viewed(call, RESOURCE, await with_addresses(call.cloud, attempt))}


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> None:
        policy: RbacPolicy = (await _now(call, before.id)).state
        thing = await _stored(call, policy.object_type, policy.object_id)
        await call.execute(*await revoking(call.cloud, policy, thing))

    await with_addresses(call.cloud, attempt)


async def _command(call: Call, body: NewPolicy) -> CreateRbacPolicy:
    """What is asked for. Raises Forbidden, Invalid, NotFound."""
    project_id = project_of(call, body.project_id, body.tenant_id)
    object_type = body.object_type.strip().lower()
    sharable = SHARABLE.get(object_type)
    if sharable is None:
        raise invalid_input(f"'{body.object_type}' is not a valid RBAC object type")
    if body.action not in sharable.actions:
        raise Invalid(
            f"Invalid action '{body.action}' for object type '{object_type}'. Valid actions: "
            f"{', '.join(sharable.actions)}",
            code="InvalidActionForType",
        )
    target = body.target_project if body.target_tenant is None else body.target_tenant
    if target is None:
        raise bad("target_tenant", "it is not said")
    _refuse_target(call, target, "create_rbac_policy:target_tenant")
    thing = await _thing(call, object_type, body.object_id)
    if isinstance(thing, SubnetPool):
        await _refuse_beyond_scope(call, thing, target)
    return CreateRbacPolicy(
        project_id=project_id,
        parent_id=body.object_id,
        object_type=object_type,
        action=body.action,
        target_project=target,
    )


def _refuse_target(call: Call, target: str, rule: str) -> None:
    """Raises Invalid for what is no project, Forbidden for everybody where only administrators share with them."""
    if target == EVERYBODY:
        if not call.may(rule):
            raise denied(rule)
    elif not _PROJECT.fullmatch(target):
        raise invalid_input(f"'{target}' is not a valid target project ID; expected a UUID or '*'")


async def _refuse_beyond_scope(call: Call, pool: SubnetPool, target: str) -> None:
    """Raises Invalid when somebody would see a pool who does not see the address scope it is in."""
    found = await call.cloud.documents.get_many(ADDRESS_SCOPE, [pool.address_scope_id] if pool.address_scope_id else [])
    if not all(usable(it.state, target) for it in found.values()):
        raise invalid_input(
            f"Subnet pool {pool.id} cannot be shared with {target}: address scope {pool.address_scope_id} is not"
        )


async def _thing(call: Call, object_type: str, id: str) -> Any:
    """What is shared, and is the caller's to share. Raises NotFound, Invalid."""
    thing = await _stored(call, object_type, id)
    if not call.token.is_admin and thing.project_id != call.token.project_id:
        raise invalid_input("Only admins can manipulate policies on objects they do not own")
    return thing


async def _stored(call: Call, object_type: str, id: str) -> Any:
    sharable = SHARABLE[object_type]
    return await living(call, sharable.kind, id, sharable.missing)


async def _now(call: Call, id: str) -> Document:
    """A policy as it is now."""
    stream = RBAC_POLICY.stream(id)
    document = (await call.cloud.executor.load([stream])).get(stream)
    if document is None or not document.state.living:
        raise not_found(id)
    return document


routes = resource_routes(
    RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
)
