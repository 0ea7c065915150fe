"""Two tenants' sites on two hosts reach each other through IPsec; what is wrong is told; what goes leaves nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from agents.network import namespace
from agents.network.vpn import Tunnels
from schema.network.wiring import IkePolicyWords, IpsecPolicyWords, PreSharedKey, SiteConnection, WiredRouter
from tests.network.dhcp_place import Place, network, subnet, until
from tests.network.router_place import PUBLIC, Host, Someone, foot, in_thread, join, router
from tests.network.test_shaping import iperf

pytestmark = pytest.mark.live

EAST = network("east", subnet("se", "10.1.0.0/24", gateway_ip="10.1.0.1"))
WEST = network("west", subnet("sw", "10.2.0.0/24", gateway_ip="10.2.0.1"))
OTHER = network("other", subnet("so", "10.3.0.0/24", gateway_ip="10.3.0.1"))


def connection(local: str, peer: str, near: str, far: str, **more: Any) -> SiteConnection:
    words = {
        "id": "c0ffee00-0000-4000-8000-000000000000",
        "local_ip": local,
        "local_id": local,
        "peer_address": peer,
        "peer_id": peer,
        "local_cidrs": (near,),
        "peer_cidrs": (far,),
        "psk": PreSharedKey(key="correct horse battery staple"),
    }
    return SiteConnection(**{**words, **more})


def of_east(*connections: SiteConnection, **more: Any) -> WiredRouter:
    return router(foot(EAST, 1), gateway=foot(PUBLIC, 10), id="east", connections=connections, **more)


def of_west(*connections: SiteConnection) -> WiredRouter:
    return router(foot(WEST, 1), gateway=foot(PUBLIC, 20, id="fpublic-w"), id="west", connections=connections)


def both(**more: Any) -> tuple[SiteConnection, SiteConnection]:
    return (
        connection("203.0.113.10", "203.0.113.20", "10.1.0.0/24", "10.2.0.0/24", **more),
        connection("203.0.113.20", "203.0.113.10", "10.2.0.0/24", "10.1.0.0/24", **more),
    )


class Pair:
    """Two hosts, each with a router, and a guest behind each."""

    def __init__(self, places: list[Place], folder: Path) -> None:
        self.east, self.west = Host(places[0], EAST, PUBLIC), Host(places[1], WEST, PUBLIC)
        join(places[0], places[1], "public")
        self.folders = {it: folder / f"{number}" for number, it in enumerate((self.east, self.west))}
        for it in (self.east, self.west):
            it.routers = it.agent(tunnels=Tunnels(self.folders[it]))
        self.here, self.there = self.guest(self.east, EAST, "10.1.0.1"), self.guest(self.west, WEST, "10.2.0.1")
        self.outside = self.east.guest(PUBLIC, 1)

    def guest(self, host: Host, of: Any, gateway: str) -> Someone:
        made = host.guest(of, 5)
        made.leads_by(gateway)
        return made

    async def apply(self, east: WiredRouter | None, west: WiredRouter | None) -> None:
        assert await self.east.apply(EAST, PUBLIC, *([east] if east else [])) == {}
        assert await self.west.apply(WEST, PUBLIC, *([west] if west else [])) == {}

    async def state(self, host: Host) -> set[str]:
        return {status for seen in (await host.routers.routers()).values() for status in seen.connections.values()}

    async def become(self, *states: str, seconds: float = 15.0) -> None:
        """East's and west's."""
        wanted = tuple({it} for it in states)
        await becomes(self._states, wanted, seconds)

    async def _states(self) -> tuple[set[str], set[str]]:
        return await self.state(self.east), await self.state(self.west)

    async def close(self) -> None:
        for it in (self.east, self.west):
            await it.apply(EAST if it is self.east else WEST)
            await it.routers.close()
        for it in (self.here, self.there, self.outside):
            it.close()


@pytest.fixture
def folder(short_folder: Path) -> Iterator[Path]:
    """A short path of this test's own: others have daemons and files beside it."""
    made = Path(tempfile.mkdtemp(dir=short_folder))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[list[Place]]:
    made = [Place(), Place()]
    yield made
    for it in made:
        it.remove(tmp_path)


@pytest.fixture
async def pair(places: list[Place], folder: Path) -> AsyncIterator[Pair]:
    made = Pair(places, folder)
    yield made
    await made.close()


async def becomes(asked: Callable[[], Awaitable[Any]], wanted: Any, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while (found := await asked()) != wanted:
        assert time.monotonic() < end, f"it stayed {found}"
        await asyncio.sleep(0.05)


def daemons_of(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if f"{folder}/".encode() in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
    return found


async def test_two_sites_reach_each_other_and_the_outside_as_before(pair, folder):
    near, far = both()
    await pair.apply(of_east(near), of_west(far))
    await pair.become("ACTIVE", "ACTIVE")
    assert await in_thread(pair.here.pings, "10.2.0.5")
    assert await in_thread(pair.there.sees, pair.here, "10.2.0.5", 80) == "10.1.0.5"
    assert await in_thread(pair.here.sees, pair.there, "10.1.0.5", 80) == "10.2.0.5"
    assert await in_thread(pair.outside.sees, pair.here, "203.0.113.1", 80) == "203.0.113.10"
    assert await iperf(pair.here, SimpleNamespace(space=pair.there.space, ip="10.2.0.5"), seconds=1) > 5
    held = b"".join(it.read_bytes() for it in folder.rglob("*") if it.is_file())
    assert b"correct horse" not in held


async def test_a_wrong_key_keeps_it_down_and_nothing_goes_out_in_the_clear(pair):
    near, far = both()
    wrong = replace(far, psk=PreSharedKey(key="wrong"))
    await pair.apply(of_east(near), of_west(wrong))
    pair.outside.give("10.2.0.5/32")
    pair.outside.leads_by("203.0.113.10", to="10.1.0.0/24")
    await pair.become("DOWN", "DOWN")
    assert not await in_thread(pair.here.pings, "10.2.0.5", seconds=1)
    assert await pair.state(pair.east) == {"DOWN"}
    await pair.apply(of_east(near), of_west(far))
    await pair.become("ACTIVE", "ACTIVE")
    assert await in_thread(pair.here.pings, "10.2.0.5")


async def test_who_answers_only_is_called_until_both_know_the_same_key(pair):
    near, far = both()
    listening = replace(far, initiator="response-only")
    await pair.apply(of_east(near), of_west(replace(listening, psk=PreSharedKey(key="wrong"))))
    await becomes(lambda: rejected(pair), True)
    await pair.apply(of_east(near), of_west(listening))
    await pair.apply(of_east(near), of_west(listening))
    await pair.become("ACTIVE", "ACTIVE")


async def rejected(pair: Pair) -> bool:
    """Somebody called, and was sent away for good."""
    log = pair.folders[pair.east].glob("*/log")
    return any("AUTHENTICATION_FAILED" in it.read_text() for it in log)


async def test_a_deleted_connection_leaves_nothing(pair, folder):
    near, far = both()
    await pair.apply(of_east(near), of_west(far))
    await pair.become("ACTIVE", "ACTIVE")
    await pair.apply(of_east(replace(near, admin_up=False)), of_west(far))
    await pair.become("DOWN", "DOWN")
    assert not await in_thread(pair.here.pings, "10.2.0.5", seconds=1)
    await pair.apply(of_east(), None)
    await until(lambda: not daemons_of(folder))
    assert [it for it in folder.rglob("*") if it.is_file()] == []
    tunnels = await in_thread(in_router, pair.east, "east", "ip", "link", "show", "type", "tun")
    assert "ipsec0" not in tunnels
    assert not namespace.exists(pair.west.routers.namespace_of("west"))


def in_router(host: Host, id: str, *command: str) -> str:
    path = f"--net=/run/netns/{host.routers.namespace_of(id)}"
    return subprocess.run(["nsenter", path, "--", *command], capture_output=True, text=True, check=False).stdout


async def test_it_is_put_right_when_somebody_interferes(pair, folder):
    near, far = both(dpd_interval_seconds=1, dpd_timeout_seconds=4, dpd_action="restart")
    changes: list[int] = []
    await pair.east.routers.start(lambda: changes.append(1))
    await pair.apply(of_east(near), of_west(far))
    await pair.become("ACTIVE", "ACTIVE")
    heard = len(changes)
    (pid,) = daemons_of(pair.folders[pair.east])
    os.kill(pid, signal.SIGKILL)
    await until(lambda: len(changes) > heard)
    await pair.apply(of_east(near), of_west(far))
    await pair.become("ACTIVE", "ACTIVE")
    assert await in_thread(pair.here.pings, "10.2.0.5")
    await in_thread(in_router, pair.east, "east", "ip", "link", "del", "ipsec0")
    await pair.apply(of_east(near), of_west(far))
    await pair.become("ACTIVE", "ACTIVE")
    assert await in_thread(pair.here.pings, "10.2.0.5")


async def test_the_next_agent_leaves_a_running_tunnel_alone(pair):
    near, far = both()
    await pair.apply(of_east(near), of_west(far))
    await pair.become("ACTIVE", "ACTIVE")
    before = daemons_of(pair.folders[pair.east])
    await pair.east.routers.close()
    pair.east.routers = pair.east.agent(tunnels=Tunnels(pair.folders[pair.east]))
    await pair.apply(of_east(near), of_west(far))
    assert await pair.state(pair.east) == {"ACTIVE"}
    assert daemons_of(pair.folders[pair.east]) == before
    assert await in_thread(pair.here.pings, "10.2.0.5")


@pytest.mark.parametrize(
    "words",
    [
        {"ike": IkePolicyWords(version="v1", pfs="group5", auth_algorithm="sha1", encryption_algorithm="aes-128")},
        {"ike": IkePolicyWords(version="v1", phase1_mode="aggressive")},
        {
            "ike": IkePolicyWords(encryption_algorithm="aes-256-gcm-16", auth_algorithm="sha512", pfs="group20"),
            "ipsec": IpsecPolicyWords(encryption_algorithm="aes-128-gcm-16", pfs="group31"),
        },
        {
            "ike": IkePolicyWords(encryption_algorithm="aes-256-ctr", auth_algorithm="aes-xcbc", pfs="group2"),
            "ipsec": IpsecPolicyWords(encryption_algorithm="3des", auth_algorithm="sha384", pfs="group28"),
        },
        {"local_id": "", "peer_id": ""},
    ],
    ids=["v1", "aggressive", "gcm", "ctr and brainpool", "names"],
)
async def test_policies_are_carried_out(pair, words):
    near, far = both(**words)
    if "local_id" in words:
        near = replace(near, local_id="east@example.org", peer_id="west.example.org")
        far = replace(far, local_id="west.example.org", peer_id="east@example.org", initiator="response-only")
    await pair.apply(of_east(near), of_west(far))
    await pair.become("ACTIVE", "ACTIVE")
    assert await in_thread(pair.here.pings, "10.2.0.5")


async def test_ipv6_sites_are_joined_as_well(places, folder):
    east = network("east", subnet("se", "2001:db8:1::/64", gateway_ip="2001:db8:1::1"))
    west = network("west", subnet("sw", "2001:db8:2::/64", gateway_ip="2001:db8:2::1"))
    public = network("public", subnet("sp", "2001:db8:ff::/64", gateway_ip="2001:db8:ff::1", dhcp=False))
    made, guests = [], []
    for number, (place, net) in enumerate(zip(places, (east, west), strict=True), 1):
        host = Host(place, net, public)
        host.routers = host.agent(tunnels=Tunnels(folder / net.id))
        guests.append(host.guest(net, 5))
        guests[-1].leads_by(f"2001:db8:{number}::1")
        made.append(host)
    join(*places, "public")
    for number, (host, net) in enumerate(zip(made, (east, west), strict=True), 1):
        ends = [f"2001:db8:ff::{number}0", f"2001:db8:ff::{3 - number}0"]
        it = connection(*ends, f"2001:db8:{number}::/64", f"2001:db8:{3 - number}::/64")
        of = router(foot(net, 1), gateway=foot(public, number * 16), connections=(it,), gateway_ips=())
        assert await host.apply(net, public, of) == {}
    try:
        await until(lambda: guests[0].pings("2001:db8:2::5"))
        assert await in_thread(guests[1].sees, guests[0], "2001:db8:2::5", 80) == "2001:db8:1::5"
    finally:
        for host, guest in zip(made, guests, strict=True):
            await host.apply(public)
            await host.routers.close()
            guest.close()


async def test_what_cannot_be_done_is_an_error_and_spoils_nothing_else(pair):
    near, far = both()
    strange = replace(near, id="bad", ipsec=IpsecPolicyWords(transform_protocol="ah"), peer_cidrs=("10.9.0.0/24",))
    await pair.apply(of_east(near, strange), of_west(far))

    async def said() -> dict[str, str]:
        return (await pair.east.routers.routers())["east"].connections

    await becomes(said, {near.id: "ACTIVE", "bad": "ERROR"})
