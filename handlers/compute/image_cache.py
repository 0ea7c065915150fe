"""Images at hand before a server wants them: the hosts of an aggregate are asked to fetch some."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from bus.cloud import Cloud
from handlers.compute.telling import image_ref
from handlers.image import ticket
from schema.compute.domain import ImageTicket
from schema.compute.question import CacheImages, Done, decode_answer, encode
from schema.image.image import Image

log = structlog.get_logger()

ASKING_SECONDS = 5.0
ASKED_AT_ONCE = 100


async def ask_to_cache(cloud: Cloud, hosts: Sequence[str], images: Sequence[Image]) -> None:
    """Each host begins to fetch them, and says how it ended in its own log; one that does not answer is passed over."""
    leaves = [ImageTicket(token=await ticket.sign(cloud, image.id)) for image in images]
    refs = [image_ref(cloud, image, leave) for image, leave in zip(images, leaves, strict=True)]
    question = encode(CacheImages(images=tuple(refs)))
    asking = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(host: str) -> None:
        async with asking:
            try:
                answer = decode_answer(await cloud.broker.ask(host, question, ASKING_SECONDS))
            except (TimeoutError, msgspec.DecodeError):
                log.warning("a host does not answer, and gets no images in advance", host=host)
                return
        if not isinstance(answer, Done):
            log.warning("a host takes no images in advance", host=host, why=getattr(answer, "fault", ""))

    await asyncio.gather(*(ask(host) for host in hosts))
