"""Rebuilding: a server's root disk is made anew from an image, where it is; it keeps its ports and its name."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from api.compute.server import (
    RULE,
    DiskConfig,
    by,
    checked_address,
    checked_hostname,
    server_in_path,
)
from api.compute.server_action import PATH
from api.compute.server_create import USER_DATA_BYTES, checked_user_data
from api.compute.server_files import KNOWN_UNTIL, FileAsked, files_asked
from api.compute.server_source import check_fits, check_hardware, image_kept, image_named, public_keys
from api.compute.server_view import View
from api.compute.words import AdminPassword, Description, Metadata, Name, Uuid
from api.wire import Call, Post, Reply
from api.wire.route import Version
from bus import clock
from bus.execute import Wish
from handlers.compute.fate import hardware_of
from handlers.compute.quota import defaults, limits_in_force, quota_of
from handlers.compute.server import SERVERS
from handlers.placement.hardware import check_rebuild
from schema.compute.quota import UNLIMITED
from schema.compute.server_command import ChangeServerDetails, RebuildServer, ReplaceServerMetadata
from schema.compute.server_parts import Boot, Rebuild
from schema.compute.server_state import Server
from schema.refusal import Invalid, OverQuota


class Rebuilt(Struct, forbid_unknown_fields=True, kw_only=True):
    """Every field of any version; `_SINCE` and `_UNTIL` say which versions know it."""

    imageRef: Uuid  # noqa: N815  the wire's own word
    name: Name | UnsetType = UNSET
    adminPass: AdminPassword | UnsetType = UNSET  # noqa: N815
    metadata: Metadata | UnsetType = UNSET
    preserve_ephemeral: bool = False
    disk_config: DiskConfig | UnsetType = field(default=UNSET, name="OS-DCF:diskConfig")
    accessIPv4: str | UnsetType = UNSET  # noqa: N815
    accessIPv6: str | UnsetType = UNSET  # noqa: N815
    personality: list[FileAsked] | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    key_name: Name | UnsetType | None = UNSET
    user_data: Annotated[str, Meta(max_length=USER_DATA_BYTES)] | UnsetType | None = UNSET
    trusted_image_certificates: list[str] | UnsetType | None = UNSET
    hostname: str | UnsetType = UNSET


_SINCE: dict[str, Version] = {
    "description": (2, 19),
    "key_name": (2, 54),
    "user_data": (2, 57),
    "trusted_image_certificates": (2, 63),
    "hostname": (2, 90),
}
_UNTIL: dict[str, Version] = {"personality": KNOWN_UNTIL}


async def rebuild(call: Call) -> Reply:
    server, wanted = await server_in_path(call), call.body
    _check_known(wanted, call.version)
    image = await image_named(call, wanted.imageRef)
    check_fits(image, server.flavor)
    check_rebuild(hardware_of(server.flavor, server.image), check_hardware(call, server.flavor, image))
    await _check_metadata(call, server, wanted)
    boot = await _boot(call, server, wanted)
    id = server.order.secret_id or clock.uuid4()
    secret = await call.cloud.vault.seal(id, f"project/{server.project_id}", msgspec.json.encode(boot))
    command = RebuildServer(
        rebuild=Rebuild(image=image_kept(image), keep_ephemeral=wanted.preserve_ephemeral),
        key_name=wanted.key_name,
        secret_id=id,
        scripted=bool(boot.user_data),
        **by(call),
    )
    wishes = [Wish(SERVERS, server.id, command, (secret,)), Wish(SERVERS, server.id, _details(call, wanted))]
    if wanted.metadata is not UNSET:
        wishes.append(Wish(SERVERS, server.id, ReplaceServerMetadata(metadata=wanted.metadata, **by(call))))
    document = (await call.execute(*wishes))[-1]
    shown = await View(call).one(document.state, updated=True)
    shown["server"]["adminPass"] = boot.admin_password
    if call.version >= (2, 54):
        shown["server"]["key_name"] = document.state.order.key_name
    if call.version >= (2, 57):
        shown["server"]["user_data"] = boot.user_data or None
        shown["server"].pop("OS-EXT-SRV-ATTR:user_data", None)
    return Reply(shown, headers={"Location": call.url(f"/servers/{server.id}")})


def _check_known(wanted: Rebuilt, version: Version) -> None:
    """Refuse fields that this version does not know (yet, or any more), and what cannot be had here."""
    unknown = [name for name, since in _SINCE.items() if version < since and getattr(wanted, name) is not UNSET]
    unknown += [name for name, until in _UNTIL.items() if version > until and getattr(wanted, name) is not UNSET]
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise Invalid(f"Additional properties are not allowed in rebuild ({names} was unexpected)")
    if wanted.trusted_image_certificates:
        raise Invalid("trusted_image_certificates are not supported: images are not checked against certificates.")


async def _check_metadata(call: Call, server: Server, wanted: Rebuilt) -> None:
    if wanted.metadata is UNSET:
        return
    limits = limits_in_force(await quota_of(call.cloud, server.project_id), defaults(call.cloud))
    if limits["metadata_items"] != UNLIMITED and len(wanted.metadata) > limits["metadata_items"]:
        raise OverQuota(f"Maximum number of metadata items exceeds {limits['metadata_items']}")


async def _boot(call: Call, server: Server, wanted: Rebuilt) -> Boot:
    """What its guest may learn at its first boot from the new disk: as before, but for what is said."""
    id = server.order.secret_id
    opened = await call.cloud.vault.open_many([id]) if id else {}
    boot = msgspec.json.decode(opened[id], type=Boot) if id in opened else Boot()
    if wanted.personality and not server.order.config_drive:
        raise Invalid("personality comes on a config drive, and this server was ordered without one.")
    fields: dict[str, Any] = {
        "admin_password": wanted.adminPass or clock.password(),
        "files": await files_asked(call, server.project_id, wanted.personality or ()),
    }
    if wanted.user_data is not UNSET:
        fields["user_data"] = checked_user_data(wanted.user_data)
    if wanted.key_name is not UNSET:
        fields["public_keys"] = await public_keys(call, wanted.key_name)
    return msgspec.structs.replace(boot, **fields)


def _details(call: Call, wanted: Rebuilt) -> ChangeServerDetails:
    fields: dict[str, Any] = by(call)
    if wanted.name is not UNSET:
        fields["name"] = wanted.name
    if wanted.disk_config is not UNSET:
        fields["disk_config"] = wanted.disk_config
    if wanted.accessIPv4 is not UNSET:
        fields["access_ipv4"] = checked_address("accessIPv4", wanted.accessIPv4, 4)
    if wanted.accessIPv6 is not UNSET:
        fields["access_ipv6"] = checked_address("accessIPv6", wanted.accessIPv6, 6)
    if wanted.description is not UNSET:
        fields["description"] = wanted.description
    if wanted.hostname is not UNSET:
        fields["hostname"] = checked_hostname(wanted.hostname, call.version)
    return ChangeServerDetails(**fields)


routes = [Post(PATH, rebuild, may=f"{RULE}:rebuild", action="rebuild", body=Rebuilt, answers=202, lenient=True)]
