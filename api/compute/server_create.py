"""Ordering servers: everything that can be known to be wrong is said at once; what is left is one append."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from api.compute.page import links
from api.compute.server import (
    RULE,
    DiskConfig,
    checked_address,
    checked_hostname,
)
from api.compute.server_files import KNOWN_UNTIL, FileAsked, files_asked
from api.compute.server_group import group_limits
from api.compute.server_hints import hints_of
from api.compute.server_plugging import (
    FixedIpTaken,
    NetworksAsked,
    cards_asked,
    in_nova_s_words,
    port_room,
    repeated,
    too_many_ports,
)
from api.compute.server_security_group import groups_asked
from api.compute.server_source import Device, OldDevice, flavor_asked, flavor_kept, image_asked, image_kept, public_keys
from api.compute.words import AdminPassword, Description, HostName, Metadata, Name, Tag
from api.wire import Call, Post, Reply
from api.wire.route import Version
from bus import clock
from bus.execute import Wish
from bus.log import Document, Secret
from handlers.compute.cards import CardWanted, Hand, dealt
from handlers.compute.quota import counting, limits_in_force, quota_of, room
from handlers.compute.quota import defaults as quota_defaults
from handlers.compute.server import SERVERS
from handlers.compute.server_group import SERVER_GROUPS
from handlers.network.addressing import Picks, with_addresses
from schema.compute.host import HOST
from schema.compute.quota import UNLIMITED
from schema.compute.server_command import CreateServer
from schema.compute.server_group import SERVER_GROUP, JoinServerGroup
from schema.compute.server_parts import Boot, Order
from schema.compute.server_state import Server
from schema.refusal import Forbidden, Invalid, NotFound, OverQuota

FORCED_HOST = f"{RULE}:create:forced_host"
REQUESTED_DESTINATION = "os_compute_api:servers:create:requested_destination"

SERVERS_AT_ONCE = 1000
USER_DATA_BYTES = 65_535
GIB = 1024**3
TAGS = 50

Count = Annotated[int, Meta(ge=1)]
Ref = str | int


class SecurityGroup(Struct, forbid_unknown_fields=True):
    name: Name


class NewServer(Struct, forbid_unknown_fields=True):
    """Every field of any version; `_SINCE` and `_UNTIL` say which versions know it."""

    name: Name
    flavorRef: Ref  # noqa: N815  the wire's own word
    imageRef: str = ""  # noqa: N815
    adminPass: AdminPassword = ""  # noqa: N815
    metadata: Metadata = {}
    networks: NetworksAsked = UNSET
    disk_config: DiskConfig = field(default="MANUAL", name="OS-DCF:diskConfig")
    accessIPv4: str | UnsetType = UNSET  # noqa: N815
    accessIPv6: str | UnsetType = UNSET  # noqa: N815
    availability_zone: Name = ""
    block_device_mapping: list[OldDevice] = []
    block_device_mapping_v2: list[Device] = []
    config_drive: bool = False
    key_name: Name = ""
    min_count: Count = 1
    max_count: Count | UnsetType = UNSET
    return_reservation_id: bool = False
    security_groups: list[SecurityGroup] = []
    user_data: Annotated[str, Meta(max_length=USER_DATA_BYTES)] = ""
    personality: list[FileAsked] | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    tags: Annotated[list[Tag], Meta(max_length=TAGS)] | UnsetType = UNSET
    trusted_image_certificates: list[str] | UnsetType | None = UNSET
    host: HostName | UnsetType = UNSET
    hypervisor_hostname: HostName | UnsetType = UNSET
    hostname: str | UnsetType = UNSET


class CreateBody(Struct, forbid_unknown_fields=True):
    server: NewServer
    hints: dict[str, Any] = field(default={}, name="os:scheduler_hints")
    older_hints: dict[str, Any] = field(default={}, name="OS-SCH-HNT:scheduler_hints")


_SINCE: dict[str, Version] = {
    "description": (2, 19),
    "tags": (2, 52),
    "trusted_image_certificates": (2, 63),
    "host": (2, 74),
    "hypervisor_hostname": (2, 74),
    "hostname": (2, 90),
}
_UNTIL: dict[str, Version] = {"personality": KNOWN_UNTIL}
NETWORKS_REQUIRED_SINCE = (2, 37)


async def create(call: Call) -> Reply:
    wanted: NewServer = call.body.server
    _check_version(wanted, call.version)
    _check_unsupported(wanted)
    project_id = call.token.project_id
    if not project_id:
        raise Forbidden("A server belongs to a project; use a token that is scoped to one.")
    minimum, maximum = _counts(wanted)
    flavor = await flavor_asked(call, str(wanted.flavorRef))
    image = await image_asked(call, wanted.imageRef, wanted.block_device_mapping_v2, flavor)
    boot = Boot(
        admin_password=wanted.adminPass or clock.password(),
        user_data=checked_user_data(wanted.user_data),
        public_keys=await public_keys(call, wanted.key_name),
        files=await files_asked(call, project_id, wanted.personality or ()),
    )
    command = CreateServer(
        name=wanted.name,
        project_id=project_id,
        order=_order(call, wanted),
        flavor=flavor_kept(flavor),
        image=image_kept(image),
        description=wanted.description or None,
        hostname="" if wanted.hostname is UNSET else checked_hostname(wanted.hostname, call.version),
        access_ipv4=checked_address("accessIPv4", wanted.accessIPv4, 4),
        access_ipv6=checked_address("accessIPv6", wanted.accessIPv6, 6),
        disk_config=wanted.disk_config,
        metadata=wanted.metadata,
        tags=tuple(dict.fromkeys(wanted.tags or ())),
        request_id=call.request_id,
    )
    joining = await _joining(call, command.order.group_id)
    [document, *_], first = await _ordered(call, wanted, command, boot, joining, minimum, maximum)
    if wanted.return_reservation_id:
        return Reply({"reservation_id": document.state.order.reservation_id})
    return await _made(call, document.state, first, boot)


async def _ordered(  # noqa: PLR0917
    call: Call, wanted: NewServer, command: CreateServer, boot: Boot, joining: int, minimum: int, maximum: int
) -> tuple[list[Document], str]:
    """The servers, their ports, and the quota they hold, in one append; and the id of the first of them."""
    project_id = command.project_id
    try:
        if await repeated(call):
            return await call.execute(Wish(SERVERS, clock.uuid4(), command)), ""
        cards = await cards_asked(call, wanted.networks, project_id, many=maximum > 1)
        groups = await groups_asked(call, [it.name for it in wanted.security_groups], cards, project_id)
        made = sum(card.port is None for card in cards)
        count = await _affordable(call, command, minimum, maximum, made)
        orders = [await _order_of(call, _nth(command, nth) if maximum > 1 else command, boot) for nth in range(count)]

        async def attempt(picks: Picks) -> list[Document]:
            return await call.execute(*await _wishes(call, picks, orders, cards, groups, joining))

        async with in_nova_s_words(cards):
            return await with_addresses(call.cloud, attempt), orders[0].id
    except (NotFound, FixedIpTaken) as refused:
        raise Invalid(refused.message, code=refused.code) from None


class _Ordered(Struct, frozen=True):
    """One server of a request, with what only its guest may learn."""

    id: str
    command: CreateServer
    secret: Secret


async def _order_of(call: Call, command: CreateServer, boot: Boot) -> _Ordered:
    id = clock.uuid4()
    subject = f"project/{command.project_id}"
    secret = await call.cloud.vault.seal(clock.uuid4(), subject, msgspec.json.encode(boot))
    command = msgspec.structs.replace(
        command,
        hostname=command.hostname or _hostname(command.name, id),
        order=msgspec.structs.replace(command.order, secret_id=secret.id),
    )
    return _Ordered(id, command, secret)


async def _wishes(  # noqa: PLR0917
    call: Call,
    picks: Picks,
    orders: Sequence[_Ordered],
    cards: Sequence[CardWanted],
    group_ids: tuple[str, ...] | None,
    joining: int,
) -> list[Wish]:
    """Each server first, then the quota it holds, the group it joins and the ports it is plugged into."""
    hands = [
        Hand(
            server_id=order.id,
            project_id=order.command.project_id,
            hostname=order.command.hostname,
            zone=order.command.order.zone or "",
            cards=cards,
            group_ids=group_ids,
        )
        for order in orders
    ]
    wishes: list[Wish] = []
    limits = quota_defaults(call.cloud)
    for order, its in zip(orders, await dealt(call.cloud, picks, hands), strict=True):
        command = msgspec.structs.replace(order.command, nics=its.nics)
        wishes += [
            Wish(SERVERS, order.id, command, (order.secret,)),
            counting(order.id, command.project_id, limits),
            *its.wishes,
        ]
        if command.order.group_id:
            join = JoinServerGroup(server_id=order.id, limit=joining)
            wishes.append(Wish(SERVER_GROUPS, command.order.group_id, join))
    return wishes


async def _joining(call: Call, group_id: str | None) -> int:
    """How many servers the group may have, if there is such a group. Raises Invalid."""
    if group_id is None:
        return 0
    try:
        group = (await call.cloud.documents.get(SERVER_GROUP, group_id)).state
    except NotFound:
        group = None
    if group is None or (group.project_id != call.token.project_id and not call.token.is_admin):
        raise Invalid(f"Instance group {group_id[:255]} could not be found.")
    limit = (await group_limits(call))["server_group_members"]
    return limit if limit != UNLIMITED else SERVERS_AT_ONCE * SERVERS_AT_ONCE


async def _made(call: Call, server: Server, id: str, boot: Boot) -> Reply:
    if server.id != id:
        # The same request came before, and its answer was lost: it is answered as it was then.
        boot = msgspec.json.decode(await call.cloud.vault.open(server.order.secret_id), type=Boot)
    groups = [{"name": group.name} for group in call.body.server.security_groups]
    made = {
        "id": server.id,
        "links": links(call, f"/servers/{server.id}"),
        "OS-DCF:diskConfig": server.disk_config,
        "security_groups": groups or [{"name": "default"}],
        "adminPass": boot.admin_password,
    }
    return Reply({"server": made}, headers={"Location": call.url(f"/servers/{server.id}")})


def _order(call: Call, wanted: NewServer) -> Order:
    zone, host = _destination(call, wanted)
    settings, hints = call.cloud.settings, hints_of(call.body.older_hints | call.body.hints)
    return Order(
        user_id=call.token.user_id,
        reservation_id=f"r-{clock.hex_id()[:8]}",
        key_name=wanted.key_name or None,
        zone=zone,
        host=host,
        networks="none" if wanted.networks == "none" else "auto",
        config_drive=wanted.config_drive or bool(wanted.personality),  # files come on it
        scheduler_hints=hints,
        group_id=hints.get("group", [None])[0],
        has_user_data=bool(wanted.user_data),
        attempts=settings.scheduler.attempts,
        build_seconds=settings.build_deadline_seconds,
    )


def _check_version(wanted: NewServer, version: Version) -> None:
    """Refuse fields that this version does not know (yet, or any more), as Nova does."""
    unknown = [name for name, since in _SINCE.items() if version < since and getattr(wanted, name) is not UNSET]
    unknown += [name for name, until in _UNTIL.items() if version > until and getattr(wanted, name) is not UNSET]
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise Invalid(f"Additional properties are not allowed in server ({names} was unexpected)")
    if wanted.networks is UNSET and version >= NETWORKS_REQUIRED_SINCE:
        raise Invalid("Invalid input in server: 'networks' is a required property")
    if isinstance(wanted.networks, str) and version < NETWORKS_REQUIRED_SINCE:
        raise Invalid(f"Invalid input for field server.networks: {wanted.networks!r} needs microversion 2.37")


def _check_unsupported(wanted: NewServer) -> None:
    """What is understood, and cannot be had here."""
    if wanted.trusted_image_certificates:
        raise Invalid("trusted_image_certificates are not supported: images are not checked against certificates.")
    if wanted.block_device_mapping:
        raise Invalid("block_device_mapping is not supported; boot from an image with imageRef.")


def _counts(wanted: NewServer) -> tuple[int, int]:
    minimum = wanted.min_count
    maximum = minimum if wanted.max_count is UNSET else wanted.max_count
    if minimum > maximum:
        raise Invalid(f"min_count ({minimum}) must be <= max_count ({maximum})")
    if maximum > SERVERS_AT_ONCE:
        raise Invalid(f"max_count may be {SERVERS_AT_ONCE} at most, not {maximum}")
    return minimum, maximum


def _destination(call: Call, wanted: NewServer) -> tuple[str | None, str | None]:
    """(zone, host) as asked for: `zone`, `zone:host`, `zone:host:node`, or by `host` and `hypervisor_hostname`."""
    zone, _, forced = wanted.availability_zone.partition(":")
    forced, _, node = forced.partition(":")
    names = {name for name in (forced, node) if name}
    if names:
        call.must(FORCED_HOST)
    asked = {name for name in (wanted.host, wanted.hypervisor_hostname) if name is not UNSET}
    if asked:
        call.must(REQUESTED_DESTINATION)
        if names:
            raise Invalid("Name the host in availability_zone or in host, not in both.")
        names = {str(name) for name in asked}
    hosts = call.cloud.mirror(HOST)
    if zone and not any(document.state.zone == zone for document in hosts.values()):
        raise Invalid("The requested availability zone is not available")
    if len(names) > 1 or any(hosts.get(name) is None for name in names):
        raise Invalid(f"No such host: {' and '.join(sorted(names))}. Compute host could not be found.")
    return zone or None, names.pop() if names else None


async def _affordable(call: Call, command: CreateServer, minimum: int, maximum: int, ports: int) -> int:
    """How many of the wanted servers the quotas have room for; if too few, they are refused where they are reserved.

    `ports`: how many are made for each of them.
    """
    quota = await quota_of(call.cloud, command.project_id)
    limits = limits_in_force(quota, quota_defaults(call.cloud))
    if limits["metadata_items"] != UNLIMITED and len(command.metadata) > limits["metadata_items"]:
        raise OverQuota(f"Maximum number of metadata items exceeds {limits['metadata_items']}")
    count = room(limits, quota.usage, command.flavor.vcpus, command.flavor.ram_mb, maximum)
    user_id = command.order.user_id
    if user_id in quota.user_limits:
        limits = limits_in_force(quota, quota_defaults(call.cloud), user_id)
        count = room(limits, quota.usage_of(user_id), command.flavor.vcpus, command.flavor.ram_mb, count)
    more = await port_room(call, command.project_id) if ports else None
    if more is not None:
        if more < ports * minimum:
            raise too_many_ports()
        count = min(count, more // ports)
    return max(minimum, count)


def checked_user_data(text: str | None) -> str:
    """Raises Invalid."""
    if not text:
        return ""
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("Invalid input for field server.user_data: it must be base64.") from None
    return text


def _nth(command: CreateServer, nth: int) -> CreateServer:
    """One of many servers of a request: each has its number in its names."""
    return msgspec.structs.replace(
        command,
        name=f"{command.name}-{nth + 1}",
        hostname=f"{command.hostname}-{nth + 1}" if command.hostname else "",
        order=msgspec.structs.replace(command.order, launch_index=nth),
    )


_UNFIT = re.compile(r"[^a-z0-9.-]+")


def _hostname(name: str, id: str) -> str:
    """A name as a hostname: `My server!` → `my-server`."""
    plain = _UNFIT.sub("", name.lower().replace(" ", "-").replace("_", "-")).strip(".-")
    return plain[:63].rstrip(".-").replace(".", "-") or f"server-{id}"


routes = [Post("/servers", create, may=f"{RULE}:create", body=CreateBody, answers=202, lenient=True)]
