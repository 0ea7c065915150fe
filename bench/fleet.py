"""What a fleet costs: python bench/fleet.py [SERVERS] [HOSTS] [NETWORKS] [TOTAL] [rabbitmq]

A whole cloud as `up` starts it, with simulated hosts and a PostgreSQL of its own with fsync. SERVERS servers with a
port each are ordered at concurrency 16 over HTTP, in NETWORKS networks (0: without ports), until all are ACTIVE; more
are made, up to TOTAL, by orders of many; then lists, why servers are where they are, every action, the evacuation of a
whole host, and deletes. In the end nothing is under way, and neither `drift` nor `verify` finds anything. The load's
own CPU is not counted; that of the simulated hosts is. Leases are long, unless CUMULOG_LEASE_SECONDS and
CUMULOG_NETWORK_LEASE_SECONDS say otherwise: what is not measured here is how soon a process notices a lost host that
plays a thousand of them beside everything else. `rabbitmq`: each role is a process of its own, the agents' too.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from api.cli import client, supervisor
from bench.servers import CONCURRENCY, PAGE_BYTES, Caller, at, at_once, spent
from bus.config import Settings, load

ACTED_ON = 1000
"""Servers that each action is done to, and that are deleted."""
AT_ONCE = 100
"""Servers in one order of many."""
PAGE = 1000
LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 600
RETURN_SECONDS = 60
"""A lease: until then the host that was evacuated has been told that it holds what is not its own."""


class Cloud:
    """The cloud as its user and its operator have it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.settings: Settings = load(environment)
        self.client = client.login(self.settings)
        self.token = self.client._token  # noqa: SLF001
        self.start()

    @property
    def pids(self) -> dict[str, int]:
        return {part.name: part.pid for part in supervisor.parts(self.settings) if part.pid}

    def start(self) -> None:
        """Measure from here."""
        self._began = time.perf_counter(), self._spent()

    def say(self, what: str, times: int, seconds: list[float] | None = None) -> None:
        """Since the start: how many a second, and the CPU of each; also of each role, where there are several."""
        rate = times / (time.perf_counter() - self._began[0])
        each_ms = {name: (now - self._began[1][name]) / times * 1000 for name, now in self._spent().items()}
        its = each_ms.pop("postgres")
        mine = sum(each_ms.values())
        each = f"p50 {at(seconds, 0.5):7.1f}  p99 {at(seconds, 0.99):7.1f} ms" if seconds else " " * 27
        load = os.getloadavg()[0]
        print(f"{what:44} {rate:7.1f} /s  {each}   CPU {mine:6.2f} + {its:6.2f} ms each   load {load:.0f}", flush=True)
        if len(each_ms) > 1:
            print(f"{'':44} " + ", ".join(f"{name} {ms:.2f}" for name, ms in each_ms.items() if ms), flush=True)

    def memory(self, what: str) -> None:
        sizes = {name: sum(map(resident_mb, tree(pid))) for name, pid in self.pids.items()}
        sizes["postgres"] = private_mb(self.pids["postgres"])
        print(f"memory {what}: " + ", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items()), flush=True)

    def types(self, *arguments: str) -> str:
        """Run `cumulog ARGUMENTS…`."""
        return cumulog(self._environment, *arguments)

    def _spent(self) -> dict[str, float]:
        """CPU seconds of each part so far."""
        return {name: spent(pid) for name, pid in self.pids.items()}


class Member(Caller):
    """One connection that is kept; it waits for what a server is on its way to."""

    prefix = ""

    async def json(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        text = await self.call(method, path, json.dumps(body).encode() if body is not None else b"", status)
        return json.loads(text) if text else None

    async def act(self, id: str, action: dict[str, Any], status: int = 202) -> None:
        await self.json("POST", f"/compute/v2.1/servers/{id}/action", action, status)

    async def settled(self, wanted: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Until the census is as wanted; raises with it when it does not come to that."""
        until = time.perf_counter() + PATIENCE_SECONDS
        while not wanted(there := await self.census()):
            if time.perf_counter() > until:
                raise RuntimeError(f"still {there}")
            await asyncio.sleep(LOOK_SECONDS)
        return there

    async def census(self) -> dict[str, int]:
        """How many are of which status, of those that matter while something is under way."""
        found = {}
        for word in ("BUILD", "ERROR", "REBOOT", "HARD_REBOOT"):
            path = f"/compute/v2.1/servers?all_tenants=1&status={word}&limit=1"
            found[word] = len((await self.json("GET", path))["servers"])
        for task in (
            "powering-off",
            "powering-on",
            "rebooting",
            "pausing",
            "unpausing",
            "suspending",
            "resuming",
            "rescuing",
            "unrescuing",
            "deleting",
            "rebuilding",
            "rebuild_block_device_mapping",
            "rebuild_spawning",
        ):
            path = f"/compute/v2.1/servers?all_tenants=1&task_state={task}&limit=1"
            found[task] = len((await self.json("GET", path))["servers"])
        return found


def at_rest(census: dict[str, int]) -> bool:
    if census["ERROR"]:
        raise RuntimeError("a server ended in ERROR")
    return not any(census.values())


async def measure(cloud: Cloud, servers: int, hosts: int, networks: int, total: int) -> None:
    port, token = cloud.settings.listen_port, cloud.token
    async with Member(port, token) as member:
        image, flavor, nets = await prepared(member, cloud, networks)
        ids: list[str] = []

        def order(name: str, **more: Any) -> dict[str, Any]:
            cards: Any = [{"uuid": nets[len(ids) % len(nets)]}] if nets else "none"
            asked = {"name": name, "flavorRef": flavor, "imageRef": image, "networks": cards}
            return {"server": asked | more}

        async def one(caller: Member) -> None:
            made = await caller.json("POST", "/compute/v2.1/servers", order(f"fleet-{len(ids)}"), 202)
            ids.append(made["server"]["id"])

        await one(member)
        await member.settled(at_rest)
        cloud.memory(f"with {hosts} hosts")
        cloud.start()
        times = await at_once(port, token, one, servers, Member)
        cloud.say(f"POST /servers at {CONCURRENCY}", servers, times)
        await member.settled(at_rest)
        cloud.say(f"{servers} servers with a port to ACTIVE", servers)
        cloud.memory(f"with {servers} servers")
        await told_why(cloud, member, ids)
        cloud.start()
        more = max(0, total - len(ids))
        for start in range(0, more, AT_ONCE):
            count = min(AT_ONCE, more - start)
            ids += [""] * count
            await member.json("POST", "/compute/v2.1/servers", order("many", min_count=count, max_count=count), 202)
        if more:
            cloud.say(f"{more} more ordered, {AT_ONCE} at a time", more)
            await member.settled(at_rest)
            cloud.say(f"{more} more to ACTIVE", more)
            cloud.memory(f"with {total} servers")
        ids = [id for id in ids if id]
        await lists(cloud, member, total)
        await actions(cloud, member, ids[:ACTED_ON], image)
        await evacuation(cloud, member)
        await deletes(cloud, member, ids[:ACTED_ON])
        cloud.memory("in the end")


async def prepared(member: Member, cloud: Cloud, networks: int) -> tuple[str, str, list[str]]:
    """An image, a flavor and networks, with no quota in the way."""
    image = (await member.json("GET", "/image/v2/images"))["images"][0]["id"]
    flavor = {"name": "fleet", "vcpus": 1, "ram": 512, "disk": 1}
    flavor_id = (await member.json("POST", "/compute/v2.1/flavors", {"flavor": flavor}))["flavor"]["id"]
    project = (await member.json("GET", "/identity/v3/auth/projects"))["projects"][0]["id"]
    limits = {"instances": -1, "cores": -1, "ram": -1}
    await member.json("PUT", f"/compute/v2.1/os-quota-sets/{project}", {"quota_set": limits})
    limits = {"port": -1, "network": -1, "subnet": -1}
    await member.json("PUT", f"/networking/v2.0/quotas/{project}", {"quota": limits})
    nets = []
    for nth in range(networks):
        made = await member.json("POST", "/networking/v2.0/networks", {"network": {"name": f"fleet-{nth}"}}, 201)
        nets.append(made["network"]["id"])
        subnet = {"network_id": nets[-1], "ip_version": 4, "cidr": f"10.{nth}.0.0/16"}
        await member.json("POST", "/networking/v2.0/subnets", {"subnet": subnet}, 201)
    return image, flavor_id, nets


async def told_why(cloud: Cloud, member: Member, ids: list[str]) -> None:
    cloud.start()
    times = []
    for id in ids[:200]:
        started = time.perf_counter()
        await member.json("GET", f"/log/v1/why/server/{id}")
        times.append(time.perf_counter() - started)
    cloud.say("GET /log/v1/why/server/{id}", len(times), times)


async def lists(cloud: Cloud, member: Member, total: int) -> None:
    for what, query in (("as its project", ""), ("as admin, of all projects", "all_tenants=1&")):
        cloud.start()
        times = []
        for _ in range(30):
            started = time.perf_counter()
            page = await member.call("GET", f"/compute/v2.1/servers/detail?{query}limit={PAGE}")
            times.append(time.perf_counter() - started)
        cloud.say(f"GET /servers/detail of {PAGE}, {what}", 30, times)
        print(f"{'':44} {len(page) // 1000} kB, the first {times[0] * 1000:.0f} ms", flush=True)
    cloud.start()
    times, seen, path = [], 0, f"/compute/v2.1/servers/detail?all_tenants=1&limit={PAGE}"
    while path:
        started = time.perf_counter()
        page = await member.json("GET", path)
        times.append(time.perf_counter() - started)
        seen += len(page["servers"])
        following = [link["href"] for link in page.get("servers_links", [])]
        path = "/compute/" + following[0].partition("/compute/")[2] if following else ""
    cloud.say(f"{seen} servers, page by page", len(times), times)
    if seen < total:
        raise RuntimeError(f"{seen} of {total} servers were listed")


async def actions(cloud: Cloud, member: Member, ids: list[str], image: str) -> None:
    every: dict[str, dict[str, Any]] = {
        "os-stop": {"os-stop": None},
        "os-start": {"os-start": None},
        "reboot, soft": {"reboot": {"type": "SOFT"}},
        "reboot, hard": {"reboot": {"type": "HARD"}},
        "pause": {"pause": None},
        "unpause": {"unpause": None},
        "suspend": {"suspend": None},
        "resume": {"resume": None},
        "rescue": {"rescue": None},
        "unrescue": {"unrescue": None},
        "rebuild": {"rebuild": {"imageRef": image}},
    }
    for what, action in every.items():
        left = iter(ids)
        status = 200 if what == "rescue" else 202

        async def do(caller: Member, action: Any = action, left: Iterator[str] = left, status: int = status) -> None:
            await caller.act(next(left), action, status)

        cloud.start()
        times = await at_once(cloud.settings.listen_port, cloud.token, do, len(ids), Member)
        await member.settled(at_rest)
        cloud.say(f"{what}, until done", len(ids), times)


async def evacuation(cloud: Cloud, member: Member) -> None:
    """The fullest of some hosts is taken for dead by its operator: all its servers are built elsewhere."""
    service = (await member.json("GET", "/compute/v2.1/os-services?binary=nova-compute"))["services"][0]
    host = service["host"]
    path = f"/compute/v2.1/servers?all_tenants=1&host={host}"
    there = [it["id"] for it in (await member.json("GET", path))["servers"]]
    await member.json("PUT", f"/compute/v2.1/os-services/{service['id']}", {"forced_down": True})
    cloud.start()
    for id in there:
        await member.act(id, {"evacuate": {}}, 200)
    await member.settled(at_rest)
    cloud.say(f"a host evacuated of {len(there)} servers", max(1, len(there)))
    if left := (await member.json("GET", path))["servers"]:
        raise RuntimeError(f"{len(left)} servers are still on {host}")
    await member.json("PUT", f"/compute/v2.1/os-services/{service['id']}", {"forced_down": False})


async def deletes(cloud: Cloud, member: Member, ids: list[str]) -> None:
    left = iter(ids)

    async def delete(caller: Member) -> None:
        await caller.call("DELETE", f"/compute/v2.1/servers/{next(left)}", status=204)

    cloud.start()
    times = await at_once(cloud.settings.listen_port, cloud.token, delete, len(ids), Member)
    cloud.say(f"DELETE /servers/{{id}} at {CONCURRENCY}", len(ids), times)
    await member.settled(at_rest)
    cloud.say(f"{len(ids)} servers deleted, gone from their hosts", len(ids))


@contextmanager
def fleet(hosts: int, bus: str) -> Iterator[Cloud]:
    """A cloud of so many simulated hosts, taken down in the end."""
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    folder.chmod(0o711)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CUMULOG_HOME": str(folder / "home"),
        "OS_CLIENT_CONFIG_FILE": str(folder / "clouds.yaml"),
        "CUMULOG_LOG_LEVEL": "warning",
        "CUMULOG_LEASE_SECONDS": os.environ.get("CUMULOG_LEASE_SECONDS", "60"),
        "CUMULOG_NETWORK_LEASE_SECONDS": os.environ.get("CUMULOG_NETWORK_LEASE_SECONDS", "60"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    asked = ("--listen", listen, "--hypervisor", "simulated", "--hosts", str(hosts), "--bus", bus)
    try:
        cumulog(environment, "up", *asked)
        environment["CUMULOG_LISTEN"] = listen
        yield Cloud(environment | {"CUMULOG_HYPERVISOR": "simulated", "CUMULOG_BUS": bus})
    finally:
        if kept := os.environ.get("KEEP_LOGS"):
            shutil.copytree(folder / "home" / "log", kept, dirs_exist_ok=True)
        cumulog(environment, "down")
        shutil.rmtree(folder)


def cumulog(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "api.cli", *arguments]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cumulog {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def tree(pid: int) -> list[int]:
    """A process and all that came of it."""
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        try:
            queue += map(int, Path(f"/proc/{found[-1]}/task/{found[-1]}/children").read_text().split())
        except FileNotFoundError:
            found.pop()
    return found


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def private_mb(pid: int) -> float:
    """Of a PostgreSQL: what its processes have for themselves, and its shared buffers once."""
    sizes = [Path(f"/proc/{it}/statm").read_text().split() for it in tree(pid)]
    private = sum(int(size[1]) - int(size[2]) for size in sizes)
    return (private + max(int(size[2]) for size in sizes)) * PAGE_BYTES / 1e6


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whoever ends this ends its cloud
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    servers, hosts, networks, total = (*numbers, *(5000, 1000, 1, 20_000)[len(numbers) :])
    print(f"load before: {os.getloadavg()[0]:.1f}; {servers} servers, {hosts} hosts, {networks} networks", flush=True)
    with fleet(hosts, "rabbitmq" if "rabbitmq" in sys.argv else "memory") as cloud:
        asyncio.run(measure(cloud, servers, hosts, networks, total))
        until = time.perf_counter() + RETURN_SECONDS
        while "say the same" not in (seen := said(cloud, "drift")) and time.perf_counter() < until:
            time.sleep(LOOK_SECONDS)
        print(seen, said(cloud, "verify"), sep="\n", flush=True)


def said(cloud: Cloud, verb: str) -> str:
    """What an operator is told, and how long that took."""
    started = time.perf_counter()
    return f"{verb}: {cloud.types(verb).strip()} ({time.perf_counter() - started:.1f} s)"


if __name__ == "__main__":
    main()
