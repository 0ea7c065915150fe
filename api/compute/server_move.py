"""Moving servers: another size, another host, while they are off or while they run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from api.compute.server import RULE, DiskConfig, by, server_in_path
from api.compute.server_action import PATH
from api.compute.server_source import check_fits, check_hardware, flavor_asked, flavor_kept
from api.compute.words import HostName
from api.wire import Call, Post
from bus.execute import Wish
from handlers.compute.departure import begin, departure
from handlers.compute.moving import confirming, reverting
from handlers.compute.quota import counting
from handlers.compute.server import SERVERS
from schema.compute.host import HOST
from schema.compute.migration import MigrationType
from schema.compute.server_command import (
    ChangeServerDetails,
    ConfirmResize,
    LiveMigrateServer,
    MigrateServer,
    MoveServer,
    ResizeServer,
    RevertResize,
)
from schema.compute.server_parts import ServerFlavor
from schema.compute.server_state import Server
from schema.image.image import IMAGE
from schema.refusal import Invalid

MIGRATE = "os_compute_api:os-migrate-server:migrate"
MIGRATE_LIVE = "os_compute_api:os-migrate-server:migrate_live"


class Resize(Struct, forbid_unknown_fields=True):
    flavorRef: Annotated[str, Meta(min_length=1)] | int  # noqa: N815  the wire's own word
    disk_config: DiskConfig | UnsetType = field(default=UNSET, name="OS-DCF:diskConfig")


class Migration(Struct, forbid_unknown_fields=True):
    """Since 2.56."""

    host: HostName | None = None


class EarlyLive(Struct, forbid_unknown_fields=True):
    """Before 2.25."""

    host: HostName | None
    block_migration: bool | Literal["True", "False", "true", "false", "1", "0"]
    disk_over_commit: bool | Literal["True", "False", "true", "false", "1", "0"]


class Live(Struct, forbid_unknown_fields=True):
    """Since 2.25; and from 2.68 on."""

    host: HostName | None
    block_migration: bool | Literal["auto", "True", "False", "true", "false", "1", "0"]


class ForcedLive(Live, forbid_unknown_fields=True):
    """2.30 to 2.67."""

    force: bool = False


async def resize(call: Call) -> None:
    server = await server_in_path(call)
    flavor = await flavor_asked(call, str(call.body.flavorRef))
    wanted = flavor_kept(flavor)
    if wanted.id == server.flavor.id:
        raise Invalid("When resizing, instances must change flavor!")
    _check_disks(server, wanted)
    await _check_image(call, server, wanted)
    check_hardware(call, wanted, server.image)
    move = await departure(
        call.cloud,
        server,
        MigrationType.RESIZE,
        old_flavor=server.flavor,
        new_flavor=wanted,
        stays=call.cloud.settings.allow_resize_to_same_host,
    )
    also: tuple[Wish, ...] = ()
    if call.body.disk_config is not UNSET:
        also = (Wish(SERVERS, server.id, ChangeServerDetails(disk_config=call.body.disk_config, **by(call))),)
    await _begin(call, server, ResizeServer(move=move, **by(call)), also)


async def migrate(call: Call) -> None:
    server = await server_in_path(call)
    host = _host_asked(call, server, call.body.host if isinstance(call.body, Migration) else None, MIGRATE)
    move = await departure(call.cloud, server, MigrationType.MIGRATION, host=host)
    await _begin(call, server, MigrateServer(move=move, **by(call)))


async def migrate_live(call: Call) -> None:
    server, wanted = await server_in_path(call), call.body
    shared = call.cloud.settings.shared_storage is not None
    if shared and str(wanted.block_migration).lower() in {"true", "1"}:
        raise Invalid(
            "block_migration: hosts share their storage here, so no disk need be copied; say auto (or false) instead.",
            code="InvalidLocalStorage",
        )
    if not shared and str(wanted.block_migration).lower() in {"false", "0"}:
        raise Invalid(
            "block_migration: hosts share no storage here, so disks must go along; say auto (or true) instead.",
            code="InvalidSharedStorage",
        )
    if server.topology is not None and server.topology.devices:
        raise Invalid(
            "Migration pre-check error: the server has PCI devices of its host, which cannot go along while it runs. "
            "Migrate it cold.",
            code="MigrationPreCheckError",
        )
    forced = bool(getattr(wanted, "force", False))
    if forced and not wanted.host:
        raise Invalid("Can't force to a non-provided destination")
    host = _host_asked(call, server, wanted.host, MIGRATE_LIVE)
    move = await departure(call.cloud, server, MigrationType.LIVE, host=host, forced=forced)
    await _begin(call, server, LiveMigrateServer(move=move, **by(call)))


async def confirm(call: Call) -> None:
    server = await server_in_path(call)
    held = counting(server.id, server.project_id)
    await call.execute(*confirming(server, ConfirmResize(**by(call))), held)


async def revert(call: Call) -> None:
    server = await server_in_path(call)
    await call.execute(*reverting(server, RevertResize(**by(call))))


async def _begin(call: Call, server: Server, action: MoveServer, also: tuple[Wish, ...] = ()) -> None:
    await begin(
        call.cloud,
        call.execute,
        server,
        action,
        project_id=call.token.project_id or "",
        user_id=call.token.user_id,
        also=also,
    )


def _host_asked(call: Call, server: Server, host: str | None, rule: str) -> str:
    """A host that is named is known, which takes more than the rule of the move itself."""
    if not host:
        return ""
    call.must(f"{rule}:host", project_id=server.project_id, user_id=server.order.user_id)
    if host == server.host:
        raise Invalid("The target host can't be the same one.")
    if call.cloud.mirror(HOST).get(host) is None:
        raise Invalid(f"Compute host {host} could not be found.", code="ComputeHostNotFound")
    return host


def _check_disks(server: Server, wanted: ServerFlavor) -> None:
    """No disk is made smaller: nobody knows what would be cut off."""
    if wanted.disk_gb < server.flavor.disk_gb:
        raise Invalid(
            f"Server disk was unable to be resized because: the flavor's root disk of {wanted.disk_gb} GB is smaller "
            f"than the server's of {server.flavor.disk_gb} GB.",
            code="CannotResizeDisk",
        )
    if wanted.ephemeral_gb < server.flavor.ephemeral_gb:
        raise Invalid(
            f"Server disk was unable to be resized because: the flavor's ephemeral disk of {wanted.ephemeral_gb} GB is "
            f"smaller than the server's of {server.flavor.ephemeral_gb} GB.",
            code="CannotResizeDisk",
        )


async def _check_image(call: Call, server: Server, wanted: ServerFlavor) -> None:
    """The image it was made from must fit the flavor, as long as there is one."""
    if server.image is None:
        return
    stream = IMAGE.stream(server.image.id)
    document = (await call.cloud.executor.load([stream])).get(stream)
    if document is not None and document.state.living:
        check_fits(document.state, wanted)


def _row(handler: Any, word: str, rule: str, body: Any = None, **fields: Any) -> Any:
    if body is not None:
        fields |= {"body": body, "lenient": True}
    fields.setdefault("answers", 202)
    return Post(PATH, handler, may=rule, action=word, **fields)


routes = [
    _row(resize, "resize", f"{RULE}:resize", Resize),
    _row(confirm, "confirmResize", f"{RULE}:confirm_resize", answers=204),
    _row(revert, "revertResize", f"{RULE}:revert_resize"),
    _row(migrate, "migrate", MIGRATE, until="2.55"),
    _row(migrate, "migrate", MIGRATE, Migration, optional_body=True, since="2.56"),
    _row(migrate_live, "os-migrateLive", MIGRATE_LIVE, EarlyLive, until="2.24"),
    _row(migrate_live, "os-migrateLive", MIGRATE_LIVE, Live, since="2.25", until="2.29"),
    _row(migrate_live, "os-migrateLive", MIGRATE_LIVE, ForcedLive, since="2.30", until="2.67"),
    _row(migrate_live, "os-migrateLive", MIGRATE_LIVE, Live, since="2.68"),
]
