"""What a host's agent answers when it is asked of a guest: a case for each question of `schema/compute/question.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from agents.hypervisor.driver import Driver, NoAgent, NotRunning, StepFailed, Unsupported
from agents.hypervisor.relay import Relay
from schema.compute.domain import ImageRef
from schema.compute.question import (
    Answer,
    Ask,
    CacheImages,
    ClearLeftovers,
    ConsoleOutput,
    ConsoleText,
    CrashGuest,
    Diagnose,
    Done,
    FindConsole,
    ForceMove,
    GuestList,
    ListGuests,
    MeasureMove,
    OpenPassage,
    PassageOpened,
    SetPassword,
    Unable,
    Why,
)

log = structlog.get_logger()

LEFTOVERS = 1000
"""Told of at once, at most; the next look tells of more."""

_WHY: dict[type[StepFailed], Why] = {Unsupported: "unsupported", NotRunning: "not_running", NoAgent: "no_agent"}


class Answering:
    """Answers for one host. Nothing of it is under the lease: it changes nothing a host should hold."""

    def __init__(self, driver: Driver, relay: Relay | None = None) -> None:
        self._driver = driver
        self._relay = relay or Relay()
        self._fetching: set[asyncio.Task[None]] = set()

    async def answer(self, ask: Ask) -> Answer:
        try:
            return await self._answer(ask)
        except StepFailed as failure:
            if isinstance(ask, ConsoleOutput):
                return ConsoleText(fault=str(failure))
            return Unable(fault=str(failure), why=_WHY.get(type(failure), "failed"))

    async def close(self) -> None:
        fetching = list(self._fetching)
        for task in fetching:
            task.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)
        await self._relay.close()

    async def _fetch(self, images: Sequence[ImageRef]) -> None:
        """One after the other, so that servers that are made meanwhile have most of the network."""
        for image in images:
            try:
                await self._driver.fetch_image(image)
            except StepFailed as failure:
                log.warning("an image could not be had in advance", image=image.id, why=str(failure))

    async def _answer(self, ask: Ask) -> Answer:
        match ask:
            case ConsoleOutput():
                return ConsoleText(text=await self._driver.console(ask.server_id, ask.lines))
            case FindConsole():
                dial = await self._driver.find_console(ask.server_id, ask.kind)
                # A serial line has one reader: what two read of it, each would have half of.
                alone = f"serial {ask.server_id}" if ask.kind == "serial" else ""
                return await self._relay.offer(ask.secret, dial, alone)
            case Diagnose():
                return await self._driver.diagnose(ask.server_id)
            case SetPassword():
                await self._driver.set_password(ask.server_id, ask.user, ask.password)
                return Done()
            case CrashGuest():
                await self._driver.crash_guest(ask.server_id)
                return Done()
            case OpenPassage():
                passing = await self._driver.open_passage(ask.server_id, ask.way)
                found = await self._relay.open(f"{ask.way} {ask.server_id}", ask.secret, passing.channels)
                return PassageOpened(
                    address=found.address if found else "",
                    port=found.port if found else 0,
                    fingerprint=found.fingerprint if found else "",
                    folder=passing.folder,
                    disks=passing.disks,
                )
            case MeasureMove():
                return await self._driver.measure_move(ask.server_id)
            case ForceMove():
                await self._driver.force_move(ask.server_id)
                return Done()
            case CacheImages():
                task = asyncio.create_task(self._fetch(ask.images), name="images in advance")
                self._fetching.add(task)
                task.add_done_callback(self._fetching.discard)
                return Done()
            case ListGuests():
                guests = (await self._driver.observe()).values()
                return GuestList(
                    guests=tuple(guests), leftovers=tuple(await self._driver.leftovers(ask.hosts))[:LEFTOVERS]
                )
            case ClearLeftovers():
                await self._driver.clear(ask.names, ask.hosts)
                return Done()
