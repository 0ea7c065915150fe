"""A log with something in it, for tests of what reads logs whole."""

from __future__ import annotations

import asyncpg

from bus.execute import Executor, Wish
from bus.postgres_log import PostgresLog
from handlers.compute.flavor import FLAVORS
from handlers.image.image import IMAGES
from schema.compute.flavor import CreateFlavor, DeleteFlavor, SetFlavorExtraSpecs
from schema.image.image import CreateImage, DeleteImage, TagImage


async def write(pool: asyncpg.Pool, things: int = 20, *, first: int = 0) -> PostgresLog:
    """Flavors (with reserved names, extra specs, some reborn) and images (with odd characters, some deleted)."""
    log = PostgresLog(pool)
    executor = Executor(log)
    for nth in range(first, first + things):
        flavor, image = f"f{nth}", f"image-{nth}"
        create = CreateFlavor(name=f"flavor {nth}", vcpus=1, ram_mb=64, disk_gb=1)
        await executor.execute(Wish(FLAVORS, flavor, create))
        await executor.execute(Wish(FLAVORS, flavor, SetFlavorExtraSpecs(extra_specs={"a\tb\\n": 'ä\n"x"'})))
        await executor.execute(
            Wish(IMAGES, image, CreateImage(name=f"i\\{nth}\t", project_id="p", min_ram_mb=nth)),
            Wish(IMAGES, image, TagImage(tag="t")),
        )
        if nth % 5 == 0:
            await executor.execute(Wish(FLAVORS, flavor, DeleteFlavor()), Wish(IMAGES, image, DeleteImage()))
        if nth % 10 == 0:
            await executor.execute(Wish(FLAVORS, flavor, create))
    await executor.close()
    return log
