"""SIGTERM to each role, and `cumulog down`, in the middle of work: what was answered is so, and nothing is lost."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Person
from tests.faults.client import Client

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.xdist_group("clouds")]

GRACE_SECONDS = 30.0
"""How long the supervisor, and systemd, let a role finish what it began."""
SETTLE_SECONDS = 60.0
AT_ONCE = 4


class Roles:
    """The processes of a cloud, started by hand, so that somebody sees how they end."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str) -> None:
        command = [sys.executable, "-P", "-m", "api.cli", "serve", role]
        log = Path(self._environment["CUMULOG_HOME"]) / f"{role}.out"
        with log.open("ab") as output:
            self._running[role] = subprocess.Popen(
                command, env=self._environment, cwd="/", stdout=output, stderr=output
            )

    def end(self, role: str) -> tuple[int, float]:
        """By SIGTERM: its exit code, and after how many seconds."""
        process, began = self._running.pop(role), time.monotonic()
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=2 * GRACE_SECONDS), time.monotonic() - began

    def kill(self) -> None:
        """Whatever still runs."""
        for process in self._running.values():
            process.kill()
            process.wait()


class Load:
    """Servers made and deleted all the while; what of it was answered."""

    def __init__(self, client: Client, image: str) -> None:
        self._client = client
        self._image = image
        self._stopping = False
        self.made: set[str] = set()
        self.deleted: set[str] = set()

    async def run(self) -> None:
        await asyncio.gather(*(self._work(n) for n in range(AT_ONCE)))

    async def _work(self, worker: int) -> None:
        turn = 0
        while not self._stopping:
            turn += 1
            id = await self._client.create(self._image, f"load-{worker}-{turn}")
            self.made.add(id)
            if turn % 2:
                await self._client.call("DELETE", f"/compute/v2.1/servers/{id}", good={204, 404}, key=f"delete-{id}")
                self.deleted.add(id)
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        self._stopping = True

    async def judge(self) -> None:
        """Whatever was answered is so; each request was done once; nothing is held for what is gone."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while self.deleted & (await self._client.servers()).keys():  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        servers = await self._client.settled(SETTLE_SECONDS)
        assert set(servers) == self.made - self.deleted
        assert {it["status"] for it in servers.values()} <= {"ACTIVE"}, servers
        assert (await self._client.used()).get("VCPU", 0) == len(servers)
        assert len(self.made) >= 2 * AT_ONCE


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="cumulog-"))
    found.chmod(0o711)
    yield found
    shutil.rmtree(found, ignore_errors=True)


async def under_load(roles: Roles, victims: Sequence[str], url: str, home: Path) -> None:
    """End and begin each of them, in turn, while servers are made and deleted."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while not (home / "admin-password").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    async with Client(url, (home / "admin-password").read_text().strip()) as client:
        load = Load(client, await client.prepare())
        working = asyncio.create_task(load.run())
        for victim in victims:
            before = len(load.made)
            async with asyncio.timeout(SETTLE_SECONDS):
                while len(load.made) < before + AT_ONCE:  # noqa: ASYNC110  it is in the middle of work
                    await asyncio.sleep(0.05)
            code, seconds = await asyncio.to_thread(roles.end, victim)
            assert code == 0, f"{victim} ended with {code}"
            assert seconds < GRACE_SECONDS, f"{victim} took {seconds:.0f} s"
            roles.start(victim)
        load.stop()
        await working
        await load.judge()


def _environment(folder: Path, port: int, **fields: str) -> dict[str, str]:
    home = folder / "home"
    home.mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "CUMULOG_HOME": str(home),
        "CUMULOG_LISTEN": f"127.0.0.1:{port}",
        "CUMULOG_HYPERVISOR": "simulated",
        "CUMULOG_HOSTS": "3",
        **fields,
    }


async def test_each_role_ends_in_good_order(folder, free_port, fresh_database, rabbitmq):
    port = free_port()
    environment = _environment(folder, port, CUMULOG_POSTGRES=fresh_database, CUMULOG_BUS=rabbitmq)
    roles = Roles(environment)
    every = ("api", "handlers", "projections", "relay", "agent")
    try:
        for role in every:
            roles.start(role)
        await under_load(roles, every, f"http://127.0.0.1:{port}", folder / "home")
    finally:
        roles.kill()


async def test_all_of_it_in_one_process_ends_in_good_order(folder, free_port, fresh_database):
    port = free_port()
    roles = Roles(_environment(folder, port, CUMULOG_POSTGRES=fresh_database, CUMULOG_BUS="memory"))
    try:
        roles.start("all")
        await under_load(roles, ("all",), f"http://127.0.0.1:{port}", folder / "home")
    finally:
        roles.kill()


async def test_down_in_the_middle_of_work_loses_nothing(folder, free_port):
    person = Person(folder / "home", free_port())
    await asyncio.to_thread(person.up)
    try:
        password = (person.home / "admin-password").read_text().strip()
        async with Client(f"http://{person.listen}", password) as client:
            load = Load(client, await client.prepare())
            working = asyncio.create_task(load.run())
            async with asyncio.timeout(SETTLE_SECONDS):
                while len(load.made) < AT_ONCE:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            downed = await asyncio.to_thread(person.types, "down")
            assert downed.returncode == 0, downed.stdout + downed.stderr
            await asyncio.to_thread(person.up)
            load.stop()
            await working
            await load.judge()
    finally:
        await asyncio.to_thread(person.types, "down")
