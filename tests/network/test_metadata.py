"""Guests ask who they are, from namespaces of their own, and never learn who another is."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from agents.network import metadata as metadata_module
from agents.network import namespace
from agents.network.dhcp import Dhcp
from agents.network.metadata import Metadata
from agents.network.world import World
from schema.compute.domain import Seed
from schema.network.wiring import WiredPort
from tests.network.dhcp_place import Guest, Place, network, port, subnet, world

pytestmark = pytest.mark.live

SUBNET = subnet("s4", "10.1.0.0/24", gateway_ip="10.1.0.1")


class Control:
    """What the control plane would say; it may be away."""

    def __init__(self, metadata: Metadata) -> None:
        self.seeds: dict[str, tuple[str, Seed | None]] = {}
        self.asked: list[str] = []
        self.away = False
        self._metadata = metadata

    def ask(self, port_id: str, router_id: str = "", password: str = "") -> None:
        self.asked.append(port_id)
        if not self.away:
            server_id, seed = answer = self.seeds.get(port_id, ("", None))
            if seed and password and not seed.posted_password:
                answer = self.seeds[port_id] = server_id, msgspec.structs.replace(seed, posted_password=password)
            asyncio.get_running_loop().call_later(0.05, self._metadata.instance, port_id, *answer)


class Served:
    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.metadata = Metadata()
        self.control = Control(self.metadata)
        self.metadata.start(self.control.ask)
        self.dhcp = Dhcp(place.inside, place.tag, place.switch, folder / "dhcp", metadata=self.metadata)

    async def apply(self, at: World) -> None:
        await self.metadata.apply(at, None)
        assert await self.dhcp.apply(at, None) == {}

    def server(self, of: WiredPort, name: str, **more: object) -> WiredPort:
        """A server behind a port."""
        seed = Seed(name=name, hostname=name, **more)  # type: ignore[arg-type]
        self.control.seeds[of.id] = f"server-{name}", seed
        return msgspec.structs.replace(of, device_id=f"server-{name}")

    def guest(self, of: WiredPort) -> Guest:
        made = self.place.guest(of)
        made.give(f"{of.addresses[0].ip}/24")
        made.route_metadata("10.1.0.2")
        return made


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place()
    yield made
    made.remove(tmp_path)


@pytest.fixture
async def served(place: Place, tmp_path: Path) -> AsyncIterator[Served]:
    async with _served(place, tmp_path) as made:
        yield made


@asynccontextmanager
async def _served(place: Place, folder: Path) -> AsyncIterator[Served]:
    made = Served(place, folder)
    try:
        yield made
    finally:
        await made.dhcp.close()
        await made.metadata.close()


async def ask(guest: Guest, path: str, *options: str, **more: str) -> tuple[int, str]:
    return await asyncio.to_thread(guest.fetch, path, *options, **more)


async def test_a_guest_learns_who_it_is(served, place):
    net = network("n1", SUBNET)
    script = base64.b64encode(b"#!/bin/sh\necho hello\n").decode()
    told = {"links": [{"id": "tap1"}], "networks": [], "services": []}
    web = served.server(
        port("p1", net, 10),
        "web",
        user_data=script,
        public_keys={"mine": "ssh-ed25519 AAAA me"},
        network_data=told,
        metadata={"role": "front"},
        local_ipv4="10.1.0.10",
        instance_type="m1.tiny",
        security_groups=("default", "http"),
    )
    place.network("n1")
    await served.apply(world(net, web))
    guest = served.guest(web)
    status, body = await ask(guest, "/openstack")
    assert status == 200
    assert "latest" in body.splitlines()
    assert "2018-08-27" in body.splitlines()
    meta = json.loads((await ask(guest, "/openstack/latest/meta_data.json"))[1])
    assert (meta["uuid"], meta["hostname"], meta["meta"]) == ("server-web", "web", {"role": "front"})
    assert meta["public_keys"] == {"mine": "ssh-ed25519 AAAA me"}
    assert json.loads((await ask(guest, "/openstack/latest/network_data.json"))[1]) == told
    assert await ask(guest, "/openstack/latest/user_data") == (200, "#!/bin/sh\necho hello\n")
    assert await ask(guest, "/openstack/2018-08-27/vendor_data2.json") == (200, "{}")
    assert await ask(guest, "/openstack/latest/password") == (200, "")
    assert await ask(guest, "/latest/user-data") == (200, "#!/bin/sh\necho hello\n")
    assert "public-keys/" in (await ask(guest, "/latest/meta-data/"))[1].splitlines()
    assert await ask(guest, "/latest/meta-data/public-keys/") == (200, "0=mine")
    assert await ask(guest, "/2009-04-04/meta-data/public-keys/0/openssh-key") == (200, "ssh-ed25519 AAAA me")
    assert await ask(guest, "/latest/meta-data/local-ipv4") == (200, "10.1.0.10")
    assert await ask(guest, "/latest/meta-data/instance-type") == (200, "m1.tiny")
    assert await ask(guest, "/latest/meta-data/security-groups") == (200, "default\nhttp")
    assert await ask(guest, "/latest/meta-data/placement/availability-zone") == (200, "nova")
    assert (await ask(guest, "/latest/meta-data/nothing"))[0] == 404
    assert (await ask(guest, "/openstack/latest/meta_data.json", "-X", "POST"))[0] == 405
    assert served.control.asked == ["p1"]


async def test_a_guest_posts_its_password_once(served, place, monkeypatch):
    monkeypatch.setattr(metadata_module, "WAIT_SECONDS", 0.5)
    net = network("n1", SUBNET)
    web = served.server(port("p1", net, 10), "web")
    place.network("n1")
    await served.apply(world(net, web))
    guest = served.guest(web)

    async def post(path: str, text: str) -> int:
        return (await ask(guest, path, "-X", "POST", "--data-binary", text))[0]

    path = "/openstack/latest/password"
    assert await ask(guest, path) == (200, "")
    assert await post(path, "") == 400
    assert await post(path, "x" * 1021) == 400
    served.control.away = True
    assert await post(path, "c2VjcmV0") == 503
    served.control.away = False
    assert await post("/openstack/2013-04-04/password", "c2VjcmV0") == 200
    assert await ask(guest, path) == (200, "c2VjcmV0")
    assert await post(path, "c2VjcmV0") == 200, "the same again, as if the answer had been lost"
    assert await post(path, "b3RoZXI=") == 409
    assert await post("/openstack/2012-08-10/password", "b3RoZXI=") == 405
    assert await post("/latest/meta-data/hostname", "x") == 405


async def test_it_answers_over_ipv6_too(served, place):
    net = network("n1", SUBNET)
    web = served.server(port("p1", net, 10), "web")
    place.network("n1")
    await served.apply(world(net, web))
    guest = served.guest(web)
    status, body = await ask(guest, "/latest/meta-data/hostname", server="[fe80::a9fe:a9fe%25eth0]")
    assert (status, body) == (200, "web")


async def test_the_same_address_in_two_networks_is_two_guests(served, place):
    one, two = network("n1", SUBNET), network("n2", SUBNET)
    first = served.server(port("p1", one, 10), "first")
    second = served.server(port("p2", two, 10), "second")
    for name in ("n1", "n2"):
        place.network(name)
    await served.apply(world(one, two, first, second))
    for of, name in ((first, "first"), (second, "second")):
        assert await ask(served.guest(of), "/latest/meta-data/hostname") == (200, name)


async def test_nobody_is_taken_for_another(served, place):
    net = network("n1", SUBNET)
    victim = served.server(port("p1", net, 10), "victim", admin_password="secret")
    thief = served.server(port("p2", net, 11), "thief")
    place.network("n1")
    await served.apply(world(net, victim, thief))
    guest = served.guest(thief)
    claims = ("-H", "X-Forwarded-For: 10.1.0.10", "-H", "X-Instance-ID: server-victim")
    assert await ask(guest, "/latest/meta-data/hostname", *claims) == (200, "thief")
    guest.give("10.1.0.10/24", "10.1.0.99/24")  # nobody else has the victim's address up
    status, body = await ask(guest, "/openstack/latest/meta_data.json", "--interface", "10.1.0.10", "-m", "2")
    assert (status, "secret" in body) == (0, False)
    assert (await ask(guest, "/openstack", "--interface", "10.1.0.99"))[0] == 404


async def test_the_control_plane_may_be_away(served, place, monkeypatch):
    monkeypatch.setattr(metadata_module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(metadata_module, "STALE_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(metadata_module, "WAIT_SECONDS", 0.3)
    net = network("n1", SUBNET)
    web = served.server(port("p1", net, 10), "web")
    late = served.server(port("p2", net, 11), "late")
    place.network("n1")
    await served.apply(world(net, web, late))
    guest = served.guest(web)
    assert await ask(guest, "/latest/meta-data/hostname") == (200, "web")
    served.control.away = True
    assert await ask(guest, "/latest/meta-data/hostname") == (200, "web")
    status, body = await ask(served.guest(late), "/latest/meta-data/hostname")
    assert status == 503
    assert "control plane" in body


async def test_many_requests_ask_once_and_a_new_server_is_asked_for(served, place):
    net = network("n1", SUBNET)
    web = served.server(port("p1", net, 10), "web")
    place.network("n1")
    await served.apply(world(net, web))
    guest = served.guest(web)
    answers = await asyncio.gather(*(ask(guest, "/latest/meta-data/hostname") for _ in range(8)))
    assert set(answers) == {(200, "web")}
    assert served.control.asked == ["p1"]
    other = msgspec.structs.replace(served.server(web, "other"), generation=2)
    await served.apply(world(net, other))
    assert await ask(guest, "/latest/meta-data/hostname") == (200, "other")
    del served.control.seeds["p1"]
    await served.apply(world(net, msgspec.structs.replace(other, generation=3, device_id="")))
    assert (await ask(guest, "/latest/meta-data/hostname"))[0] == 404


async def test_it_listens_again_in_a_namespace_made_anew(served, place):
    net = network("n1", SUBNET)
    web = served.server(port("p1", net, 10), "web")
    place.network("n1")
    await served.apply(world(net, web))
    guest = served.guest(web)
    namespace.remove(served.dhcp.namespace_of("n1"))
    await served.apply(world(net, web))
    assert await ask(guest, "/latest/meta-data/hostname") == (200, "web")
    await served.apply(world(net))
    assert (await ask(guest, "/latest/meta-data/hostname", "-m", "1"))[0] == 0
