"""Tells the scheduler which properties the images have that servers are made from, where that is weighed.

    the servers there are, read once before the first is placed ─┐
    ServerRequested, ServerRebuilt, ServerDeleted, as they go by ─┴──▶ Scheduler.made_from

Where nobody weighs it, nothing is read and nothing listened to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bus.cloud import Cloud
from bus.log import Batch
from handlers.placement.schedule import Scheduler
from schema.compute.server import SERVER
from schema.compute.server_event import RebuildRequested, ServerDeleted, ServerRebuilt, ServerRequested
from schema.compute.server_parts import ServerImage
from schema.compute.server_state import Server

PAGE = 1000
"""Servers read at once."""

_NOTHING: Mapping[str, str] = {}


class ImageFollower:
    """Make it before the mirrors start; `ready` before anything is placed."""

    def __init__(self, cloud: Cloud, scheduler: Scheduler) -> None:
        self._cloud = cloud
        self._scheduler = scheduler
        self._ready = not scheduler.index.images.on
        self._reading = asyncio.Lock()
        self._heard: set[str] = set()
        """Servers that something was heard of while the others are being read."""
        self._rebuilding: dict[str, Mapping[str, str]] = {}
        """Server → what the image says that its disk is being made anew from."""
        if not self._ready:
            cloud.mirrors.on_batch(self._hear)

    async def ready(self) -> None:
        """Every server there is has been told of. Raises what an unreachable log raises."""
        if self._ready:
            return
        async with self._reading:
            if not self._ready:
                await self._read()
                self._ready = True
                self._heard.clear()

    async def _read(self) -> None:
        marker: str | None = None
        while page := await self._cloud.documents.find(SERVER, limit=PAGE, marker=marker):
            for document in page:
                server: Server = document.state
                if server.id not in self._heard:
                    self._scheduler.made_from(server.id, _properties(server.image))
                    if server.rebuild is not None:
                        self._rebuilding.setdefault(server.id, server.rebuild.image.properties)
            marker = page[-1].id

    def _hear(self, batch: Batch) -> None:
        for recorded in batch.events:
            match recorded.event:
                case ServerRequested(image=image):
                    self._learn(recorded.stream, _properties(image))
                case RebuildRequested(rebuild=rebuild):
                    self._rebuilding[_id(recorded.stream)] = rebuild.image.properties
                case ServerRebuilt() if (properties := self._rebuilding.pop(_id(recorded.stream), None)) is not None:
                    self._learn(recorded.stream, properties)
                case ServerDeleted():
                    self._rebuilding.pop(_id(recorded.stream), None)
                    self._learn(recorded.stream, None)

    def _learn(self, stream: str, properties: Mapping[str, str] | None) -> None:
        if not self._ready:
            self._heard.add(_id(stream))
        self._scheduler.made_from(_id(stream), properties)


def _properties(image: ServerImage | None) -> Mapping[str, str]:
    return image.properties if image else _NOTHING


def _id(stream: str) -> str:
    return stream.partition("/")[2]
