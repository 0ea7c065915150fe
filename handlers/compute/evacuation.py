"""Evacuations: what moves a server away from a host that is down, asked for by a person or by recovery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bus import clock
from bus.cloud import Cloud
from bus.execute import AlreadyTaken, Wish
from bus.log import Document, Secret
from handlers.compute.moving import beginning
from schema.compute.host import Host
from schema.compute.migration import MIGRATION, BeginMigration, MigrationType
from schema.compute.move import Move
from schema.compute.server import Server
from schema.compute.server_command import EvacuateServer
from schema.placement.consumer import CONSUMER
from schema.refusal import Conflict

ATTEMPTS = 20
"""Numbers tried for a new migration while others take them. They are unique; some are left out."""

Execute = Callable[..., Awaitable[list[Document]]]


async def evacuation(
    cloud: Cloud, server: Server, source: Host | None, *, running: bool, target: str = "", forced: bool = False
) -> Move:
    """The move. `source`: its host, None if it is forgotten. `running`: whether its guest shall run afterwards."""
    stream = CONSUMER.stream(server.id)
    consumer = (await cloud.log.load([stream])).get(stream)
    held = consumer.state.allocations.get(server.provider_id, {}) if consumer and consumer.state.living else {}
    return Move(
        migration_id=clock.uuid4(),
        type=MigrationType.EVACUATION,
        source_host=server.host or "",
        source_provider=server.provider_id,
        source_epoch=source.epoch if source else 0,
        source_zone=server.zone,
        source_topology=server.topology,
        source_power=server.power_state,
        held=held,
        host=target,
        forced=forced,
        running=running,
    )


async def begin_evacuation(
    cloud: Cloud,
    execute: Execute,
    server: Server,
    action: EvacuateServer,
    *,
    project_id: str,
    user_id: str,
    secrets: tuple[Secret, ...] = (),
) -> None:
    """Have it begin. `project_id`, `user_id`: of who asks. Raises Refused."""
    move = action.move
    number = await cloud.documents.count(MIGRATION, gone=None)
    for attempt in range(ATTEMPTS):
        # A thousand servers of one host leave it together: who meets others gets out of their way, further each time.
        number += 1 + int(clock.fraction() * (2**attempt - 1))
        begin = BeginMigration(
            number=number,
            migration_type=move.type,
            server_id=server.id,
            project_id=project_id,
            user_id=user_id,
            source_host=move.source_host,
            dest_host=move.host,
            old_flavor=server.flavor.id,
            new_flavor=server.flavor.id,
        )
        first, *others = beginning(server, action, begin)
        try:
            await execute(Wish(first.aggregate, first.id, first.command, secrets), *others)
        except AlreadyTaken:
            continue
        return
    raise Conflict("Others are moving servers at the same time; try again.")
