"""Addresses given to servers and taken from them the old way, until 2.43: fixed ones, and floating ones.

Networking's own API does all of it better; clients that name no version still come this way.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.compute.server import server_in_path
from api.compute.server_plugging import in_nova_s_words, network_not_found, ports_of
from api.wire import Call, Post, Route
from api.wire.route import Handler
from bus.documents import Where
from bus.execute import AlreadyTaken
from handlers.compute.cards import CardWanted
from handlers.network.addressing import Picks, Wanted, with_addresses
from handlers.network.leading import associating, disassociating, refuse_taken, reworded, router_between
from handlers.network.replugging import PortChange, changing
from schema.compute.server_state import Server
from schema.network.floating_ip import FLOATING_IP, FloatingIp
from schema.network.port_state import FixedIp, Port
from schema.refusal import Conflict, Invalid, NotFound, Refused

UNTIL = "2.43"
MULTINIC = "os_compute_api:os-multinic"
FLOATING = "os_compute_api:os-floating-ips"

Text = Annotated[str, Meta(min_length=1, max_length=64)]


class InNetwork(Struct, forbid_unknown_fields=True):
    networkId: Text  # noqa: N815  the wire's own word


class Fixed(Struct, forbid_unknown_fields=True):
    address: Text


class Floating(Struct, forbid_unknown_fields=True):
    address: Text
    fixed_address: Text | None = None


async def add_fixed(call: Call) -> None:
    """One more address for its card in that network."""
    server, network_id = await server_in_path(call), call.body.networkId
    port = next((it for it in await ports_of(call, server) if it.network_id == network_id), None)
    if port is None:
        raise network_not_found(network_id)
    kept = [Wanted(subnet_id=it.subnet_id, ip=it.ip_address) for it in port.fixed_ips]
    await _readdress(call, port, [*kept, Wanted()])


async def remove_fixed(call: Call) -> None:
    server, ip = await server_in_path(call), call.body.address
    for port in await ports_of(call, server):
        if any(it.ip_address == ip for it in port.fixed_ips):
            left = [Wanted(subnet_id=it.subnet_id, ip=it.ip_address) for it in port.fixed_ips if it.ip_address != ip]
            return await _readdress(call, port, left)
    raise Invalid(f"Instance {server.id} doesn't have fixed IP '{ip}'.", code="FixedIpNotFoundForInstance")


async def add_floating(call: Call) -> None:
    server, asked = await server_in_path(call), call.body
    floating = await _floating(call, asked.address, server.project_id)
    port, fixed = _inner(server, await ports_of(call, server), asked)
    try:
        router = await router_between(call.cloud, floating.network_id, fixed, port.id)
        await refuse_taken(call.cloud, floating, port, fixed)
        await call.execute(*associating(floating, port, fixed, router))
    except Refused as refused:
        why = reworded(refused, floating) if isinstance(refused, AlreadyTaken) else refused
        raise Invalid(
            f"Unable to associate floating IP {asked.address} to fixed IP {fixed.ip_address} for instance {server.id}. "
            f"Error: {why.message}"
        ) from None


async def remove_floating(call: Call) -> None:
    server, ip = await server_in_path(call), call.body.address
    floating = await _floating(call, ip, server.project_id)
    if floating.port_id not in {nic.port_id for nic in server.nics}:
        raise Conflict(f"Floating IP {ip} is not associated with instance {server.id}.")
    await call.execute(*disassociating(floating))


async def _readdress(call: Call, port: Port, wanted: list[Wanted]) -> None:
    async def attempt(picks: Picks) -> None:
        await call.execute(*await changing(call.cloud, picks, port, PortChange(fields={}, fixed_ips=wanted)))

    async with in_nova_s_words([CardWanted(network_id=port.network_id)]):
        await with_addresses(call.cloud, attempt)


async def _floating(call: Call, ip: str, project_id: str) -> FloatingIp:
    where = [Where("floating_ip_address", "=", ip), Where("project_id", "=", project_id)]
    found = await call.cloud.documents.find(FLOATING_IP, where=where, limit=1)
    if not found:
        raise NotFound("floating IP not found")
    floating: FloatingIp = found[0].state
    return floating


def _inner(server: Server, ports: list[Port], asked: Floating) -> tuple[Port, FixedIp]:
    """The server's address that the outside one is to lead to: the one asked for, or its first."""
    fixed = [(port, it) for port in ports for it in port.fixed_ips]
    if not fixed:
        raise Invalid("No fixed IPs associated to instance")
    if asked.fixed_address is not None:
        fixed = [(port, it) for port, it in fixed if it.ip_address == asked.fixed_address]
        if not fixed:
            raise Invalid("Specified fixed address not assigned to instance")
    for port, it in fixed:
        if ":" not in it.ip_address:
            return port, it
    raise Invalid(
        f"Unable to associate floating IP {asked.address} to any fixed IPs for instance {server.id}. Instance has no "
        "fixed IPv4 addresses to associate."
    )


def _row(word: str, handler: Handler, rule: str, body: Any) -> Route:
    row: Route = Post("/servers/{id}/action", handler, may=rule, action=word, body=body, answers=202, until=UNTIL)
    return row


routes = [
    _row("addFixedIp", add_fixed, f"{MULTINIC}:add", InNetwork),
    _row("removeFixedIp", remove_fixed, f"{MULTINIC}:remove", Fixed),
    _row("addFloatingIp", add_floating, f"{FLOATING}:add", Floating),
    _row("removeFloatingIp", remove_floating, f"{FLOATING}:remove", Fixed),
]
