"""Two tenants join their networks by VPN: from the requests, over routers on two hosts, to the packets of guests."""

from __future__ import annotations

import asyncio
import subprocess
import time
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from bus import clock
from bus.execute import Wish
from handlers.network.network import NETWORKS
from schema.network.network import CreateNetwork, Segment
from schema.network.router import ROUTER
from schema.network.wiring import Address, WiredPort, tap_name
from tests.network.routed import Client, subnet
from tests.network.steered import Steered, steered
from tests.network.wiring import until

pytestmark = [pytest.mark.live, pytest.mark.slow]

KEY, ANOTHER = "a key that nobody may read", "another key that nobody may read"
SOON_SECONDS = 30.0
SILENCE_SECONDS = 75.0
"""A peer whose last word was lost is asked after 30 seconds, and four times in the 24 after that."""


class Tenant:
    """A project with a network behind a router, which has a VPN service, and a guest."""

    def __init__(self, site: Steered, token: str, number: int) -> None:
        self.site = site
        self.client = Client(site.served, token)
        self.cidr, self.ip, self.gateway = f"10.{number}.0.0/24", f"10.{number}.0.5", f"10.{number}.0.1"
        self.router, self.service, self.outside, self.connection = "", "", "", ""
        self.guest: Any = None

    async def make(self, path: str, what: str, **fields: Any) -> dict[str, Any]:
        made: dict[str, Any] = (await self.client("POST", path, {what: fields}, expect=201))[what]
        return made

    async def settle(self, public: str) -> None:
        network = (await self.make("/networks", "network"))["id"]
        inside = await self.make("/subnets", "subnet", network_id=network, ip_version=4, cidr=self.cidr)
        router = await self.make("/routers", "router", external_gateway_info={"network_id": public})
        self.router = router["id"]
        await self.client("PUT", f"/routers/{self.router}/add_router_interface", {"subnet_id": inside["id"]})
        fields = {"router_id": self.router, "subnet_id": inside["id"]}
        service = await self.make("/vpn/vpnservices", "vpnservice", **fields)
        self.service, self.outside = service["id"], service["external_v4_ip"]
        ip = {"subnet_id": inside["id"], "ip_address": self.ip}
        port = await self.make(
            "/ports", "port", network_id=network, fixed_ips=[ip], port_security_enabled=False, device_owner="somebody"
        )
        self._port = WiredPort(
            id=port["id"],
            network_id=network,
            generation=1,
            tap=tap_name(port["id"]),
            mac_address=port["mac_address"],
            addresses=(Address(ip=self.ip, subnet_id=inside["id"], prefix_length=24),),
        )

    async def plug(self, host: str) -> None:
        self.guest = await self.site.plugged(self._port, host, self.gateway)

    async def join(self, peer: Tenant, key: str = KEY) -> None:
        ike = await self.make("/vpn/ikepolicies", "ikepolicy", ike_version="v2", pfs="group14")
        ipsec = await self.make("/vpn/ipsecpolicies", "ipsecpolicy", pfs="group14")
        made = await self.make(
            "/vpn/ipsec-site-connections",
            "ipsec_site_connection",
            vpnservice_id=self.service,
            ikepolicy_id=ike["id"],
            ipsecpolicy_id=ipsec["id"],
            peer_address=peer.outside,
            peer_id=peer.outside,
            peer_cidrs=[peer.cidr],
            psk=key,
        )
        self.connection = made["id"]

    async def change(self, **fields: Any) -> None:
        await self.client("PUT", self._path, {"ipsec_site_connection": fields})

    async def leave(self) -> None:
        await self.client("DELETE", self._path, expect=204)

    async def status(self) -> str:
        return str((await self.client("GET", self._path))["ipsec_site_connection"]["status"])

    async def service_status(self) -> str:
        return str((await self.client("GET", f"/vpn/vpnservices/{self.service}"))["vpnservice"]["status"])

    async def home(self) -> str:
        return str((await self.site.cloud.documents.get(ROUTER, self.router)).state.host)

    async def becomes(self, status: str, seconds: float = SOON_SECONDS) -> None:
        async def so() -> bool:
            return await self.status() == status

        await until(so, seconds)

    async def pings(self, other: Tenant) -> bool:
        return bool(await asyncio.to_thread(self.guest.pings, other.ip, seconds=1))

    @property
    def _path(self) -> str:
        return f"/vpn/ipsec-site-connections/{self.connection}"


@pytest.fixture(params=["linuxbridge", "ovs"])
async def site(request, settings, fresh_database):
    async with steered(settings, fresh_database, "h1", "h2", driver=request.param) as it:
        yield it


@pytest.fixture
async def tenants(site: Steered) -> list[Tenant]:
    """Each one's router is on a host of its own, and its guest on the other."""
    public = clock.uuid4()
    segment = Segment(id="s", network_type="flat", physical_network="external")
    command = CreateNetwork(name="public", project_id="operators", segments=(segment,), external_for=("*",))
    await site.cloud.executor.execute(Wish(NETWORKS, public, command))
    await subnet(site.cloud, public, "172.24.4.0/24", "172.24.4.1", "172.24.4.10", "172.24.4.200", "operators")
    made = []
    for number, project in enumerate(("a" * 32, "b" * 32), 1):
        it = Tenant(site, await site.served.token("member", project=project), number)
        await it.settle(public)
        await until(lambda tenant=it: placed(tenant), SOON_SECONDS)
        made.append(it)
    homes = [await it.home() for it in made]
    assert sorted(homes) == ["h1", "h2"]
    for it, host in zip(made, reversed(homes), strict=True):
        await it.plug(host)
    return made


async def placed(tenant: Tenant) -> bool:
    return await tenant.home() != ""


def hears(one: SimpleNamespace, port: int) -> subprocess.Popen[str]:
    """Somebody who answers the first who calls."""
    return inside(one, "busybox", "nc", "-l", "-p", str(port), "-w", "10")


def inside(one: SimpleNamespace, *command: str) -> subprocess.Popen[str]:
    enter = ["nsenter", f"--net=/run/netns/{one.space.name}", "--", *command]
    return subprocess.Popen(enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tells(one: Tenant, other: Tenant, port: int, text: str) -> bool:
    """Over TCP. Nobody is refused for having called before the other one listens."""
    with hears(other.guest, port) as server:
        try:
            end = time.monotonic() + 15
            while time.monotonic() < end:
                with inside(one.guest, "busybox", "nc", "-w", "5", other.ip, str(port)) as client:
                    client.communicate(text, timeout=15)
                if client.returncode == 0:
                    break
            return server.communicate(timeout=15)[0] == text
        finally:
            server.kill()


async def test_tenants_reach_each_other_through_the_tunnel_as_long_as_they_want(site: Steered, tenants: list[Tenant]):
    one, other = tenants
    with structlog.testing.capture_logs() as logs:
        assert not await one.pings(other)
        await one.join(other)
        await other.join(one)
        for it in tenants:
            await it.becomes("ACTIVE")
            assert await it.service_status() == "ACTIVE"
        assert await one.pings(other)
        assert await other.pings(one)
        assert await asyncio.to_thread(tells, one, other, 5001, "through the tunnel")
        await one.change(admin_state_up=False)
        for it in tenants:
            await it.becomes("DOWN", SILENCE_SECONDS)  # the last word to the other side may be lost
            assert await it.service_status() == "DOWN"
        assert not await one.pings(other)
        await one.change(admin_state_up=True)
        for it in tenants:
            await it.becomes("ACTIVE")
        assert await one.pings(other)
        await one.leave()
        await other.becomes("DOWN", SILENCE_SECONDS)
        assert not await other.pings(one)
    await keeps_silent(site, logs)


async def test_keys_that_differ_join_nobody_until_they_are_the_same(site: Steered, tenants: list[Tenant]):
    one, other = tenants
    with structlog.testing.capture_logs() as logs:
        await one.join(other)
        await other.join(one, ANOTHER)
        for it in tenants:
            await it.becomes("DOWN")
        assert not await one.pings(other)
        assert await one.status() == await other.status() == "DOWN"
        await other.change(psk=KEY)
        for it in tenants:
            await it.becomes("ACTIVE")
        assert await one.pings(other)
        body = {"vpnservice": {"admin_state_up": False}}
        await one.client("PUT", f"/vpn/vpnservices/{one.service}", body)
        await one.becomes("DOWN")
        await other.becomes("DOWN", SILENCE_SECONDS)
        assert not await one.pings(other)
    await keeps_silent(site, logs)


async def keeps_silent(site: Steered, logs: list[Any]) -> None:
    """No key is said anywhere, and what agents keep is for nobody else."""
    said = str(logs) + await everything_in_tables(site)
    for key in (KEY, ANOTHER):
        assert key not in said
        assert key.encode().hex() not in said
    files = [it for it in (site.home / "network").rglob("*") if it.is_file()]
    holding = [it for it in files if any(key.encode() in it.read_bytes() for key in (KEY, ANOTHER))]
    assert {it.suffix for it in holding} <= {".json"}
    assert all(it.stat().st_mode & 0o077 == 0 for it in holding)


async def everything_in_tables(site: Steered) -> str:
    async with site.cloud.pool.acquire() as connection:
        names = await connection.fetch(
            "SELECT format('%I', relname) AS name FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND relnamespace = 'public'::regnamespace"
        )
        tables = [await connection.fetch(f"SELECT it::text AS row FROM {it['name']} it") for it in names]
    assert tables
    return "".join(row["row"] for table in tables for row in table)
