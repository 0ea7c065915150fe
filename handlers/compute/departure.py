"""Departures: where a move begins, whoever asks for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from bus import clock
from bus.cloud import Cloud
from bus.documents import Documents
from bus.execute import AlreadyTaken, Wish
from bus.log import Document, Secret
from handlers.compute.moving import beginning
from handlers.compute.quota import counting, defaults
from schema.compute.migration import MIGRATION, BeginMigration, MigrationType
from schema.compute.move import Move
from schema.compute.server_command import MoveServer
from schema.compute.server_state import Server
from schema.compute.task import VmState
from schema.placement.consumer import CONSUMER
from schema.refusal import Conflict

ATTEMPTS = 20
"""Numbers tried for a new migration while others take them. They are unique; some are left out."""

_numbers: WeakKeyDictionary[Documents, int] = WeakKeyDictionary()
"""The newest that this process has taken."""

Execute = Callable[..., Awaitable[list[Document]]]


async def departure(cloud: Cloud, server: Server, type: MigrationType, **fields: Any) -> Move:
    """The move of a server from where it is. `fields`: of the move, beside what is known of where it is."""
    stream = CONSUMER.stream(server.id)
    consumer = (await cloud.log.load([stream])).get(stream)
    held = consumer.state.allocations.get(server.provider_id, {}) if consumer and consumer.state.living else {}
    fields.setdefault("running", server.vm_state is not VmState.STOPPED)
    return Move(
        migration_id=clock.uuid4(),
        type=type,
        source_host=server.host or "",
        source_provider=server.provider_id,
        source_zone=server.zone,
        source_topology=server.topology,
        source_power=server.power_state,
        held=held,
        **fields,
    )


async def begin(
    cloud: Cloud,
    execute: Execute,
    server: Server,
    action: MoveServer,
    *,
    project_id: str,
    user_id: str,
    secrets: tuple[Secret, ...] = (),
    also: tuple[Wish, ...] = (),
) -> None:
    """Have it begin. `project_id`, `user_id`: of who asks. `also`: what goes with it. Raises Refused."""
    move = action.move
    for attempt in range(ATTEMPTS):
        number = await _number(cloud, attempt)
        migration = BeginMigration(
            number=number,
            migration_type=move.type,
            server_id=server.id,
            project_id=project_id,
            user_id=user_id,
            source_host=move.source_host,
            dest_host=move.host,
            old_flavor=server.flavor.id,
            new_flavor=(move.new_flavor or server.flavor).id,
        )
        first, *others = beginning(server, action, migration)
        held = counting(server.id, server.project_id, defaults(cloud))
        try:
            await execute(Wish(first.aggregate, first.id, first.command, secrets), *others, held, *also)
        except AlreadyTaken:
            continue
        return
    raise Conflict("Others are moving servers at the same time; try again.")


async def _number(cloud: Cloud, attempt: int) -> int:
    """One that nobody of this process has taken, and (after the first attempt) probably nobody else.

    A thousand servers of one host leave it together: who meets others gets out of their way, further each time.
    """
    known = _numbers.get(cloud.documents)
    if known is None or attempt:
        known = max(await cloud.documents.count(MIGRATION, gone=None), _numbers.get(cloud.documents, 0))
    number = max(known, _numbers.get(cloud.documents, 0)) + 1 + int(clock.fraction() * (2**attempt - 1))
    _numbers[cloud.documents] = number
    return number
