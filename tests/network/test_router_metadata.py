"""Guests ask who they are through their gateway, from whichever host they are on, and learn of nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from agents.network.metadata import Metadata
from bus.cloud import Cloud, open_cloud
from bus.execute import Wish
from handlers.network.instance import instance_data
from handlers.network.router import ROUTERS
from schema.compute.domain import Seed
from schema.network.router import AddRouterInterface, CreateRouter, RouterInterface, ScheduleRouter
from schema.network.wiring import HostRoute, Peer
from tests.network import routed
from tests.network.dhcp_place import Place, network, subnet
from tests.network.router_place import PUBLIC, Host, foot, in_thread, join, router

NET = replace(
    network(
        "n1",
        subnet("s1", "10.1.0.0/24", gateway_ip="10.1.0.1", dhcp=False),
        subnet("s6", "2001:db8:1::/64", gateway_ip="2001:db8:1::1", dhcp=False),
    ),
    dhcp_port_id="",
)
GATEWAY = foot(PUBLIC, 10)


class Control:
    """What the control plane says of the ports it is asked about, and who asked."""

    def __init__(self, metadata: Metadata) -> None:
        self.asked: list[tuple[str, str]] = []
        self.names: dict[str, str] = {}
        self._metadata = metadata

    def ask(self, port_id: str, router_id: str = "") -> None:
        self.asked.append((port_id, router_id))
        name = self.names.get(port_id, "")
        seed = Seed(name=name, hostname=name) if name else None
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, self._metadata.instance, port_id, f"server-{name}" if name else "", seed)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[list[Place]]:
    made = [Place(), Place()]
    yield made
    for it in made:
        it.remove(tmp_path)


@pytest.fixture
async def cloud_of_two(places: list[Place]) -> AsyncIterator[Any]:
    """The router is on the first host, with metadata; the other host has guests only."""
    here, there = Host(places[0], NET, PUBLIC), Host(places[1], NET)
    join(places[0], places[1], "n1")
    metadata = Metadata()
    control = Control(metadata)
    metadata.start(control.ask)
    here.routers = here.agent(metadata=metadata)

    async def apply(*pieces: Any) -> None:
        world = here.world(NET, PUBLIC, *pieces)
        await metadata.apply(world, None)
        assert await here.routers.apply(world, None) == {}

    yield SimpleNamespace(here=here, there=there, control=control, apply=apply)
    await here.routers.close()
    await metadata.close()


def peer_of(guest: Any) -> Peer:
    return Peer(id=guest.port.id, network_id="n1", mac_address=guest.port.mac_address, ips=(guest.ip,))


@pytest.mark.live
async def test_guests_here_and_elsewhere_learn_who_they_are(cloud_of_two):
    at = cloud_of_two
    near, far = at.here.guest(NET, 5), at.there.guest(NET, 6)
    for it in (near, far):
        it.leads_by("10.1.0.1")
    web = replace(near.port, device_id="server-near")
    at.control.names = {near.port.id: "near", far.port.id: "far"}
    await at.apply(web, peer_of(far), router(foot(NET, 1), gateway=GATEWAY))
    claims = ("-H", "X-Forwarded-For: 10.1.0.5", "-H", f"X-Neutron-Port: {near.port.id}")
    assert await in_thread(near.fetch, "/latest/meta-data/hostname") == (200, "near")
    assert await in_thread(far.fetch, "/latest/meta-data/hostname", *claims) == (200, "far")
    assert at.control.asked == [(near.port.id, ""), (far.port.id, "r1")]
    at.control.names[far.port.id] = "another"
    assert await in_thread(far.fetch, "/latest/meta-data/hostname") == (200, "another")
    for guest, name in ((near, "near"), (far, "another")):
        assert await in_thread(guest.fetch, "/latest/meta-data/hostname", server="[fe80::a9fe:a9fe%eth0]") == (
            200,
            name,
        )
    stranger = at.there.guest(NET, 7)
    stranger.leads_by("10.1.0.1")
    assert (await in_thread(stranger.fetch, "/openstack"))[0] == 404
    for it in (near, far, stranger):
        it.close()


@pytest.mark.live
async def test_who_claims_anothers_address_gets_no_answer(cloud_of_two):
    at = cloud_of_two
    victim, thief = at.there.guest(NET, 5), at.there.guest(NET, 66)
    thief.leads_by("10.1.0.1")
    thief.give("10.1.0.5/32")
    at.control.names = {victim.port.id: "victim", thief.port.id: "thief"}
    route = HostRoute(destination="10.1.0.5/32", nexthop="10.1.0.66")
    await at.apply(peer_of(victim), peer_of(thief), router(foot(NET, 1), gateway=GATEWAY, routes=(route,)))
    status, body = await in_thread(thief.fetch, "/latest/meta-data/hostname", "--interface", "10.1.0.5", "-m", "2")
    assert (status, body) == (0, "")
    assert await in_thread(thief.fetch, "/latest/meta-data/hostname", "--interface", "10.1.0.66") == (200, "thief")
    for it in (victim, thief):
        it.close()


@pytest.mark.live
async def test_the_outside_is_told_nothing(cloud_of_two):
    at = cloud_of_two
    outside = at.here.guest(PUBLIC, 1)
    outside.leads_by("203.0.113.10", to="169.254.169.254/32")
    await at.apply(replace(outside.port, network_id="public"), router(foot(NET, 1), gateway=GATEWAY))
    assert (await in_thread(outside.fetch, "/openstack", "-m", "1"))[0] == 0
    outside.close()


@pytest.mark.live
async def test_it_goes_with_the_router(cloud_of_two):
    at = cloud_of_two
    near = at.here.guest(NET, 5)
    near.leads_by("10.1.0.1")
    at.control.names = {near.port.id: "near"}
    web = replace(near.port, device_id="server-near")
    await at.apply(web, router(foot(NET, 1), gateway=GATEWAY))
    assert (await in_thread(near.fetch, "/openstack"))[0] == 200
    await at.apply(web)
    assert (await in_thread(near.fetch, "/openstack", "-m", "1"))[0] == 0
    near.close()


async def test_a_routers_host_may_know_whose_ports_lie_inside_it(settings, fresh_database):
    cloud = await open_cloud(settings, fresh_database)
    try:
        await _who_may_know(cloud)
    finally:
        await cloud.close()


async def _who_may_know(cloud: Cloud) -> None:
    inner, other = await routed.network(cloud), await routed.network(cloud)
    one = await routed.port(cloud, inner, {})
    strange = await routed.port(cloud, other, {})
    join_ = AddRouterInterface(interface=RouterInterface(port_id="foot", network_id=inner, subnet_ids=()))
    await cloud.executor.execute(Wish(ROUTERS, "r", CreateRouter(project_id=routed.PROJECT)))
    await cloud.executor.execute(Wish(ROUTERS, "r", join_))
    await cloud.executor.execute(Wish(ROUTERS, "r", ScheduleRouter(host="here")))
    assert await instance_data(cloud, "here", one, "r") is not None
    assert await instance_data(cloud, "here", one) is None
    assert await instance_data(cloud, "elsewhere", one, "r") is None
    assert await instance_data(cloud, "here", strange, "r") is None
    assert await instance_data(cloud, "here", one, "no such router") is None
