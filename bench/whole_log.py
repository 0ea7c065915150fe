"""What reading a whole log costs: read and decode, verify, refold all documents. python bench/whole_log.py [EVENTS]

A PostgreSQL of its own, fsync on; images of five events each. CPU counts every process and PostgreSQL.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bus import clock, postgres_log
from bus.log import Actor, Append, Change, Fact
from bus.postgres import EmbeddedPostgres
from bus.postgres_log import PostgresLog
from bus.rebuild import rebuild
from bus.verify import verify
from schema.image.image import IMAGE, ImageChanged, ImageCreated, ImageTagged, ImageUploaded, ImageUploadStarted

PER_APPEND = 400
ACTOR = Actor("u" * 32, "p" * 32, "a" * 22)


def life(name: str) -> list[Any]:
    created = ImageCreated(
        name=name,
        project_id="p" * 32,
        disk_format="qcow2",
        container_format="bare",
        properties={"os_distro": "debian", "note": "b" * 60},
    )
    uploaded = ImageUploaded(
        upload_id="x" * 36, size=100, checksum="c" * 32, hash_algorithm="sha512", hash_value="h" * 128
    )
    started = ImageUploadStarted(upload_id="x" * 36, deadline=clock.now())
    return [created, started, uploaded, ImageTagged(tag="t"), ImageChanged(name=f"{name}, renamed")]


async def fill(log: PostgresLog, events: int) -> None:
    for base in range(0, events // 5, PER_APPEND):
        facts, changes, now = [], [], clock.now()
        for number in range(base, min(base + PER_APPEND, events // 5)):
            id = clock.uuid4()
            state = IMAGE.unborn(id)
            for version, event in enumerate(life(f"image {number}"), start=1):
                state = IMAGE.fold(state, event, now)
                facts.append(Fact(IMAGE.stream(id), version, now, ACTOR, "req-" + clock.uuid4(), "", event))
            changes.append(Change(IMAGE.stream(id), 0, 5, state, None))
        await log.append(Append(facts=facts, changes=changes, checks={}))


async def measured(what: str, events: int, server: EmbeddedPostgres, work: Callable[[], Awaitable[Any]]) -> None:
    wall, cpu = time.monotonic(), _cpu_seconds(server)
    await work()
    wall, cpu = time.monotonic() - wall, _cpu_seconds(server) - cpu
    print(f"{what:20} {wall:7.1f} s  {events / wall:9,.0f} events/s  {cpu / events * 1e6:6.1f} µs of CPU an event")


def _cpu_seconds(server: EmbeddedPostgres) -> float:
    """Of this process, the children it had, and PostgreSQL with those of its own that have ended or still run."""
    own = os.times()
    pid = server.pid
    ticks = 0
    for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12]) + (int(fields[13]) + int(fields[14]) if each == pid else 0)
    return own.user + own.system + own.children_user + own.children_system + ticks / os.sysconf("SC_CLK_TCK")


async def run(server: EmbeddedPostgres, events: int) -> None:
    dsn = server.dsn()
    pool = await postgres_log.connect(dsn, maximum=2)
    await postgres_log.install(pool)
    log = PostgresLog(pool)
    await measured("append by 2,000", events, server, lambda: fill(log, events))
    await pool.execute("ANALYZE")

    async def read() -> None:
        after = 0
        while page := await log.read(after):
            after = page[-1].position

    await measured("read and decode", events, server, read)
    await measured("verify", events, server, lambda: verify(dsn))
    await measured("rebuild", events, server, lambda: rebuild(dsn))
    await pool.close()


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="cumulog-bench-") as folder:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder))
        server.start()
        try:
            asyncio.run(run(server, events))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
