"""Port forwardings of a floating IP: single ports or ranges of them, to ports inside."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.network import floating_ip
from api.network.floating_ip import forwarded, inner_port, now
from api.network.resource import found, to_change
from api.network.words import Body, LongText, PortNumber, Uuid, address, bad
from api.wire import Call, Delete, Get, Post, Put
from bus import clock
from bus.execute import AlreadyTaken
from handlers.network.addressing import Picks, with_addresses
from handlers.network.floating_ip import forwarding_not_found
from handlers.network.leading import (
    forwarding,
    forwarding_no_more,
    inner_address,
    refuse_given,
    reworded,
    router_between,
)
from schema.network.floating_ip import FloatingIp, PortForwarding
from schema.network.port_state import FixedIp

PortRange = Annotated[str, Meta(max_length=16)]
Protocol = Literal["tcp", "udp", "TCP", "UDP"]
RULE = "floatingip_port_forwarding"


class Wanted(Body):
    """As somebody asks for it; what a change leaves out stays."""

    protocol: Protocol | None = None
    external_port: PortNumber | None = None
    external_port_range: PortRange | None = None
    internal_port: PortNumber | None = None
    internal_port_range: PortRange | None = None
    internal_port_id: Uuid | None = None
    internal_ip_address: str | None = None
    description: LongText | None = None


class WantedBody(Body):
    port_forwarding: Wanted


async def index(call: Call) -> dict[str, Any]:
    floating = (await found(call, floating_ip.RESOURCE, call.path["id"])).state
    views = [forwarded(it) for it in floating.forwardings]
    for name in dict.fromkeys(call.query):
        if name in {"fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"}:
            continue
        wanted = set(call.query.getall(name))
        views = [view for view in views if str(view.get(name)) in wanted]
    return {"port_forwardings": [_fields(call, view) for view in views]}


async def show(call: Call) -> dict[str, Any]:
    floating = (await found(call, floating_ip.RESOURCE, call.path["id"])).state
    return {"port_forwarding": _fields(call, forwarded(_one(floating, call.path["forwarding_id"])))}


async def create(call: Call) -> dict[str, Any]:
    return await _put(call, clock.uuid4(), call.body.port_forwarding)


async def update(call: Call) -> dict[str, Any]:
    return await _put(call, call.path["forwarding_id"], call.body.port_forwarding, change=True)


async def delete(call: Call) -> None:
    document = await to_change(call, floating_ip.RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> None:
        floating = await now(call, document.id)
        _one(floating, call.path["forwarding_id"])
        await call.execute(*forwarding_no_more(floating, [call.path["forwarding_id"]]))

    await with_addresses(call.cloud, attempt)


async def _put(call: Call, id: str, body: Wanted, *, change: bool = False) -> dict[str, Any]:
    document = await to_change(call, floating_ip.RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> PortForwarding:
        floating = await now(call, document.id)
        complete = _over(_one(floating, id), body) if change else body
        wanted, fixed = await _understood(call, floating, id, complete)
        router = await router_between(call.cloud, floating.network_id, fixed, wanted.internal_port_id)
        try:
            await call.execute(*forwarding(floating, wanted, router))
        except AlreadyTaken as taken:
            raise reworded(taken, floating) from None
        return wanted

    return {"port_forwarding": forwarded(await with_addresses(call.cloud, attempt))}


async def _understood(call: Call, floating: FloatingIp, id: str, body: Wanted) -> tuple[PortForwarding, FixedIp]:
    """What is asked for, complete and consistent, and the inner address."""
    for name in ("protocol", "internal_port_id"):
        if getattr(body, name) is None:
            raise bad(name, "it is required")
    outer = _range("external_port", body.external_port, body.external_port_range)
    inner = _range("internal_port", body.internal_port, body.internal_port_range)
    if outer[1] - outer[0] != inner[1] - inner[0]:
        raise bad("external_port_range", "it must be as long as internal_port_range")
    port = await inner_port(call, floating, body.internal_port_id or "")
    ip = address("internal_ip_address", body.internal_ip_address) if body.internal_ip_address else None
    fixed = inner_address(port, ip)
    await refuse_given(call.cloud, floating, port, fixed.ip_address)
    return (
        PortForwarding(
            id=id,
            protocol=(body.protocol or "").lower(),
            external_port=outer[0],
            external_port_end=outer[1],
            internal_port_id=port.id,
            internal_ip_address=fixed.ip_address,
            internal_port=inner[0],
            internal_port_end=inner[1],
            description=body.description or "",
            subnet_id=fixed.subnet_id,
        ),
        fixed,
    )


def _over(known: PortForwarding, body: Wanted) -> Wanted:
    """A change completed with what is there. A new port brings its own address."""
    other_port = body.internal_port_id not in {None, known.internal_port_id}
    there = Wanted(
        protocol=known.protocol,  # type: ignore[arg-type]
        internal_port_id=known.internal_port_id,
        internal_ip_address=None if other_port else known.internal_ip_address,
        description=known.description,
    )
    changes = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not None}
    if "external_port" not in changes and "external_port_range" not in changes:
        changes["external_port_range"] = f"{known.external_port}:{known.external_port_end}"
    if "internal_port" not in changes and "internal_port_range" not in changes:
        changes["internal_port_range"] = f"{known.internal_port}:{known.internal_port_end}"
    return msgspec.structs.replace(there, **changes)


_RANGE = re.compile(r"(\d{1,5})(?::(\d{1,5}))?")
LAST_PORT = 65535


def _range(name: str, single: int | None, text: str | None) -> tuple[int, int]:
    if single is not None and text is not None:
        raise bad(name, f"either {name} or {name}_range, not both")
    if single is not None:
        return single, single
    if text is None:
        raise bad(name, "it is required")
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= LAST_PORT:
        raise bad(f"{name}_range", f"'{text}' is not a range of ports such as 80:90")
    return first, last


def _one(floating: FloatingIp, id: str) -> PortForwarding:
    it = floating.forwarding(id)
    if it is None:
        raise forwarding_not_found(id)
    return it


def _fields(call: Call, view: dict[str, Any]) -> dict[str, Any]:
    wanted = set(call.query.getall("fields", []))
    return {name: value for name, value in view.items() if name in wanted} if wanted else view


_PATH = "/floatingips/{id}/port_forwardings"

routes = [
    Get(_PATH, index, may=f"get_{RULE}"),
    Get(_PATH + "/{forwarding_id}", show, may=f"get_{RULE}"),
    Post(_PATH, create, may=f"create_{RULE}", body=WantedBody, lenient=True),
    Put(_PATH + "/{forwarding_id}", update, may=f"update_{RULE}", body=WantedBody, lenient=True),
    Delete(_PATH + "/{forwarding_id}", delete, may=f"delete_{RULE}"),
]
