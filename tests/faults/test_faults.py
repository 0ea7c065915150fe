"""kill -9 of every process of a real deployment, in the middle of fifty builds; and no human hand."""

import asyncio
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli import processes
from bus.postgres import EmbeddedPostgres
from bus.rabbitmq_server import RabbitServer
from tests.cli.conftest import Person
from tests.faults.client import Client

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.xdist_group("clouds")]

SERVERS = 50
HOSTS = 4
SETTLE_SECONDS = 60.0
ROLES = ("api", "handlers", "projections", "relay", "agent")


class Deployment:
    """A cloud of eight processes that a supervisor keeps running."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.home = person.home
        self.url = f"http://{person.listen}"
        self.postgres = EmbeddedPostgres(person.home)
        self.rabbitmq = RabbitServer(person.home)
        self.images: list[str] = []

    @property
    def password(self) -> str:
        return (self.home / "admin-password").read_text().strip()

    def pid(self, name: str) -> int | None:
        if name == "postgres":
            return self.postgres.pid
        if name == "rabbitmq":
            return self.rabbitmq.pid
        process = processes.find(self.home / "run", name)
        return process.pid if process else None

    def kill(self, name: str) -> None:
        """By signal 9, as the kernel would when memory is short."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def deployment(free_port) -> Iterator[Deployment]:
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    folder.chmod(0o711)
    person = Person(folder / "home", free_port())
    person.environment |= {"CUMULOG_LEASE_SECONDS": "6", "CUMULOG_BUILD_DEADLINE_SECONDS": "30"}
    person.up("--bus", "rabbitmq", "--hosts", str(HOSTS))
    yield Deployment(person)
    person.types("down")
    shutil.rmtree(folder)


async def builds(client: Client, deployment: Deployment, name: str) -> list[str]:
    if not deployment.images:
        deployment.images.append(await client.prepare())
    image = deployment.images[0]
    return list(await asyncio.gather(*(client.create(image, f"{name}-{n}") for n in range(SERVERS))))


async def judged(client: Client, ids: list[str], least: float = 0.9) -> None:
    """Every server came to rest, none says nothing of why it failed, and nothing outlives its server."""
    servers = await client.settled(SETTLE_SECONDS)
    assert set(ids) <= servers.keys(), "a server was promised and is not there"
    assert len(servers) == len(set(ids)) == SERVERS, "a request was done twice"
    for server in servers.values():
        assert server["status"] in {"ACTIVE", "ERROR"}, server
        assert server["status"] == "ACTIVE" or server["fault"]["message"], server
    active = sum(server["status"] == "ACTIVE" for server in servers.values())
    assert active >= SERVERS * least, f"only {active} of {SERVERS} are ACTIVE"
    assert (await client.used())["VCPU"] == active
    await client.delete_all()
    async with asyncio.timeout(SETTLE_SECONDS):
        while await client.servers():  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert not any((await client.used()).values())


@pytest.mark.parametrize(
    "victims", [*((role,) for role in ROLES), ("postgres",), ("rabbitmq",), (*ROLES, "postgres", "rabbitmq")]
)
async def test_killed_in_the_middle_of_fifty_builds(deployment: Deployment, victims: tuple[str, ...]):
    chance = random.Random(" ".join(victims))
    async with Client(deployment.url, deployment.password) as client:
        name = victims[0] if len(victims) == 1 else "everything"
        building = asyncio.create_task(builds(client, deployment, name))
        for victim in victims:
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            deployment.kill(victim)
        await judged(client, await building)


@pytest.mark.parametrize(
    "victim, seconds, least",
    [("handlers", 8.0, 0.9), ("relay", 4.0, 0.9), ("agent", 3.0, 0.9), ("agent", 9.0, 0.0), ("rabbitmq", 14.0, 0.9)],
)
async def test_frozen_in_the_middle_of_fifty_builds(deployment: Deployment, victim: str, seconds: float, least: float):
    """It neither dies nor answers; then it goes on as if nothing had been, and what it knows is long untrue."""
    async with Client(deployment.url, deployment.password) as client:
        building = asyncio.create_task(builds(client, deployment, f"frozen-{victim}-{seconds}"))
        await asyncio.sleep(0.2)
        pid = deployment.pid(victim)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
        await judged(client, await building, least)  # an agent frozen for longer than its lease has lost all the hosts


async def test_a_bus_without_its_queues_and_exchanges(deployment: Deployment):
    """Everything in RabbitMQ is deleted while it runs, again and again."""
    async with Client(deployment.url, deployment.password) as client:
        building = asyncio.create_task(builds(client, deployment, "purged"))
        for _ in range(3):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(_purge, deployment.rabbitmq)
        await judged(client, await building)


def _purge(rabbitmq: RabbitServer) -> None:
    rabbitmq.run(
        "rabbitmqctl",
        "eval",
        '[catch rabbit_amqqueue:delete(Q, false, false, <<"tests">>) || Q <- rabbit_amqqueue:list()],'
        ' [catch rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, N), false, <<"tests">>)'
        ' || N <- [<<"cumulog.events">>, <<"cumulog.reports">>, <<"cumulog.pokes">>]].',
    )


def test_the_log_is_whole_after_all_of_it(deployment: Deployment):
    done = deployment.person.types("verify")
    assert done.returncode == 0, done.stdout + done.stderr
