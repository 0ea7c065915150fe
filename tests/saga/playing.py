"""One play from beginning to end, and what must be so afterwards."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator

import msgspec
import structlog

from bus import clock
from schema.compute.migration import OVER, Migration
from schema.compute.server_state import Server
from schema.compute.task import VmState
from schema.event import kinds
from schema.image.image import Image
from schema.placement.consumer import Consumer
from tests.saga.plays import ID, Play, snapshot
from tests.saga.stage import Happening, Ill, Stage
from tests.simulation import laws
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import IMAGE

SETTLE_SECONDS = 300.0


class Outcome(msgspec.Struct):
    broken: list[str]
    happened: list[Happening]
    server: Server | None = None
    """What has become of it."""


def perform(play: Play, ills: tuple[Ill, ...] = (), *, doubled: bool = False) -> Outcome:
    """Play it, with these ills."""
    return staged(lambda stage: _perform(stage, play), ills, doubled=doubled)


def staged(
    story: Callable[[Stage], Awaitable[list[str]]], ills: tuple[Ill, ...] = (), *, doubled: bool = False
) -> Outcome:
    """Live through a story on a stage of its own. It says what was broken."""
    kinds()
    structlog.configure(processors=[_quiet], cache_logger_on_first_use=False)
    loop = VirtualLoop()
    before = clock.use(clock.SeededClock(0, loop.time))
    sys.unraisablehook = lambda _: None  # the dead say what they did not get to do
    loop.set_exception_handler(lambda loop, context: None)
    stage = Stage(loop, ills, doubled=doubled)
    asyncio.set_event_loop(loop)
    try:
        broken = loop.run_until_complete(story(stage))
    except Exception as error:  # noqa: BLE001  it is a finding
        broken = [f"it ended: {error!r}", *_whereabouts(stage)]
    finally:
        for owner in (*stage.processes, *stage.machines, *(machine.wiring for machine in stage.machines)):
            owner.owner.dead = True
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        asyncio.set_event_loop(None)
        loop.close()
        clock.use(before)
    document = stage.log.documents.get(f"server/{ID}")
    return Outcome([*broken, *stage.problems], stage.happened, document.state if document else None)


def _quiet(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


async def _perform(stage: Stage, play: Play) -> list[str]:
    await stage.ready()
    for do in play.before:
        refused = await stage.insist(do)
        server = await stage.rests(ID)
        assert not refused, refused
        assert server.fault is None, server.fault
    before = stage.server(ID) if play.before else None
    if play.mishap is not None:
        await play.mishap(stage)
    stage.playing = True
    await stage.insist(play.do)
    broken: list[str] = []
    async with asyncio.timeout(9000):
        while not stage.resting(ID):
            await asyncio.sleep(1.0)
            if broken := list(laws.at_every_moment(stage)):
                return broken
    stage.playing = False
    stage.mend()
    return await settled(stage, lambda: _in_the_end(stage, play, before))


async def settled(stage: Stage, so: Callable[[], Iterable[str]] = tuple) -> list[str]:
    """Nothing, as soon as all is as it should be; what is not so in the end. `so`: says what else is not."""
    since = stage.loop.time()
    while broken := [*laws.at_every_moment(stage), *laws.in_the_end(stage), *so()]:
        if stage.loop.time() - since > SETTLE_SECONDS:
            return broken
        await asyncio.sleep(1.0)
    return list(laws.of_the_log(stage))


def _in_the_end(stage: Stage, play: Play, before: Server | None) -> Iterator[str]:
    server = stage.server(ID)
    may_be = {play.leads, *([before.vm_state] if before else []), *play.or_else}
    if server.vm_state not in may_be:
        yield f"it is {server.vm_state}, and should be {' or '.join(sorted(may_be))}: {server.fault}"
    if server.vm_state is not play.leads and server.fault is None:
        yield f"it is {server.vm_state} and does not say why it is not {play.leads}"
    if server.living and server.host is not None:
        guests = [machine.name for machine in stage.machines if ID in machine.domains and not machine.gone]
        wanted = 2 if server.move is not None and not server.move.in_place else 1
        if len(guests) != wanted or server.host not in guests:
            yield f"it is on {server.host}, its guests on {guests}"
    elif any(ID in machine.domains for machine in stage.machines if not machine.gone):
        yield "it is gone, and a guest of it is left"
    yield from _images(stage, play, server)
    if server.vm_state is not VmState.RESIZED:
        if server.move is not None:
            yield f"it rests, and is still {server.move.phase}"
        holding = {id for id, it in stage.states(Consumer).items() if it.living} - {ID}
        if holding:
            yield f"somebody holds something for it still: {holding}"
        for migration in stage.states(Migration).values():
            if migration.status not in OVER:
                yield f"its migration is {migration.status}"


def _images(stage: Stage, play: Play, server: Server) -> Iterator[str]:
    """No image that nobody makes, and none of a server that is not on the shelf, but for those that were wished."""
    for id, image in stage.states(Image).items():
        if not image.living or id == IMAGE:
            continue
        if not image.data_id:
            yield f"image {id} is {image.status}, and nobody makes it"
        elif server.shelf is None and play.do is not snapshot:
            yield f"image {id} is left"
    if server.shelf is not None and not stage.states(Image)[server.shelf.image_id].living:
        yield "it is shelved, and its image is gone"


def _whereabouts(stage: Stage) -> list[str]:
    if f"server/{ID}" not in stage.log.documents:
        return ["there is no server"]
    server = stage.server(ID)
    return [f"it is {server.vm_state}, {server.task} on {server.host}, {server.fault}, {server.move}"]
