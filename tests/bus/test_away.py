"""A loop that waits out what is away ends when it is told to, whatever its connection made of that."""

import asyncio

from bus.away import AWAY, pause


async def test_a_cancellation_that_a_connection_turned_into_an_error_still_ends_the_loop():
    busy = asyncio.Event()

    async def query() -> None:
        busy.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionResetError("cancelled in the middle of a query") from None

    async def for_ever() -> None:
        while True:
            try:
                await query()
            except AWAY:
                await pause(0.0)

    loop = asyncio.create_task(for_ever())
    await busy.wait()
    loop.cancel()
    await asyncio.wait({loop}, timeout=5)
    assert loop.cancelled()
