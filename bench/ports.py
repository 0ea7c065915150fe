"""What ports cost: python bench/ports.py [PORTS]

Made at concurrency 16 in one subnet of one network, each with an address, a MAC, its project's default group and its
place in the quota; then listed, shown and deleted; then made again where thousands of addresses are taken. One process
with the API and the read models, a PostgreSQL of its own with fsync; the load comes from another process, whose CPU is
not counted.
"""

import asyncio
import json
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.child import serving
from bench.servers import CONCURRENCY, PAGE, PROJECT, Caller, Measured, at_once
from bus.config import Settings

NETWORK = "22222222-2222-4222-8222-222222222222"
SUBNET = "33333333-3333-4333-8333-333333333333"
BULK = 100
MANY = 10_000
"""Ports in the subnet when they are made again."""


async def serve(home: Path, dsn: str) -> None:
    """The API and the read models in one process; says where it listens and a token, then works until killed."""
    from aiohttp import web

    import projections.network.host
    from api.network.service import SERVICE
    from api.wire.app import make_app
    from bus import clock
    from bus.cloud import open_cloud
    from bus.consumer import PROJECTIONS, ProjectionWorker
    from bus.execute import Wish
    from handlers.identity.token import Token
    from handlers.identity.tokens import tokens
    from handlers.network.default_group import default_group
    from handlers.network.network import NETWORKS
    from handlers.network.quota import NETWORK_QUOTAS
    from handlers.network.subnet import SUBNETS
    from schema.network.network import NETWORK as NETWORK_KIND
    from schema.network.network import AddNetworkSubnet, CreateNetwork, Segment
    from schema.network.quota import SetNetworkQuotaLimits
    from schema.network.security_group import SECURITY_GROUP
    from schema.network.subnet import SUBNET as SUBNET_KIND
    from schema.network.subnet import CreateSubnet, Pool

    assert projections.network.host
    cloud = await open_cloud(Settings(home=home, host_name="bench"), dsn)
    application = make_app(cloud, [SERVICE])
    await cloud.start()
    tasks = [
        asyncio.create_task(ProjectionWorker(cloud.pool, cloud.log, cloud.broker, cloud.checkpoints, it).run())
        for it in PROJECTIONS.values()
    ]
    subnet = CreateSubnet(
        project_id=PROJECT,
        parent_id=NETWORK,
        cidr="10.0.0.0/16",
        gateway_ip="10.0.0.1",
        pools=(Pool(start="10.0.0.2", end="10.0.255.254"),),
    )
    segments = (Segment(id="s", segmentation_id=1),)
    await cloud.executor.execute(
        Wish(NETWORKS, NETWORK, CreateNetwork(name="bench", project_id=PROJECT, segments=segments)),
        Wish(SUBNETS, SUBNET, subnet),
        Wish(NETWORKS, NETWORK, AddNetworkSubnet(subnet_id=SUBNET)),
        Wish(NETWORK_QUOTAS, PROJECT, SetNetworkQuotaLimits(limits={"port": -1})),
    )
    await cloud.executor.execute(*(await default_group(cloud, PROJECT))[1])
    cloud.executor.forget([NETWORK_KIND.stream(NETWORK), SUBNET_KIND.stream(SUBNET)])
    cloud.executor.forget([SECURITY_GROUP.stream((await default_group(cloud, PROJECT))[0])])
    now = clock.now()
    token = Token(
        user_id="a" * 32,
        user_name="bench",
        project_id=PROJECT,
        granted=(("member", "member"), ("reader", "reader")),
        issued_at=now,
        expires_at=now + timedelta(hours=1),
    )
    runner = application.runner()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps([runner.addresses[0][1], await tokens(cloud).sign(token)]), flush=True)
    await asyncio.gather(*tasks)


class NetworkCaller(Caller):
    prefix = "/networking/v2.0"


async def load(port: int, token: str, ports: int, measured: Measured) -> None:
    body = json.dumps({"port": {"network_id": NETWORK, "name": "bench"}}).encode()
    bulk = json.dumps({"ports": [{"network_id": NETWORK}] * BULK}).encode()
    ids: list[str] = []

    async def make(caller: Caller) -> None:
        ids.append(json.loads(await caller.call("POST", "/ports", body, 201))["port"]["id"])

    async def make_many(caller: Caller) -> None:
        ids.extend(it["id"] for it in json.loads(await caller.call("POST", "/ports", bulk, 201))["ports"])

    async def show(caller: Caller) -> None:
        await caller.call("GET", f"/ports/{ids[0]}")

    async def delete(caller: Caller) -> None:
        await caller.call("DELETE", f"/ports/{ids.pop()}", status=204)

    async def measure(what: str, work: object, times: int) -> None:
        measured.start()
        measured.say(what, times, await at_once(port, token, work, times, NetworkCaller))  # type: ignore[arg-type]

    async with NetworkCaller(port, token) as caller:
        await make(caller)
        await measure(f"POST /ports at {CONCURRENCY}", make, ports)
        while len(ids) < PAGE:
            await make(caller)
        measured.start()
        times = []
        for _ in range(60):
            started = time.perf_counter()
            page = await caller.call("GET", f"/ports?limit={PAGE}")
            times.append(time.perf_counter() - started)
        measured.say(f"GET /ports of {PAGE} ({len(page) // 1000} kB)", 60, times)
        times = []
        for _ in range(20):
            await make(caller)
            started = time.perf_counter()
            await caller.call("GET", f"/ports?limit={PAGE}")
            times.append(time.perf_counter() - started)
        measured.start()
        await measure(f"GET /ports/{{id}} at {CONCURRENCY}", show, 4000)
        await measure(f"DELETE /ports at {CONCURRENCY}", delete, min(ports, len(ids) - 1))
        measured.start()
        many = (MANY - len(ids)) // BULK
        times = [0.0]
        for _ in range(many):
            started = time.perf_counter()
            await make_many(caller)
            times.append(time.perf_counter() - started)
        measured.say(f"POST /ports, {BULK} at once", many, times)
        await measure(f"POST /ports at {CONCURRENCY}, {MANY} there", make, ports)
        await measure(f"DELETE /ports at {CONCURRENCY}, {MANY} there", delete, ports)
        print(f"resident with {len(ids)} ports: {measured.memory_mb:.0f} MB, PostgreSQL aside")


def main() -> None:
    ports = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with serving(__file__) as ((port, token), measured):
        asyncio.run(load(port, token, ports, measured))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        import structlog
        import uvloop

        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
        uvloop.run(serve(Path(sys.argv[2]), sys.argv[3]))
    else:
        main()
