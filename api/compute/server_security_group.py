"""Security groups of a server, asked for by name or id: those of its ports, which all come into them and leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from api.compute.server import server_in_path
from api.compute.server_plugging import networks_seen, port_documents, ports_of
from api.wire import Call, Get, Post
from bus.documents import AnyOf, Where
from bus.execute import OtherVersion, Wish
from handlers.compute.cards import CardWanted
from handlers.compute.following import NicReactor
from handlers.network.default_group import ensure_default_group
from handlers.network.port import PORTS
from handlers.network.security_group import standing
from schema.compute.server import SERVER
from schema.compute.server_state import Server
from schema.network.port_command import UpdatePort
from schema.network.port_state import Port
from schema.network.security_group import DEFAULT, SECURITY_GROUP, SecurityGroup, SecurityRule
from schema.refusal import Conflict, Invalid, NotFound

RULE = "os_compute_api:os-security-groups"
Regrouped = dict[str, tuple[str, ...]]
"""Port → the security groups it is in from now on."""
_ATTEMPTS = 10
EVERYWHERE = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}


class GroupNamed(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=255)]


async def index(call: Call) -> dict[str, Any]:
    """As Nova has always written groups: only what they let in."""
    server = await server_in_path(call)
    ids = list(dict.fromkeys(id for port in await ports_of(call, server) for id in port.security_group_ids))
    return {"security_groups": await shown_groups(call, ids)}


async def shown_groups(call: Call, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Groups and their rules as compute writes them; those that are gone are left out."""
    groups = await _groups(call, ids)
    remote = {rule.remote_group_id for group in groups for rule in group.rules if rule.remote_group_id}
    named = {group.id: group for group in [*groups, *await _groups(call, sorted(remote - {it.id for it in groups}))]}
    return [_view(group, named) for group in groups]


async def add(call: Call) -> None:
    server = await server_in_path(call)
    [id] = await group_ids(call, [call.body.name], server.project_id)

    def with_it(ports: Sequence[Port]) -> Regrouped:
        if not ports:
            raise NotFound(
                f"instance_id {server.id} could not be found as device id on any ports", code="SecurityGroupNotFound"
            )
        fit = [port for port in ports if port.fixed_ips and port.port_security_enabled]
        return {port.id: (*port.security_group_ids, id) for port in fit}

    await _regroup(call, server, with_it, id)
    await _shown_at_once(call, server)


async def remove(call: Call) -> None:
    server = await server_in_path(call)
    [id] = await group_ids(call, [call.body.name], server.project_id)

    def without_it(ports: Sequence[Port]) -> Regrouped:
        those = [port for port in ports if id in port.security_group_ids]
        if not those:
            raise NotFound(
                f"Security group {call.body.name} not associated with the instance {server.id}",
                code="SecurityGroupNotFound",
            )
        return {port.id: tuple(it for it in port.security_group_ids if it != id) for port in those}

    await _regroup(call, server, without_it)
    await _shown_at_once(call, server)


async def groups_asked(
    call: Call, names: Sequence[str], cards: Sequence[CardWanted], project_id: str
) -> tuple[str, ...] | None:
    """Security groups by name or id; None: the default one. Raises NotFound, Conflict, Invalid."""
    wanted = list(dict.fromkeys(name for name in names if name))
    if not wanted or wanted == [DEFAULT]:
        return None
    found = await group_ids(call, wanted, project_id)
    networks = await networks_seen(call, [card.network_id for card in cards if card.network_id], project_id)
    if not all(network.port_security_enabled and network.subnet_ids for network in networks.values()):
        raise Invalid(
            "Network requires port_security_enabled and subnet associated in order to apply security groups.",
            code="SecurityGroupCannotBeApplied",
        )
    return found


async def group_ids(call: Call, names: Sequence[str], project_id: str) -> tuple[str, ...]:
    """A name goes before an id. Raises NotFound, and Conflict where a name is that of several."""
    either = [[Where("name", "in", list(names))], [Where("id", "in", list(names))]]
    seen = [[Where("project_id", "=", project_id)], *([Where("shared_with", "has", it)] for it in (project_id, "*"))]
    documents = await call.cloud.documents.find(SECURITY_GROUP, where=[AnyOf(either), AnyOf(seen)], limit=None)
    groups: list[SecurityGroup] = [document.state for document in documents]
    found: list[str] = []
    for name in names:
        named = [group.id for group in groups if group.name == name]
        if len(named) > 1:
            raise Conflict(
                f"Multiple security groups found matching '{name}'. Use an ID to be more specific.",
                code="NoUniqueMatch",
            )
        its = named or [group.id for group in groups if group.id == name]
        if its:
            found += its
        elif name == DEFAULT:
            found.append(await ensure_default_group(call.cloud, project_id, call.by))
        else:
            raise NotFound(f"Security group {name} not found.", code="SecurityGroupNotFound")
    return tuple(found)


async def _regroup(call: Call, server: Server, change: Callable[[Sequence[Port]], Regrouped], added: str = "") -> None:
    """Change its ports' groups in one append; anew when others changed a port meanwhile, so that no change is lost."""
    for attempt in range(_ATTEMPTS):
        documents = await port_documents(call, server)
        groups = change([document.state for document in documents])
        wishes = [
            Wish(PORTS, id, UpdatePort(security_group_ids=tuple(dict.fromkeys(its)))) for id, its in groups.items()
        ]
        if not wishes:
            return
        seen = {document.stream: document.version for document in documents if document.state.id in groups}
        try:
            await call.cloud.executor.execute(
                *wishes, *standing([added] if added else []), by=replace(call.by, at=seen)
            )
        except OtherVersion:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


async def _shown_at_once(call: Call, server: Server) -> None:
    """Whoever looks next sees it, without waiting for the cards to follow their ports."""
    await NicReactor(call.cloud).catch_up({SERVER.stream(server.id)})


async def _groups(call: Call, ids: Sequence[str]) -> list[SecurityGroup]:
    found = await call.cloud.documents.get_many(SECURITY_GROUP, ids) if ids else {}
    return [found[id].state for id in ids if id in found and found[id].state.living]


def _view(group: SecurityGroup, named: dict[str, SecurityGroup]) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "rules": [_rule(group, rule, named) for rule in group.rules if rule.direction == "ingress"],
    }


def _rule(group: SecurityGroup, rule: SecurityRule, named: dict[str, SecurityGroup]) -> dict[str, Any]:
    first, last = rule.port_range_min, rule.port_range_max
    if rule.protocol and first is None and last is None:
        first, last = (1, 65535) if rule.protocol.lower() in {"tcp", "udp"} else (-1, -1)
    remote = named.get(rule.remote_group_id or "")
    where = {} if rule.remote_group_id else {"cidr": rule.remote_ip_prefix or EVERYWHERE[rule.ethertype]}
    return {
        "id": rule.id,
        "parent_group_id": group.id,
        "ip_protocol": rule.protocol,
        "from_port": first,
        "to_port": last,
        "ip_range": where,
        "group": {"name": remote.name, "tenant_id": remote.project_id} if remote else {},
    }


_ACTION = "/servers/{id}/action"

routes = [
    Get("/servers/{id}/os-security-groups", index, may=f"{RULE}:list"),
    Post(_ACTION, add, may=f"{RULE}:add", action="addSecurityGroup", body=GroupNamed, answers=202),
    Post(_ACTION, remove, may=f"{RULE}:remove", action="removeSecurityGroup", body=GroupNamed, answers=202),
]
