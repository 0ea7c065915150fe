"""What a server is to be plugged into: networks, ports and security groups as asked for, looked up and checked at once.

Whatever can be known to be wrong is said here, in Nova's words and with its codes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from api.compute.words import Tag, Uuid
from api.wire import Call
from api.wire.route import Version
from bus.documents import AnyOf, Where
from bus.log import COMMAND_SCOPE, Document
from handlers.compute.cards import CardWanted
from handlers.compute.ports import device_of
from handlers.network.quota import in_force, limits_of
from handlers.network.segment import carriers
from handlers.network.topology import allocated
from schema.compute.server_state import Server
from schema.network.host import NETWORK_HOST
from schema.network.network import NETWORK, Network
from schema.network.port import PORT
from schema.network.port_state import Port
from schema.network.quota import NETWORK_USAGE, UNLIMITED, usage_id
from schema.refusal import Conflict, Forbidden, Invalid, NotFound, OverQuota, Refused

ATTACH_EXTERNAL = "os_compute_api:servers:create:attach_external_network"
EVERYBODY = "*"


class NetworkAsked(Struct, forbid_unknown_fields=True):
    """One entry of `networks`."""

    uuid: Uuid | None = None
    port: Uuid | None = None
    fixed_ip: str | None = None
    tag: Tag | UnsetType = UNSET


NetworksAsked = list[NetworkAsked] | Literal["auto", "none"] | UnsetType


class NetworkAmbiguous(Conflict):
    """Several networks would do (409; 400 where a card is attached)."""


class FixedIpTaken(Conflict):
    """Another port has the address (409; 400 where a server is ordered)."""


def tags_known(version: Version) -> bool:
    """Whether networks may carry tags in this version."""
    return (2, 32) <= version <= (2, 36) or version >= (2, 42)


async def cards_asked(call: Call, asked: NetworksAsked, project_id: str, *, many: bool) -> list[CardWanted]:
    """The cards of a new server. `many`: of several that are ordered at once. Raises Refused, as Nova does."""
    if asked == "none":
        return []
    if not isinstance(asked, list) or not asked:
        return await only_network(call, project_id, automatic=asked == "auto")
    _check(call, asked, many=many)
    return await _looked_up(call, asked, project_id)


async def only_network(call: Call, project_id: str, *, automatic: bool = False) -> list[CardWanted]:
    """The one network a project has to itself or shares; no card where it has none, unless one is to be made."""
    shared = [[Where("shared_with", "has", whose)] for whose in (project_id, EVERYBODY)]
    where: list[Where | AnyOf] = [AnyOf([[Where("project_id", "=", project_id)], *shared])]
    if automatic:
        where.append(Where("admin_state_up", "=", True))
    found = await call.cloud.documents.find(NETWORK, where=where, limit=2)
    if len(found) > 1:
        raise NetworkAmbiguous("Multiple possible networks found, use a Network ID to be more specific.")
    if not found:
        return [CardWanted(network_id=await _allocated(call, project_id))] if automatic else []
    _must_fit(call, found[0].state)
    return [CardWanted(network_id=found[0].id)]


async def _allocated(call: Call, project_id: str) -> str:
    """The network that is made for a project without any. What it costs is not undone when the server is refused."""
    hosts = (document.state for document in call.cloud.mirror(NETWORK_HOST).values())
    by = msgspec.structs.replace(call.by, idempotency="", fingerprint="")
    try:
        return (await allocated(call.cloud, project_id, carriers(call.cloud.settings.network, hosts), by)).id
    except Refused as refused:
        raise Invalid(
            f"Unable to automatically allocate a network for project {project_id}: {refused.message}",
            code="UnableToAutoAllocateNetwork",
        ) from None


async def network_card(call: Call, network_id: str, project_id: str, ip: str = "", tag: str = "") -> CardWanted:
    """A card in a network somebody named."""
    found = await networks_seen(call, [network_id], project_id)
    if network_id not in found:
        raise network_not_found(network_id)
    _must_fit(call, found[network_id])
    await _must_be_free(call, network_id, ip)
    return CardWanted(network_id=network_id, ip=ip, tag=tag)


def port_card(port: Port | None, id: str, project_id: str, server: str, tag: str = "") -> CardWanted:
    """A card of a port somebody named. Raises NotFound, Invalid, Conflict."""
    if port is None or not port.living:
        raise port_not_found(id)
    if port.project_id != project_id:
        raise Invalid(f"Port {id} not usable for instance {server}.", code="PortNotUsable")
    if port.device_id:
        raise Conflict(f"Port {id} is still in use.", code="PortInUse")
    return CardWanted(port=port, tag=tag)


def network_not_found(id: str) -> NotFound:
    return NotFound(f"Network {id} could not be found.", code="NetworkNotFound")


def port_not_found(id: str) -> NotFound:
    return NotFound(f"Port id {id} could not be found.", code="PortNotFound")


async def ports_seen(call: Call, ids: Sequence[str]) -> dict[str, Port]:
    """The ports of these ids that the caller sees."""
    found = await call.cloud.documents.get_many(PORT, ids) if ids else {}
    mine = call.token.project_id
    return {
        id: document.state
        for id, document in found.items()
        if document.state.living and (call.token.is_admin or document.state.project_id == mine)
    }


async def ports_of(call: Call, server: Server) -> list[Port]:
    """A server's own, in the order of its cards, as they are now."""
    return [document.state for document in await port_documents(call, server)]


async def port_documents(call: Call, server: Server) -> list[Document]:
    """The same, with their versions."""
    streams = [PORT.stream(nic.port_id) for nic in server.nics]
    documents = await call.cloud.log.load(streams) if streams else {}
    found = [documents[stream] for stream in streams if stream in documents]
    return [it for it in found if it.state.living and device_of(it.state) == server.id]


async def port_room(call: Call, project_id: str) -> int | None:
    """How many more ports the project may have; None: any number."""
    limit = in_force(call.cloud, await limits_of(call.cloud, project_id))["port"]
    if limit == UNLIMITED:
        return None
    stream = NETWORK_USAGE.stream(usage_id(project_id, "port"))
    document = (await call.cloud.executor.load([stream])).get(stream)
    return max(0, limit - (document.state.used if document else 0))


def too_many_ports() -> OverQuota:
    return OverQuota("Maximum number of ports exceeded", code="PortLimitExceeded")


async def repeated(call: Call) -> bool:
    """Whether this very request came before: then nothing is looked up, and it is answered as it was then."""
    key = call.by.idempotency
    return bool(key) and bool(await call.cloud.log.held([(COMMAND_SCOPE, key)]))


@asynccontextmanager
async def in_nova_s_words(cards: Sequence[CardWanted]) -> AsyncIterator[None]:
    """What networking refuses while cards are dealt and wished, as Nova says it."""
    try:
        yield
    except Refused as refused:
        raise _reworded(refused, cards) from None


def _reworded(refused: Refused, cards: Sequence[CardWanted]) -> Refused:
    network_id = next((card.network_id for card in cards if card.network_id), "")
    ip = next((card.ip for card in cards if card.ip), "")
    match refused.code:
        case "OverQuota" if not isinstance(refused, OverQuota):
            return too_many_ports()
        case "IpAddressGenerationFailure" | "IpAddressGenerationFailureNoMatchingSubnet":
            where = refused.message.rstrip(".").rpartition(" on network ")[2]
            return Invalid(f"No fixed IP addresses available for network: {where}", code="NoMoreFixedIps")
        case "InvalidIpForNetwork" | "InvalidIpForSubnet" | "AllocationOnAutoAddressSubnet":
            return Invalid(
                f"Invalid input received: Fixed IP {ip} is not a valid ip address for network {network_id}.",
                code="InvalidInput",
            )
        case "IpAddressAlreadyAllocated":
            return FixedIpTaken(f"Fixed IP {ip} is already in use.", code="FixedIpAlreadyInUse")
        case "PortInUse":
            id = refused.message.split()[1]
            return Conflict(f"Port {id} is still in use.", code="PortInUse")
    return refused


def _check(call: Call, asked: Sequence[NetworkAsked], *, many: bool) -> None:
    """What can be said without looking anything up."""
    ports: set[str] = set()
    for one in asked:
        if one.tag is not UNSET and not tags_known(call.version):
            raise Invalid("Additional properties are not allowed in networks ('tag' was unexpected)")
        if one.port:
            if one.port in ports:
                raise Invalid(f"Port ID '{one.port}' was specified twice: you cannot attach a port multiple times.")
            if one.fixed_ip is not None:
                raise Invalid(
                    f"Specified Fixed IP '{one.fixed_ip[:64]}' cannot be used with port '{one.port}': the two cannot "
                    "be specified together."
                )
            ports.add(one.port)
        elif not one.uuid:
            raise Invalid("Bad network format: missing 'uuid'")
        if one.fixed_ip is not None:
            checked_ip(one.fixed_ip)
    if many and ports:
        raise Invalid(
            "Failed to launch instances: Unable to launch multiple instances with a single configured port ID. Please "
            "launch your instance one by one with different ports.",
            code="MultiplePortsNotApplicable",
        )
    if many and any(one.fixed_ip for one in asked):
        raise Invalid(
            "Failed to launch instances: max_count cannot be greater than 1 if an fixed_ip is specified.",
            code="InvalidFixedIpAndMaxCountRequest",
        )


def checked_ip(text: str) -> str:
    """An address in its shortest form. Raises Invalid."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Invalid(f"Invalid input for field/attribute fixed_ip. Value: {text[:64]}.") from None


async def _looked_up(call: Call, asked: Sequence[NetworkAsked], project_id: str) -> list[CardWanted]:
    networks = await networks_seen(call, [it.uuid for it in asked if it.uuid and not it.port], project_id)
    ports = await ports_seen(call, [it.port for it in asked if it.port])
    cards: list[CardWanted] = []
    for one in asked:
        tag = one.tag if one.tag is not UNSET else ""
        if one.port:
            cards.append(port_card(ports.get(one.port), one.port, project_id, call.body.server.name, tag))
            continue
        assert one.uuid
        if one.uuid not in networks:
            raise network_not_found(one.uuid)
        _must_fit(call, networks[one.uuid])
        ip = checked_ip(one.fixed_ip) if one.fixed_ip else ""
        await _must_be_free(call, one.uuid, ip)
        cards.append(CardWanted(network_id=one.uuid, ip=ip, tag=tag))
    return cards


async def networks_seen(call: Call, ids: Sequence[str], project_id: str) -> dict[str, Network]:
    """The networks of these ids that are the project's, shared with it or a way out for it."""
    streams = [NETWORK.stream(id) for id in dict.fromkeys(ids)]
    found = await call.cloud.executor.load(streams) if ids else {}
    networks: dict[str, Network] = {it.id: it.state for it in found.values() if it.state.living}
    whose = {project_id, EVERYBODY}
    return {
        id: network
        for id, network in networks.items()
        if call.token.is_admin
        or network.project_id == project_id
        or not whose.isdisjoint({*network.shared_with, *network.external_for})
    }


def _must_fit(call: Call, network: Network) -> None:
    if not network.subnet_ids:
        raise Invalid(
            f"Network {network.id} requires a subnet in order to boot instances on.", code="NetworkRequiresSubnet"
        )
    if network.external_for and not network.shared_with and not call.may(ATTACH_EXTERNAL):
        raise Forbidden(
            f"It is not allowed to create an interface on external network {network.id}",
            code="ExternalNetworkAttachForbidden",
        )


async def _must_be_free(call: Call, network_id: str, ip: str) -> None:
    """Raises when a port has the address already, and says whose it is."""
    if not ip:
        return
    where = [Where("parent_id", "=", network_id), Where("fixed_ips", "contains", [{"ip_address": ip}])]
    having = await call.cloud.documents.find(PORT, where=where, limit=1)
    if having:
        device = having[0].state.device_id
        raise FixedIpTaken(f"Fixed IP address {ip} is already in use on instance {device}.", code="FixedIpAlreadyInUse")
