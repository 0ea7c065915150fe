"""What servers cost: python bench/servers.py [SERVERS] [networked]

Ordered at concurrency 16, built on ten simulated hosts; then listed and shown. `networked`: each with a port in a
network that all hosts have, and there when that is wired. One process with every role, a
PostgreSQL of its own with fsync; the load comes from another process, whose CPU is not counted.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))

from bus.config import Settings
from bus.postgres import EmbeddedPostgres

CONCURRENCY = 16
HOSTS = 10
PAGE = 1000
PROJECT = "b" * 32
IMAGE = "11111111-1111-4111-8111-111111111111"
NETWORK = "22222222-2222-4222-8222-222222222222"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


async def serve(home: Path, dsn: str, *, networked: bool) -> None:
    """Every role in one process, with simulated hosts; says where it listens and a token, then works until killed."""
    from aiohttp import web

    from agents.hypervisor.agent import Agent
    from agents.hypervisor.simulated import SimulatedDriver
    from agents.link import BrokerLink
    from agents.network.agent import NetworkAgent
    from agents.network.link import BrokerNetworkLink
    from agents.network.simulated import SimulatedNetwork
    from api.compute.service import SERVICE
    from api.wire.app import make_app
    from bus import clock
    from bus.cloud import open_cloud
    from bus.consumer import ProjectionWorker, Reactions, Sweep
    from bus.execute import Wish
    from handlers.compute.build import ServerReactor
    from handlers.compute.flavor import FLAVORS
    from handlers.compute.following import NicReactor
    from handlers.compute.quota import QUOTAS
    from handlers.compute.reports import Reports
    from handlers.identity.token import Token
    from handlers.identity.tokens import tokens
    from handlers.image.image import IMAGES
    from handlers.network.network import NETWORKS
    from handlers.network.quota import NETWORK_QUOTAS
    from handlers.network.reports import NetworkReports, is_network_link
    from handlers.network.subnet import SUBNETS
    from projections import projections
    from projections.network.host import NETWORK_HOSTS
    from schema.compute.flavor import CreateFlavor
    from schema.compute.host import HOST
    from schema.compute.quota import SetQuotaLimits
    from schema.image.image import CreateImage, FinishImageUpload, StartImageUpload
    from schema.network.host import NETWORK_HOST
    from schema.network.network import AddNetworkSubnet, CreateNetwork
    from schema.network.quota import SetNetworkQuotaLimits
    from schema.network.subnet import CreateSubnet, Pool
    from schema.network.wiring import link_name

    projections()
    cloud = await open_cloud(Settings(home=home, host_name="bench", hypervisor="simulated"), dsn)
    application = make_app(cloud, [SERVICE])
    reactor = ServerReactor(cloud)
    reports = Reports(cloud, reactor.telling)
    network_reports = NetworkReports(cloud)
    reactions = Reactions(cloud.log, cloud.executor, cloud.broker, cloud.checkpoints, [reactor, NicReactor(cloud)])

    async def hear(link: str, message: bytes) -> None:
        await (network_reports if is_network_link(link) else reports).on_report(link, message)

    await cloud.start()
    await cloud.broker.listen(hear)
    telling = network_reports.telling.nudge
    projecting = ProjectionWorker(cloud.pool, cloud.log, cloud.broker, cloud.checkpoints, NETWORK_HOSTS, telling)
    tasks = [
        asyncio.create_task(it)
        for it in (
            reactions.run(),
            Sweep(cloud.log, reactions).run(),
            reports.hosts.listen(),
            network_reports.hosts.listen(),
            projecting.run(),
        )
    ]
    for nth in range(HOSTS):
        driver = SimulatedDriver(f"host-{nth}", vcpus=256)
        agent = Agent(f"host-{nth}", driver, BrokerLink(await cloud.broker.link(f"host-{nth}")))
        tasks.append(asyncio.create_task(agent.run()))
        if networked:
            link = BrokerNetworkLink(await cloud.broker.link(link_name(f"host-{nth}")))
            network = NetworkAgent(f"host-{nth}", SimulatedNetwork(f"host-{nth}"), link)
            tasks.append(asyncio.create_task(network.run()))
    now = clock.now()
    pool = Pool(start="10.0.0.2", end="10.0.255.254")
    subnet = CreateSubnet(parent_id=NETWORK, cidr="10.0.0.0/16", gateway_ip="10.0.0.1", pools=(pool,))
    await cloud.executor.execute(
        Wish(FLAVORS, "1", CreateFlavor(name="small", vcpus=1, ram_mb=64, disk_gb=1)),
        Wish(QUOTAS, PROJECT, SetQuotaLimits(limits={"instances": -1, "cores": -1, "ram": -1})),
        Wish(IMAGES, IMAGE, CreateImage(visibility="public", disk_format="qcow2", container_format="bare")),
        Wish(IMAGES, IMAGE, StartImageUpload(upload_id="u", deadline=now + timedelta(hours=1))),
        Wish(
            IMAGES,
            IMAGE,
            FinishImageUpload(upload_id="u", size=1, checksum="c", hash_algorithm="sha512", hash_value="h"),
        ),
        Wish(NETWORKS, NETWORK, CreateNetwork(name="bench", project_id=PROJECT)),
        Wish(SUBNETS, NETWORK, subnet),
        Wish(NETWORKS, NETWORK, AddNetworkSubnet(subnet_id=NETWORK)),
        Wish(NETWORK_QUOTAS, PROJECT, SetNetworkQuotaLimits(limits={"port": -1})),
    )
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
    networks = HOSTS if networked else 0
    while (  # noqa: ASYNC110
        sum(document.state.usable for document in cloud.mirror(HOST).values()) < HOSTS
        or sum(document.state.alive for document in cloud.mirror(NETWORK_HOST).values()) < networks
    ):
        await asyncio.sleep(0.05)
    print(json.dumps([runner.addresses[0][1], await tokens(cloud).sign(token)]), flush=True)
    await asyncio.gather(*tasks)


class Caller:
    """One connection that is kept, and no more HTTP than that takes."""

    prefix = "/compute/v2.1"
    version = "compute 2.90"

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\nX-Auth-Token: {token}\r\n"
        self._head += f"OpenStack-API-Version: {self.version}\r\n"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def call(self, method: str, path: str, body: bytes = b"", status: int = 200) -> bytes:
        head = f"{method} {self.prefix}{path} HTTP/1.1\r\n{self._head}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        lowered = answer.lower()
        length = int(lowered.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        content = await self._reader.readexactly(length)
        if int(answer[9:12]) != status:
            raise RuntimeError(f"{method} {path}: {answer[9:12]!r} {content[:300]!r}")
        return content


async def load(port: int, token: str, servers: int, measured: "Measured", networks: Any) -> None:
    server = {"name": "bench", "flavorRef": "1", "imageRef": IMAGE, "networks": networks}
    body = json.dumps({"server": server}).encode()
    ids: list[str] = []

    async def order(caller: Caller) -> None:
        ids.append(json.loads(await caller.call("POST", "/servers", body, 202))["server"]["id"])

    async def show(caller: Caller) -> None:
        await caller.call("GET", f"/servers/{ids[0]}")

    async with Caller(port, token) as caller:
        await order(caller)
        await built(caller)
        measured.start()
        times = await at_once(port, token, order, servers)
        measured.say(f"POST /servers at {CONCURRENCY}", servers, times)
        await built(caller)
        measured.say(f"{servers} servers to ACTIVE", servers)
        while len(ids) < PAGE:
            await at_once(port, token, order, min(100, PAGE - len(ids)))
        await built(caller)
        measured.start()
        times = []
        for _ in range(40):
            started = time.perf_counter()
            page = await caller.call("GET", f"/servers/detail?limit={PAGE}")
            times.append(time.perf_counter() - started)
        measured.say(f"GET /servers/detail of {PAGE} ({len(page) // 1000} kB)", 40, times)
        measured.start()
        times = await at_once(port, token, show, 6000)
        measured.say(f"GET /servers/{{id}} at {CONCURRENCY}", 6000, times)
        print(f"resident with {len(ids)} servers: {measured.memory_mb:.0f} MB, PostgreSQL aside")


async def built(caller: Caller) -> None:
    while json.loads(await caller.call("GET", "/servers?status=BUILD&limit=1"))["servers"]:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    if failed := json.loads(await caller.call("GET", "/servers/detail?status=ERROR&limit=1"))["servers"]:
        raise RuntimeError(failed[0]["fault"])


class Measured:
    """Time and CPU of the process and of its PostgreSQL."""

    def __init__(self, process: int, postmaster: int) -> None:
        self._process = process
        self._postmaster = postmaster
        self.start()

    def start(self) -> None:
        self._began = time.perf_counter(), spent(self._process), spent(self._postmaster)

    def say(self, what: str, times: int, seconds: list[float] | None = None) -> None:
        """Since the start: how many a second, and the CPU of each."""
        began, process, postmaster = self._began
        rate = times / (time.perf_counter() - began)
        mine, its = (
            (now - then) / times * 1000
            for now, then in ((spent(self._process), process), (spent(self._postmaster), postmaster))
        )
        each = f"p50 {at(seconds, 0.5):7.1f}  p99 {at(seconds, 0.99):7.1f} ms" if seconds else " " * 27
        print(f"{what:40} {rate:7.0f} /s  {each}   CPU {mine:6.2f} + {its:6.2f} ms each (PostgreSQL's second)")

    @property
    def memory_mb(self) -> float:
        return int(Path(f"/proc/{self._process}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


async def at_once(
    port: int, token: str, work: Callable[[Any], Awaitable[None]], times: int, caller_of: type[Caller] = Caller
) -> list[float]:
    """Do it so often, a few at a time; seconds each took."""
    left = iter(range(times))
    seconds: list[float] = []

    async def worker() -> None:
        async with caller_of(port, token) as caller:
            for _ in left:
                started = time.perf_counter()
                await work(caller)
                seconds.append(time.perf_counter() - started)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return seconds


def at(seconds: list[float], share: float) -> float:
    return sorted(seconds)[int(len(seconds) * share)] * 1000


def spent(*pids: int) -> float:
    """CPU seconds of these processes and of all their children, ended ones included."""
    total, queue = 0, list(pids)
    while queue:
        pid = queue.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            queue += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except FileNotFoundError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / TICKS_PER_SECOND


def main() -> None:
    networked = sys.argv[1:][-1:] == ["networked"]
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    servers = numbers[0] if numbers else 500
    with tempfile.TemporaryDirectory(prefix="cumulog-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        postgres = EmbeddedPostgres(home)
        postmaster = postgres.start()
        command = [sys.executable, __file__, "serve", str(home), postgres.dsn(), *(["networked"] if networked else [])]
        with (
            (home / "serve.log").open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                line = next(line for line in process.stdout if line.startswith("["))
                port, token = json.loads(line)
                asyncio.run(
                    load(
                        port,
                        token,
                        servers,
                        Measured(process.pid, postmaster),
                        [{"uuid": NETWORK}] if networked else "none",
                    )
                )
            finally:
                process.kill()
                postgres.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        import structlog
        import uvloop

        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
        uvloop.run(serve(Path(sys.argv[2]), sys.argv[3], networked="networked" in sys.argv))
    else:
        main()
