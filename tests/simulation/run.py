"""One seed, from the beginning of its world to the judgement of it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys

import msgspec
import structlog

from bus import clock
from schema.event import kinds
from tests.simulation import laws
from tests.simulation.loop import VirtualLoop
from tests.simulation.world import ERRORS, World

SETTLE_SECONDS = 8000.0
"""Longer than the longest way: a live migration whose source is gone is waited for."""
LOOK_SECONDS = 5.0


class Outcome(msgspec.Struct):
    seed: int
    broken: list[str]
    events: int
    seconds: float
    """Of virtual time."""
    story: list[str]
    digest: str
    """Of the whole log: a seed that replays has the same."""


def run(seed: int) -> Outcome:
    """Live through a seed. The laws that were broken are in the outcome."""
    kinds()
    structlog.configure(processors=[ERRORS], cache_logger_on_first_use=False)
    loop = VirtualLoop()
    before = clock.use(clock.SeededClock(seed, loop.time))
    sys.unraisablehook = lambda _: None  # the dead say what they did not get to do
    loop.set_exception_handler(lambda loop, context: None)
    world = ERRORS.world = World(seed, loop)
    asyncio.set_event_loop(loop)
    try:
        broken = loop.run_until_complete(_live(world))
        broken += world.problems
    except Exception as error:  # noqa: BLE001  the end of the simulation itself is a finding
        broken = [f"the simulation ended: {error!r}", *world.problems]
    finally:
        ERRORS.world = None
        for owner in (*world.processes, *world.machines):
            owner.owner.dead = True
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        events = len(world.log.events)
        digest = hashlib.sha256(repr([(e.stream, e.event) for e in world.log.events]).encode()).hexdigest()[:12]
        seconds = loop.time()
        story = [f"{e.position:4} {e.at:%H:%M:%S.%f} {e.stream} {e.version} {e.event}" for e in world.log.events]
        asyncio.set_event_loop(None)
        loop.close()
        clock.use(before)
        del world
        gc.collect()
    return Outcome(seed, broken, events, seconds, story, digest)


async def _live(world: World) -> list[str]:
    await world.begin()
    length = world.random.uniform(20, 70)
    chaos = asyncio.create_task(world.chaos(length))
    while not chaos.done():
        await asyncio.wait({chaos}, timeout=LOOK_SECONDS)
        if broken := list(laws.at_every_moment(world)):
            return broken
    chaos.result()
    calm_since = world.loop.time()
    world.calm()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        world.calm()
        if broken := [*laws.at_every_moment(world), *laws.in_time(world, calm_since)]:
            return broken
        unsettled = list(laws.in_the_end(world))
        if not unsettled:
            return list(laws.of_the_log(world))
        if world.loop.time() - calm_since > SETTLE_SECONDS:
            return unsettled
