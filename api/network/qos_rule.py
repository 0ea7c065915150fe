"""Rules of QoS policies, below their policy and under their own ids alone (`/qos/alias-…`), and their types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.network.resource import Resource, found, to_change
from api.network.words import Body, bad
from api.wire import Call, Delete, Get, Post, Put
from api.wire.route import Route
from bus import clock
from bus.documents import Where
from bus.execute import StillHeld, Wish
from bus.log import Document
from handlers.network.qos_policy import QOS_POLICIES, adding, not_supported, rule_not_found
from schema.network.host import NETWORK_HOST
from schema.network.qos_policy import (
    QOS_POLICY,
    UNSUPPORTED,
    ChangeQosRule,
    QosPolicy,
    QosRule,
    RemoveQosRule,
    RuleType,
)
from schema.refusal import NotFound

DSCP_MARKS = (0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56)
MOST = 2**31 - 1
DRIVERS = {"ovs": "openvswitch"}
"""As Neutron calls them."""
Rate = Annotated[int, Meta(ge=0, le=MOST)]
Direction = Literal["ingress", "egress"]


class NewLimit(Body):
    max_kbps: Rate
    max_burst_kbps: Rate = 0
    direction: Direction = "egress"


class LimitChange(Body):
    max_kbps: Rate | UnsetType = UNSET
    max_burst_kbps: Rate | UnsetType = UNSET
    direction: Direction | UnsetType = UNSET


class NewMarking(Body):
    dscp_mark: int


class MarkingChange(Body):
    dscp_mark: int | UnsetType = UNSET


class NewMinimum(Body):
    min_kbps: Rate
    direction: Direction = "egress"


class MinimumChange(Body):
    min_kbps: Rate | UnsetType = UNSET
    direction: Direction | UnsetType = UNSET


class RuleKind(msgspec.Struct, frozen=True):
    """One type of rule at the door. `parameters`: what drivers take, as rule type details say it."""

    says: RuleType
    new: type[Body]
    change: type[Body]
    view: Callable[[QosRule], dict[str, Any]]
    parameters: Sequence[dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.says}_rule"


def _limit_view(rule: QosRule) -> dict[str, Any]:
    return {"max_kbps": rule.max_kbps, "max_burst_kbps": rule.max_burst_kbps, "direction": rule.direction}


def _marking_view(rule: QosRule) -> dict[str, Any]:
    return {"dscp_mark": rule.dscp_mark}


def _minimum_view(rule: QosRule) -> dict[str, Any]:
    return {"min_kbps": rule.min_kbps, "direction": rule.direction}


def _range(name: str) -> dict[str, Any]:
    return {"parameter_name": name, "parameter_type": "range", "parameter_values": {"start": 0, "end": MOST}}


def _choice(name: str, values: Sequence[Any]) -> dict[str, Any]:
    return {"parameter_name": name, "parameter_type": "choices", "parameter_values": list(values)}


RULE_KINDS: dict[str, RuleKind] = {
    "bandwidth_limit": RuleKind(
        "bandwidth_limit",
        NewLimit,
        LimitChange,
        _limit_view,
        [_range("max_kbps"), _range("max_burst_kbps"), _choice("direction", ["ingress", "egress"])],
    ),
    "dscp_marking": RuleKind(
        "dscp_marking", NewMarking, MarkingChange, _marking_view, [_choice("dscp_mark", DSCP_MARKS)]
    ),
    "minimum_bandwidth": RuleKind("minimum_bandwidth", NewMinimum, MinimumChange, _minimum_view, []),
}
OFFERED = tuple(it for it in RULE_KINDS if it not in UNSUPPORTED)
"""What every driver here holds guests to."""


def rule_view(kind: RuleKind, rule: QosRule) -> dict[str, Any]:
    return {"id": rule.id, **kind.view(rule)}


def rule_routes(resource: Resource) -> list[Route]:
    """All that there is of rules. `resource`: their policies."""
    return [
        *(route for kind in RULE_KINDS.values() for route in _routes_of(resource, kind)),
        Get("/qos/rule-types", rule_types, may="get_rule_type"),
        Get("/qos/rule-types/{type}", rule_type, may="get_rule_type"),
    ]


def _refuse_mark(body: Any) -> None:
    mark = getattr(body, "dscp_mark", UNSET)
    if mark is not UNSET and mark not in DSCP_MARKS:
        raise bad("dscp_mark", f"'{mark}' is not in {list(DSCP_MARKS)}")


def _rule(policy: QosPolicy, kind: RuleKind, id: str) -> QosRule:
    rule = policy.rule(id)
    if rule is None or rule.type != kind.says:
        raise rule_not_found(id, policy.id)
    return rule


def _routes_of(resource: Resource, kind: RuleKind) -> list[Route]:
    """Of one type: below the policy, and under the alias."""
    name, may = kind.name, f"policy_{kind.name}"
    every, one = f"/qos/policies/{{id}}/{name}s", f"/qos/policies/{{id}}/{name}s/{{rule}}"
    alias, alias_name, may_alias = f"/qos/alias-{name.replace('_', '-')}s/{{rule}}", f"alias_{name}", f"alias_{name}"

    async def index(call: Call) -> dict[str, Any]:
        policy: QosPolicy = (await found(call, resource, call.path["id"])).state
        views = [rule_view(kind, it) for it in policy.rules if it.type == kind.says]
        for field in {"id", "max_kbps", "max_burst_kbps", "direction", "dscp_mark", "min_kbps"} & set(call.query):
            wanted = call.query.getall(field)
            views = [it for it in views if str(it.get(field)) in wanted]
        return {f"{name}s": views}

    async def add(call: Call) -> dict[str, Any]:
        policy = await to_change(call, resource, call.path["id"], f"create_{may}")
        body = getattr(call.body, name)
        _refuse_mark(body)
        rule = QosRule(id=clock.uuid4(), type=kind.says, **msgspec.structs.asdict(body))
        try:
            await call.execute(adding(policy.id, rule))
        except StillHeld as held:
            raise not_supported(rule.type, held.key) from None
        return {name: rule_view(kind, rule)}

    async def show(call: Call) -> dict[str, Any]:
        policy: QosPolicy = (await found(call, resource, call.path["id"])).state
        return {name: rule_view(kind, _rule(policy, kind, call.path["rule"]))}

    async def change(call: Call) -> dict[str, Any]:
        document = await to_change(call, resource, call.path["id"], f"update_{may}")
        return {name: await _change(call, document, getattr(call.body, name))}

    async def remove(call: Call) -> None:
        await _remove(call, await to_change(call, resource, call.path["id"], f"delete_{may}"))

    async def show_alias(call: Call) -> dict[str, Any]:
        policy: QosPolicy = (await found(call, resource, await _policy_of(call))).state
        return {alias_name: rule_view(kind, _rule(policy, kind, call.path["rule"]))}

    async def change_alias(call: Call) -> dict[str, Any]:
        document = await to_change(call, resource, await _policy_of(call), f"update_{may_alias}")
        return {alias_name: await _change(call, document, getattr(call.body, alias_name))}

    async def remove_alias(call: Call) -> None:
        await _remove(call, await to_change(call, resource, await _policy_of(call), f"delete_{may_alias}"))

    async def _change(call: Call, document: Document, body: Any) -> dict[str, Any]:
        _refuse_mark(body)
        rule = _rule(document.state, kind, call.path["rule"])
        command = ChangeQosRule(rule_id=rule.id, **msgspec.structs.asdict(body))
        [changed] = await call.execute(Wish(QOS_POLICIES, document.id, command))
        return rule_view(kind, _rule(changed.state, kind, rule.id))

    async def _remove(call: Call, document: Document) -> None:
        rule = _rule(document.state, kind, call.path["rule"])
        await call.execute(Wish(QOS_POLICIES, document.id, RemoveQosRule(rule_id=rule.id)))

    new = msgspec.defstruct(f"New_{name}", [(name, kind.new)], bases=(Body,))
    changed = msgspec.defstruct(f"Change_{name}", [(name, kind.change)], bases=(Body,))
    alias_changed = msgspec.defstruct(f"Change_{alias_name}", [(alias_name, kind.change)], bases=(Body,))
    return [
        Get(every, index, may=f"get_{may}"),
        Post(every, add, may=f"create_{may}", body=new, lenient=True),
        Get(one, show, may=f"get_{may}"),
        Put(one, change, may=f"get_{may}", body=changed, lenient=True),
        Delete(one, remove, may=f"get_{may}"),
        Get(alias, show_alias, may=f"get_{may_alias}"),
        Put(alias, change_alias, may=f"get_{may_alias}", body=alias_changed, lenient=True),
        Delete(alias, remove_alias, may=f"get_{may_alias}"),
    ]


async def _policy_of(call: Call) -> str:
    """The policy that a rule is of, whose id alone is known."""
    where = [Where("rules", "contains", [{"id": call.path["rule"]}])]
    policies = await call.cloud.documents.find(QOS_POLICY, where=where, limit=1)
    if not policies:
        raise NotFound(f"QoS rule {call.path['rule']} could not be found.", code="QosRuleNotFound")
    return policies[0].id


async def rule_types(call: Call) -> dict[str, Any]:
    wanted = set(call.query.getall("type", [])) or set(OFFERED)
    return {"rule_types": [{"type": it} for it in OFFERED if it in wanted]}


async def rule_type(call: Call) -> dict[str, Any]:
    """Which drivers hold guests to it: those of the hosts there are."""
    call.must("get_rule_type:drivers")
    kind = RULE_KINDS.get(call.path["type"])
    if kind is None or kind.says not in OFFERED:
        raise NotFound(f"QoS rule type {call.path['type']} could not be found.", code="QosRuleTypeNotFound")
    hosts = await call.cloud.documents.find(NETWORK_HOST, limit=None)
    drivers = sorted({DRIVERS.get(it.state.facts.driver, it.state.facts.driver) for it in hosts})
    shown = [{"name": it, "supported_parameters": list(kind.parameters)} for it in drivers]
    return {"rule_type": {"type": kind.says, "drivers": shown}}
