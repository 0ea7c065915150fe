"""What may be shared, and how: one row of a table each. A policy and what it says of the thing are one append.

SHARABLE["network"]    share("access_as_external", id, "*") ─▶ the wish that opens it to everybody
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec

from bus import clock
from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from handlers.network import address_group, address_scope, network, qos_policy, security_group, subnet_pool
from handlers.network.quota import counting, giving_back, taking
from handlers.network.rbac_policy import RBAC_POLICIES, in_use
from handlers.network.sharing import refuse_unsharing
from schema.event import Kind
from schema.network.address_group import ADDRESS_GROUP, ShareAddressGroup, UnshareAddressGroup
from schema.network.address_scope import ADDRESS_SCOPE, ShareAddressScope, UnshareAddressScope
from schema.network.floating_ip import FLOATING_IP
from schema.network.network import NETWORK, Network, ShareNetwork, UnshareNetwork
from schema.network.qos_policy import QOS_POLICY, ShareQosPolicy, UnshareQosPolicy
from schema.network.rbac_policy import (
    EVERYBODY,
    EXTERNAL,
    RBAC_POLICY,
    SHARED,
    CreateRbacPolicy,
    DeleteRbacPolicy,
    RbacPolicy,
    RetargetRbacPolicy,
)
from schema.network.router import ROUTER
from schema.network.security_group import (
    SECURITY_GROUP,
    ShareSecurityGroup,
    UnshareSecurityGroup,
    members_of,
    named_by_rules,
)
from schema.network.subnet_pool import SUBNET_POOL, ShareSubnetPool, UnshareSubnetPool
from schema.refusal import Conflict, NotFound

USERS = 100_000
"""Users of one thing that are looked at, at most."""


class Sharable(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of thing that may be shared."""

    kind: Kind[Any]
    missing: Callable[[str], NotFound]
    share: Callable[[str, str, str], Wish]
    """(action, id, target) ─▶ what the thing is told."""
    unshare: Callable[[Cloud, str, Any, str], Awaitable[Wish]]
    """(cloud, action, state, target) ─▶ the same for its end. Raises Conflict while the target uses the thing."""
    actions: Sequence[str] = (SHARED,)


def recording(object_type: str, id: str, project_id: str, action: str = SHARED) -> list[Wish]:
    """The policy of a flag that was set: open to everybody. It goes into the append that opens the thing."""
    policy_id = clock.uuid4()
    command = CreateRbacPolicy(
        project_id=project_id, parent_id=id, object_type=object_type, action=action, target_project=EVERYBODY
    )
    return [Wish(RBAC_POLICIES, policy_id, command), *counting(project_id, "rbac_policy", [policy_id])]


async def forgetting(cloud: Cloud, id: str, action: str = "", target: str = "") -> list[Wish]:
    """The end of a thing's policies: all of them where it goes; those of a flag that is taken back."""
    wishes: list[Wish] = []
    for document in await cloud.documents.find(RBAC_POLICY, where=[Where("parent_id", "=", id)], limit=None):
        policy: RbacPolicy = document.state
        if action in {"", policy.action} and target in {"", policy.target_project}:
            wishes.append(Wish(RBAC_POLICIES, policy.id, DeleteRbacPolicy()))
            wishes += giving_back(policy.project_id, "rbac_policy", [policy.id])
    return wishes


async def granting(cloud: Cloud, policy_id: str, command: CreateRbacPolicy) -> list[Wish]:
    """A new policy, and what the thing is told of it."""
    sharable = SHARABLE[command.object_type]
    return [
        Wish(RBAC_POLICIES, policy_id, command),
        sharable.share(command.action, command.parent_id, command.target_project),
        *await taking(cloud, command.project_id, "rbac_policy", [policy_id]),
    ]


async def moving(cloud: Cloud, policy: RbacPolicy, thing: Any, target: str) -> list[Wish]:
    """A policy for somebody else. Raises Conflict while those it was for use the thing, unless all may now."""
    sharable = SHARABLE[policy.object_type]
    return [
        Wish(RBAC_POLICIES, policy.id, RetargetRbacPolicy(target_project=target)),
        sharable.share(policy.action, policy.object_id, target),
        await sharable.unshare(cloud, policy.action, _opened(thing, policy.action, target), policy.target_project),
    ]


async def revoking(cloud: Cloud, policy: RbacPolicy, thing: Any) -> list[Wish]:
    """Its end. Raises Conflict while those it was for use the thing."""
    return [
        Wish(RBAC_POLICIES, policy.id, DeleteRbacPolicy()),
        await SHARABLE[policy.object_type].unshare(cloud, policy.action, thing, policy.target_project),
        *giving_back(policy.project_id, "rbac_policy", [policy.id]),
    ]


def refuse_leaving_out(
    id: str, owner: str, allowed: Collection[str], using: Collection[str], target: str, *, details: str = ""
) -> None:
    """Raises Conflict when one of those who use a thing would not be let any more. `allowed`: all who are now."""
    left = set(allowed) - {target}
    if EVERYBODY in left:
        return
    concerned = set(using) if target == EVERYBODY else set(using) & {target}
    if concerned - left - {owner, ""}:
        raise in_use(id, details or f"project_id={target}")


def _opened(thing: Any, action: str, target: str) -> Any:
    field = "external_for" if action == EXTERNAL else "shared_with"
    return msgspec.structs.replace(thing, **{field: (*getattr(thing, field), target)})


def _share_network(action: str, id: str, target: str) -> Wish:
    return Wish(network.NETWORKS, id, ShareNetwork(project_id=target, external=action == EXTERNAL))


async def _unshare_network(cloud: Cloud, action: str, thing: Network, target: str) -> Wish:
    if action == EXTERNAL:
        if thing.is_default and EVERYBODY not in {*thing.external_for} - {target}:
            raise in_use(thing.id, "Default external networks must be shared to everyone.")
        refuse_leaving_out(
            thing.id,
            thing.project_id,
            thing.external_for,
            await _going_out(cloud, thing.id),
            target,
            details="There are routers attached to this network that depend on this policy for access.",
        )
    else:
        try:
            await refuse_unsharing(cloud, thing, target)
        except Conflict as used:
            raise in_use(thing.id, used.message) from None
    return Wish(network.NETWORKS, thing.id, UnshareNetwork(project_id=target, external=action == EXTERNAL))


async def _going_out(cloud: Cloud, network_id: str) -> set[str]:
    """The projects whose routers and floating IPs have addresses in a network."""
    routers = await cloud.documents.find(ROUTER, where=[Where("gateway.network_id", "=", network_id)], limit=None)
    floating = await cloud.documents.find(FLOATING_IP, where=[Where("parent_id", "=", network_id)], limit=None)
    return {document.state.project_id for document in (*routers, *floating)}


def _share_security_group(action: str, id: str, target: str) -> Wish:
    return Wish(security_group.SECURITY_GROUPS, id, ShareSecurityGroup(project_id=target))


async def _unshare_security_group(cloud: Cloud, action: str, thing: Any, target: str) -> Wish:
    using = await _holding(cloud, members_of(thing.id), named_by_rules(thing.id))
    refuse_leaving_out(thing.id, thing.project_id, thing.shared_with, using, target)
    return Wish(security_group.SECURITY_GROUPS, thing.id, UnshareSecurityGroup(project_id=target))


def _share_address_group(action: str, id: str, target: str) -> Wish:
    return Wish(address_group.ADDRESS_GROUPS, id, ShareAddressGroup(project_id=target))


async def _unshare_address_group(cloud: Cloud, action: str, thing: Any, target: str) -> Wish:
    using = await _holding(cloud, named_by_rules(thing.id))
    refuse_leaving_out(thing.id, thing.project_id, thing.shared_with, using, target)
    return Wish(address_group.ADDRESS_GROUPS, thing.id, UnshareAddressGroup(project_id=target))


async def _holding(cloud: Cloud, *scopes: str) -> set[str]:
    """The projects whose ports or rules hold reservations there."""
    held = await cloud.executor.log.holding(scopes, USERS)
    loaded = await cloud.executor.load([it.stream for it in held]) if held else {}
    return {document.state.project_id for document in loaded.values()}


def _share_qos_policy(action: str, id: str, target: str) -> Wish:
    return Wish(qos_policy.QOS_POLICIES, id, ShareQosPolicy(project_id=target))


async def _unshare_qos_policy(cloud: Cloud, action: str, thing: Any, target: str) -> Wish:
    if EVERYBODY in {*thing.shared_with} - {target}:
        return Wish(qos_policy.QOS_POLICIES, thing.id, UnshareQosPolicy(project_id=target))
    return await qos_policy.unsharing(cloud, thing.id, target)


def _share_subnet_pool(action: str, id: str, target: str) -> Wish:
    return Wish(subnet_pool.SUBNET_POOLS, id, ShareSubnetPool(project_id=target))


async def _unshare_subnet_pool(cloud: Cloud, action: str, thing: Any, target: str) -> Wish:
    using = {it.project_id for it in thing.ranges.values()}
    refuse_leaving_out(thing.id, thing.project_id, thing.shared_with, using, target)
    return Wish(subnet_pool.SUBNET_POOLS, thing.id, UnshareSubnetPool(project_id=target))


def _share_address_scope(action: str, id: str, target: str) -> Wish:
    return Wish(address_scope.ADDRESS_SCOPES, id, ShareAddressScope(project_id=target))


async def _unshare_address_scope(cloud: Cloud, action: str, thing: Any, target: str) -> Wish:
    pools = await cloud.documents.get_many(SUBNET_POOL, list(thing.pools)) if thing.pools else {}
    using = {document.state.project_id for document in pools.values()}
    refuse_leaving_out(thing.id, thing.project_id, thing.shared_with, using, target)
    return Wish(address_scope.ADDRESS_SCOPES, thing.id, UnshareAddressScope(project_id=target))


SHARABLE: dict[str, Sharable] = {
    "network": Sharable(
        kind=NETWORK,
        missing=network.not_found,
        share=_share_network,
        unshare=_unshare_network,
        actions=(SHARED, EXTERNAL),
    ),
    "security_group": Sharable(
        kind=SECURITY_GROUP,
        missing=security_group.not_found,
        share=_share_security_group,
        unshare=_unshare_security_group,
    ),
    "address_group": Sharable(
        kind=ADDRESS_GROUP,
        missing=address_group.not_found,
        share=_share_address_group,
        unshare=_unshare_address_group,
    ),
    "qos_policy": Sharable(
        kind=QOS_POLICY,
        missing=qos_policy.not_found,
        share=_share_qos_policy,
        unshare=_unshare_qos_policy,
    ),
    "subnetpool": Sharable(
        kind=SUBNET_POOL,
        missing=subnet_pool.not_found,
        share=_share_subnet_pool,
        unshare=_unshare_subnet_pool,
    ),
    "address_scope": Sharable(
        kind=ADDRESS_SCOPE,
        missing=address_scope.not_found,
        share=_share_address_scope,
        unshare=_unshare_address_scope,
    ),
}
"""By Neutron's object types."""
