"""Security groups and their rules as compute once gave them: until 2.35, by asking the network service.

A rule of compute lets something in; what groups let out is not shown, and stays as the network service made it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute import elsewhere
from api.compute.elsewhere import BEFORE_PROXIES_WENT
from api.compute.page import Paging
from api.compute.server_security_group import EVERYWHERE, shown_groups
from api.wire import Call, Delete, Get, Post, Put
from schema.refusal import Conflict, Invalid

RULE = "os_compute_api:os-security-groups"
PATH = "/os-security-groups"
RULES = "/os-security-group-rules"
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")

Text = Annotated[str, Meta(max_length=255)]


class GroupWords(Struct):
    name: Text
    description: Text


class GroupBody(Struct):
    security_group: GroupWords


class RuleWords(Struct):
    parent_group_id: str
    ip_protocol: str | None = None
    from_port: int | str | None = None
    to_port: int | str | None = None
    cidr: str | None = None
    group_id: str | UnsetType | None = UNSET


class RuleBody(Struct):
    security_group_rule: RuleWords


class Query(Paging, frozen=True):
    all_tenants: str | None = None
    offset: Annotated[int, Meta(ge=0)] = 0


async def index(call: Call) -> dict[str, Any]:
    everybodys = call.token.is_admin and call.params.all_tenants not in {None, "0", "False", "false"}
    query = {} if everybodys else {"project_id": call.token.project_id or ""}
    found = (await elsewhere.network(call, "GET", "/security-groups", query=query))["security_groups"]
    ordered = sorted(found, key=lambda it: (it["project_id"], it["name"]))
    end = None if call.params.limit is None else call.params.offset + call.params.limit
    ids = [it["id"] for it in ordered[call.params.offset : end]]
    return {"security_groups": await shown_groups(call, ids)}


async def show(call: Call) -> dict[str, Any]:
    return await _shown(call, _id(call))


async def create(call: Call) -> dict[str, Any]:
    body = {"security_group": _words(call)}
    return await _shown(call, (await _network(call, "POST", "/security-groups", body))["security_group"]["id"])


async def update(call: Call) -> dict[str, Any]:
    id = _id(call)
    await _network(call, "PUT", f"/security-groups/{id}", {"security_group": _words(call)})
    return await _shown(call, id)


async def delete(call: Call) -> None:
    await _network(call, "DELETE", f"/security-groups/{_id(call)}")


async def create_rule(call: Call) -> dict[str, Any]:
    words: RuleWords = call.body.security_group_rule
    _must_be_id(words.parent_group_id)
    body = {"security_group_rule": _rule_words(words)}
    made = (await _network(call, "POST", "/security-group-rules", body))["security_group_rule"]
    [group] = await shown_groups(call, [words.parent_group_id])
    return {"security_group_rule": next(rule for rule in group["rules"] if rule["id"] == made["id"])}


async def delete_rule(call: Call) -> None:
    await _network(call, "DELETE", f"/security-group-rules/{_id(call)}")


async def _network(call: Call, method: str, path: str, body: Any = None) -> Any:
    """What is there already, or in use, was always a 400 here."""
    try:
        return await elsewhere.network(call, method, path, body)
    except Conflict as conflict:
        raise Invalid(conflict.message, code=conflict.code) from None


async def _shown(call: Call, id: str) -> dict[str, Any]:
    await elsewhere.network(call, "GET", f"/security-groups/{id}")
    [shown] = await shown_groups(call, [id])
    return {"security_group": shown}


def _id(call: Call) -> str:
    _must_be_id(call.path["id"])
    return call.path["id"]


def _must_be_id(id: str) -> None:
    if not _UUID.fullmatch(id):
        raise Invalid("Security group id should be uuid")


def _words(call: Call) -> dict[str, str]:
    wanted: GroupWords = call.body.security_group
    if not wanted.name.strip():
        raise Invalid("Security group name cannot be empty.")
    return {"name": wanted.name, "description": wanted.description}


def _rule_words(words: RuleWords) -> dict[str, Any]:
    """The same rule in the network service's words. Raises Invalid."""
    protocol = (words.ip_protocol or "").lower() or None
    of_group = words.group_id is not UNSET and words.group_id is not None
    if protocol is None and not of_group:
        raise Invalid("Not enough parameters to build a valid rule.")
    first, last = _port(words.from_port), _port(words.to_port)
    if first == -1 and last == -1 and protocol in {"icmp", "icmpv6", "ipv6-icmp"}:
        first = last = None
    cidr = words.cidr or EVERYWHERE["IPv4"]
    try:
        version = 4 if of_group else ipaddress.ip_network(cidr, strict=False).version
    except ValueError:
        raise Invalid(f"Invalid cidr {cidr[:64]}.", code="InvalidCidr") from None
    return {
        "security_group_id": words.parent_group_id,
        "direction": "ingress",
        "ethertype": f"IPv{version}",
        "protocol": protocol,
        "port_range_min": first,
        "port_range_max": last,
        **({"remote_group_id": words.group_id} if of_group else {"remote_ip_prefix": cidr}),
    }


def _port(value: int | str | None) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(value)
    except ValueError:
        raise Invalid(f"Invalid port {str(value)[:64]!r}: it must be a whole number.") from None


_UNTIL = BEFORE_PROXIES_WENT

routes = [
    Get(PATH, index, may=f"{RULE}:get", query=Query, until=_UNTIL),
    Post(PATH, create, may=f"{RULE}:create", body=GroupBody, answers=200, until=_UNTIL),
    Get(f"{PATH}/{{id}}", show, may=f"{RULE}:show", until=_UNTIL),
    Put(f"{PATH}/{{id}}", update, may=f"{RULE}:update", body=GroupBody, until=_UNTIL),
    Delete(f"{PATH}/{{id}}", delete, may=f"{RULE}:delete", answers=202, until=_UNTIL),
    Post(RULES, create_rule, may=f"{RULE}:rule:create", body=RuleBody, answers=200, until=_UNTIL),
    Delete(f"{RULES}/{{id}}", delete_rule, may=f"{RULE}:rule:delete", answers=202, until=_UNTIL),
]
