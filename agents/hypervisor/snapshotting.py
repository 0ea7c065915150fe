"""The way of an image from a host into the image service: one PUT, with a ticket, tried anew where that helps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import structlog

from agents.hypervisor.driver import StepFailed
from schema.compute.domain import Snapshot

log = structlog.get_logger()

ATTEMPTS = 4
RETRY_SECONDS = 1.0
CHUNK_BYTES = 1024 * 1024
ANSWER_SECONDS = 120.0
"""How long the image service may take to say something when it has all of it."""

OnBytes = Callable[[int, int], None]
"""(bytes so far, bytes in all)"""


async def send(snapshot: Snapshot, data: Path | bytes, on_bytes: OnBytes) -> None:
    """Raises StepFailed when the image service does not take it, however often it is offered."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await _put(snapshot, data, on_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            words = f"image {snapshot.image_id} could not be sent: {str(error) or type(error).__name__}"
            if attempt == ATTEMPTS or not _passes(error):
                raise StepFailed(words) from None
            log.warning("sending an image failed and begins again", image=snapshot.image_id, error=words)
            await asyncio.sleep(attempt * RETRY_SECONDS)
        else:
            return


async def _put(snapshot: Snapshot, data: Path | bytes, on_bytes: OnBytes) -> None:
    """It is asked first whether the data is wanted (Expect): when it has come already, it need not come again."""
    size = len(data) if isinstance(data, bytes) else data.stat().st_size  # noqa: ASYNC240  one stat of a local file
    headers = {
        "X-Auth-Token": snapshot.ticket.token,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
    }
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=ANSWER_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
        session.put(snapshot.url, data=_chunks(data, size, on_bytes), expect100=True) as response,
    ):
        if response.status >= 400:
            said = (await response.text())[:400]
            raise aiohttp.ClientResponseError(
                response.request_info, response.history, status=response.status, message=said
            )


async def _chunks(data: Path | bytes, size: int, on_bytes: OnBytes) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    done = 0
    with data.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
            done += len(chunk)
            on_bytes(done, size)


def _passes(error: Exception) -> bool:
    """Whether it may be otherwise the next time: somebody else's upload that broke off is one such thing."""
    return not isinstance(error, aiohttp.ClientResponseError) or error.status >= 500 or error.status == 409
