"""Network cards of a server that is there: shown, plugged in and taken out, whether its guest runs or is off."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.server import by, server_in_path
from api.compute.server_plugging import (
    NetworkAmbiguous,
    checked_ip,
    in_nova_s_words,
    network_card,
    only_network,
    port_card,
    port_not_found,
    ports_seen,
    repeated,
)
from api.compute.words import Tag, Uuid
from api.wire import Call, Delete, Get, Post
from bus import clock
from bus.execute import Wish
from bus.log import Document
from handlers.compute.card_limits import card_limits
from handlers.compute.cards import CardWanted, Hand, dealt
from handlers.compute.ports import device_of
from handlers.compute.server import SERVERS
from handlers.network.addressing import Picks, with_addresses
from schema.compute.nic import ServerNic
from schema.compute.server import SERVER
from schema.compute.server_command import AttachNic, DetachNic
from schema.compute.server_state import Server
from schema.network.port import PORT
from schema.network.port_state import Port
from schema.refusal import Invalid, NotFound, Refused

RULE = "os_compute_api:os-attach-interfaces"
TAG_SHOWN_SINCE = (2, 70)
ATTACH_SECONDS = 50.0
"""How long who attaches a card waits for the guest to have it."""
FIRST_LOOK_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5


class FixedIpAsked(Struct, forbid_unknown_fields=True):
    ip_address: str


class Attachment(Struct, frozen=True, forbid_unknown_fields=True):
    net_id: Uuid | UnsetType = UNSET
    port_id: Uuid | UnsetType = UNSET
    fixed_ips: Annotated[list[FixedIpAsked], Meta(min_length=1, max_length=1)] | UnsetType = UNSET


class TaggedAttachment(Attachment, frozen=True, forbid_unknown_fields=True):
    tag: Tag | UnsetType = UNSET


class AttachBody(Struct, forbid_unknown_fields=True):
    interfaceAttachment: Attachment = Attachment()  # noqa: N815  the wire's own word


class TaggedAttachBody(Struct, forbid_unknown_fields=True):
    interfaceAttachment: TaggedAttachment = TaggedAttachment()  # noqa: N815


class AttachFailed(Refused):
    """The host could not give the guest the card (500)."""

    status = 500


async def index(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    ports = await _ports(call, server)
    return {
        "interfaceAttachments": [_view(call, nic, ports[nic.port_id]) for nic in server.nics if nic.port_id in ports]
    }


async def show(call: Call) -> dict[str, Any]:
    server, port_id = await server_in_path(call), call.path["port_id"]
    nic, port = server.nic(port_id), (await _ports(call, server)).get(port_id)
    if nic is None or port is None:
        if port_id not in await ports_seen(call, [port_id]):
            raise port_not_found(port_id[:255])
        raise NotFound(f"Instance {server.id} does not have a port with id {port_id}")
    return {"interfaceAttachment": _view(call, nic, port)}


async def attach(call: Call) -> dict[str, Any]:
    """Answered when the guest has the card."""
    server = await server_in_path(call)
    asked: Attachment = call.body.interfaceAttachment
    if asked.net_id and asked.port_id:
        raise Invalid("Must not input both network_id and port_id")
    if asked.fixed_ips and not asked.net_id:
        raise Invalid("Must input network_id when request IP address")
    if await repeated(call):
        documents = await call.execute(Wish(SERVERS, server.id, AttachNic(nic=_ANY, **by(call))))
    else:
        SERVERS.decide(server, AttachNic(nic=_ANY, **by(call)))  # whether it may get any is said first
        documents = await _attached(call, server, await _card(call, server, asked))
    port_id = next(it.id for it in documents if it.stream.startswith(PORT.stream("")))
    nic = await _plugged_in(call, server, port_id)
    ports = await call.cloud.log.load([PORT.stream(port_id)])
    return {"interfaceAttachment": _view(call, nic, ports[PORT.stream(port_id)].state)}


async def detach(call: Call) -> None:
    server, port_id = await server_in_path(call), call.path["port_id"]
    nic = server.nic(port_id)
    if nic is None or nic.port_gone:
        raise port_not_found(port_id[:255])
    await call.execute(Wish(SERVERS, server.id, DetachNic(port_id=port_id, **by(call))))


async def _card(call: Call, server: Server, asked: Attachment) -> CardWanted:
    tag = asked.tag if isinstance(asked, TaggedAttachment) and asked.tag is not UNSET else ""
    if asked.port_id:
        port = (await ports_seen(call, [asked.port_id])).get(asked.port_id)
        return port_card(port, asked.port_id, server.project_id, server.name, tag)
    if asked.net_id:
        ip = checked_ip(asked.fixed_ips[0].ip_address) if asked.fixed_ips else ""
        return await network_card(call, asked.net_id, server.project_id, ip, tag)
    try:
        cards = await only_network(call, server.project_id)
    except NetworkAmbiguous as ambiguous:
        raise Invalid(ambiguous.message, code=ambiguous.code) from None
    if not cards:
        raise Invalid(
            f"No specific network was requested and none are available for project '{server.project_id}'.",
            code="InterfaceAttachFailedNoNetwork",
        )
    return CardWanted(network_id=cards[0].network_id, tag=tag)


async def _attached(call: Call, server: Server, card: CardWanted) -> list[Document]:
    hand = Hand(
        server_id=server.id,
        project_id=server.project_id,
        hostname=server.hostname,
        zone=server.zone,
        host=server.host or "",
        cards=[card],
        standing="plugging",
        limits=card_limits(server.flavor),
    )

    async def attempt(picks: Picks) -> list[Document]:
        [its] = await dealt(call.cloud, picks, [hand])
        return await call.execute(Wish(SERVERS, server.id, AttachNic(nic=its.nics[0], **by(call))), *its.wishes)

    async with in_nova_s_words([card]):
        return await with_addresses(call.cloud, attempt)


async def _plugged_in(call: Call, server: Server, port_id: str) -> ServerNic:
    """The card once the guest has it. Raises AttachFailed."""
    until, pause = clock.monotonic() + ATTACH_SECONDS, FIRST_LOOK_SECONDS
    while True:
        nic = (await call.cloud.documents.get(SERVER, server.id, gone=True)).state.nic(port_id)
        if nic is not None and nic.standing != "plugging":
            return nic  # type: ignore[no-any-return]
        if nic is None or clock.monotonic() > until:
            raise AttachFailed(f"Failed to attach network adapter device to {server.id}", code="InterfaceAttachFailed")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def _ports(call: Call, server: Server) -> Mapping[str, Port]:
    """The ports that are the server's, by id."""
    documents = await call.cloud.documents.get_many(PORT, [nic.port_id for nic in server.nics]) if server.nics else {}
    return {
        id: document.state
        for id, document in documents.items()
        if document.state.living and device_of(document.state) == server.id
    }


def _view(call: Call, nic: ServerNic, port: Port) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "net_id": port.network_id,
        "port_id": port.id,
        "mac_addr": port.mac_address,
        "port_state": port.status,
        "fixed_ips": [{"subnet_id": it.subnet_id, "ip_address": it.ip_address} for it in port.fixed_ips],
    }
    if call.version >= TAG_SHOWN_SINCE:
        shown["tag"] = nic.tag or None
    return shown


_ANY = ServerNic(port_id="", network_id="", label="", mac_address="")
_PATH = "/servers/{id}/os-interface"
_ATTACH: dict[str, Any] = {"may": f"{RULE}:create", "answers": 200, "optional_body": True}

routes: Sequence[Any] = [
    Get(_PATH, index, may=f"{RULE}:list"),
    Post(_PATH, attach, body=AttachBody, until="2.48", **_ATTACH),
    Post(_PATH, attach, body=TaggedAttachBody, since="2.49", **_ATTACH),
    Get(f"{_PATH}/{{port_id}}", show, may=f"{RULE}:show"),
    Delete(f"{_PATH}/{{port_id}}", detach, may=f"{RULE}:delete", answers=202),
]
