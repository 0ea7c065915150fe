"""What Placement costs: python bench/placement.py [PROVIDERS ...] [puts PUTS]

For each number of providers: allocation candidates with a limit of ten, asked by one client after the other, of hosts
that are half full and of hosts of which only a few have what is asked; then allocations of new consumers at concurrency
16, over all hosts, shown and deleted again. One process with the API, a PostgreSQL of its own with fsync; the load
comes from another process, whose CPU is not counted.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.child import serving
from bench.servers import CONCURRENCY, PROJECT, Caller, Measured, at_once
from bus.config import Settings

PROVIDERS = (1000, 10_000)
PUTS = 3000
ASKED = 200
"""Questions for candidates, of each kind."""
RARE = 100
"""One host in so many has a GPU."""
ASK = "resources=VCPU:2,MEMORY_MB:2048,DISK_GB:20"


async def serve(home: Path, dsn: str, providers: int) -> None:
    """The API in one process, with so many hosts; says where it listens and a token, then works until killed."""
    from aiohttp import web

    from api.placement.service import SERVICE
    from api.wire.app import make_app
    from bus import clock
    from bus.cloud import open_cloud
    from handlers.identity.token import Token
    from handlers.identity.tokens import tokens
    from handlers.placement.claims import claim
    from handlers.placement.provider import offering
    from schema.placement.provider import Inventory

    cloud = await open_cloud(Settings(home=home, host_name="bench"), dsn)
    application = make_app(cloud, [SERVICE])
    await cloud.start()
    ids = [str(uuid.UUID(int=nth + 1)) for nth in range(providers)]
    host = {
        "VCPU": Inventory(total=64, allocation_ratio=4.0),
        "MEMORY_MB": Inventory(total=262_144, reserved=4096),
        "DISK_GB": Inventory(total=4000),
    }
    gpu = {"VGPU": Inventory(total=4)}
    wishes = [
        (
            *offering(id, f"host-{nth}", host if nth % RARE else host | gpu, traits=("HW_CPU_X86_AVX2",)),
            *claim(id, {id: {"VCPU": 128, "MEMORY_MB": 131_072, "DISK_GB": 2000}}, PROJECT, PROJECT),
        )
        for nth, id in enumerate(ids)
    ]
    await asyncio.gather(*(cloud.executor.execute(*each) for each in wishes))
    now = clock.now()
    token = Token(
        user_id="a" * 32,
        user_name="bench",
        project_id=PROJECT,
        granted=(("service", "service"),),
        issued_at=now,
        expires_at=now + timedelta(hours=1),
    )
    runner = application.runner()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps([runner.addresses[0][1], await tokens(cloud).sign(token)]), flush=True)
    await asyncio.Event().wait()


class PlacementCaller(Caller):
    prefix = "/placement"
    version = "placement 1.39"


async def load(port: int, token: str, providers: int, puts: int, measured: Measured) -> None:
    consumers = [str(uuid.uuid4()) for _ in range(puts)]
    to_put, to_show, to_delete = iter(range(puts)), iter(consumers), iter(consumers)

    async def put(caller: Caller) -> None:
        nth = next(to_put)
        body = {
            "allocations": {
                str(uuid.UUID(int=nth % providers + 1)): {"resources": {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}}
            },
            "project_id": PROJECT,
            "user_id": PROJECT,
            "consumer_generation": None,
            "consumer_type": "INSTANCE",
        }
        await caller.call("PUT", f"/allocations/{consumers[nth]}", json.dumps(body).encode(), 204)

    async def show(caller: Caller) -> None:
        await caller.call("GET", f"/allocations/{next(to_show)}")

    async def delete(caller: Caller) -> None:
        await caller.call("DELETE", f"/allocations/{next(to_delete)}", status=204)

    async def candidates(what: str, query: str) -> None:
        async with PlacementCaller(port, token) as caller:
            measured.start()
            times = []
            for _ in range(ASKED):
                started = time.perf_counter()
                answer = await caller.call("GET", f"/allocation_candidates?{query}&limit=10")
                times.append(time.perf_counter() - started)
            assert len(json.loads(answer)["allocation_requests"]) == (
                min(10, providers // RARE) if "VGPU" in query else 10
            )
            measured.say(f"candidates of {providers}, {what}", ASKED, times)

    async def changing(what: str, work: object) -> None:
        measured.start()
        measured.say(what, puts, await at_once(port, token, work, puts, PlacementCaller))  # type: ignore[arg-type]

    await candidates("any host", ASK)
    await candidates("few hosts", f"{ASK},VGPU:1")
    await candidates("three groups", f"{ASK}&resources1=VCPU:1&resources2=VCPU:1&group_policy=none")
    await changing(f"PUT /allocations at {CONCURRENCY}", put)
    await changing(f"GET /allocations at {CONCURRENCY}", show)
    await changing(f"DELETE /allocations at {CONCURRENCY}", delete)


def measure(providers: int, puts: int) -> None:
    with serving(__file__, str(providers)) as ((port, token), measured):
        asyncio.run(load(port, token, providers, puts, measured))


def main(words: Sequence[str]) -> None:
    numbers, _, puts = " ".join(words).partition("puts")
    for providers in [int(word) for word in numbers.split()] or PROVIDERS:
        measure(providers, int(puts or PUTS))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        import structlog
        import uvloop

        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
        uvloop.run(serve(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
    else:
        main(sys.argv[1:])
