"""Cards come to servers that are there, and go; and so do security groups."""

import asyncio

import pytest

from agents.hypervisor.plan import Plug, Unplug
from bus import clock
from bus.execute import Wish
from handlers.network.port import PORTS
from schema.network.floating_ip import FLOATING_IP, FloatingIpAssociated, FloatingIpCreated
from schema.network.network import NETWORK, NetworkUpdated
from schema.network.port_command import DeletePort
from schema.network.wiring import tap_name
from tests.compute.networked import networked
from tests.compute.world import GONE, OTHER
from tests.network.wiring import happened, until


@pytest.fixture
async def world(settings, fresh_database):
    async with networked(settings, fresh_database) as it:
        yield it


@pytest.fixture
async def server(world):
    """A running server without any card: its owner, and its path."""
    member = await world.client()
    return member, f"/servers/{(await world.boot(member, networks='none'))['id']}"


async def attach(member, path, expect=200, version=None, **asked):
    answer = await member(
        "POST", f"{path}/os-interface", {"interfaceAttachment": asked}, expect=expect, version=version
    )
    return answer["interfaceAttachment"] if expect == 200 else next(iter(answer.values()))["message"]


async def actions(member, path):
    return {
        it["action"]: it["message"] for it in (await member("GET", f"{path}/os-instance-actions"))["instanceActions"]
    }


def at(ip):
    return [{"ip_address": ip}]


async def taps(world, path):
    id = path.rpartition("/")[2]
    return world.steered.drivers[(await world.steered.state(id)).host].domains[id].seen.taps


async def test_a_card_comes_and_goes(world, server):
    member, path = server
    network = await world.network()
    card = await attach(member, path, net_id=network, fixed_ips=[{"ip_address": "10.1.0.44"}], tag="front")
    [port] = await world.ports()
    assert card == {
        "net_id": network,
        "port_id": port.id,
        "mac_addr": port.mac_address,
        "port_state": card["port_state"],
        "fixed_ips": [{"subnet_id": port.fixed_ips[0].subnet_id, "ip_address": "10.1.0.44"}],
        "tag": "front",
    }
    assert await taps(world, path) == (tap_name(port.id),)
    await until(lambda: wired(world, port.id))
    shown = (await member("GET", f"{path}/os-interface/{port.id}"))["interfaceAttachment"]
    assert (shown["port_state"], shown["tag"]) == ("ACTIVE", "front")
    assert (await member("GET", f"{path}/os-interface"))["interfaceAttachments"] == [shown]
    old = (await member("GET", f"{path}/os-interface", version="2.69"))["interfaceAttachments"]
    assert "tag" not in old[0]
    assert (await member("GET", path))["server"]["addresses"]["blue"][0]["addr"] == "10.1.0.44"
    await member("DELETE", f"{path}/os-interface/{port.id}", expect=202)
    await until(world.nothing_left)
    assert await taps(world, path) == ()
    said = await member("GET", f"{path}/os-interface/{port.id}", expect=404)
    assert said["itemNotFound"]["message"] == f"Port id {port.id} could not be found."
    assert await actions(member, path) == {"attach_interface": None, "detach_interface": None, "create": None}
    done = (await member("GET", f"{path}/os-instance-actions"))["instanceActions"][0]
    events = (await member("GET", f"{path}/os-instance-actions/{done['request_id']}"))["instanceAction"]["events"]
    assert [(it["event"], it["result"]) for it in events] == [("compute_detach_interface", "Success")]


async def wired(world, port_id):
    [port] = await world.ports(id=port_id)
    return port.wired


async def test_a_port_of_one_s_own_stays_when_its_card_goes(world, server):
    member, path = server
    port_id = await world.port(await world.network(), "10.1.0.5")
    assert (await attach(member, path, port_id=port_id))["port_id"] == port_id
    [port] = await world.ports()
    assert (port.device_id, port.device_owner) == (path.rpartition("/")[2], "compute:nova")
    await member("DELETE", f"{path}/os-interface/{port_id}", expect=202)
    await until(lambda: let_go(world))
    [port] = await world.ports()
    assert (port.id, port.host, port.fixed_ips[0].ip_address) == (port_id, "", "10.1.0.5")


async def let_go(world):
    [port] = await world.ports()
    return not port.device_id


async def test_cards_are_given_to_a_guest_that_is_off_too(world, server):
    member, path = server
    await world.network()
    await member("POST", f"{path}/action", {"os-stop": None}, expect=202)
    await world.becomes(member, path.rpartition("/")[2], "SHUTOFF")
    card = await member("POST", f"{path}/os-interface", {}, expect=200)
    assert await taps(world, path) == (tap_name(card["interfaceAttachment"]["port_id"]),)


async def test_what_cannot_be_attached_is_said(world, server):
    member, path = server
    none = await attach(member, path, expect=400)
    assert "No specific network was requested and none are available for project" in none
    blue, empty = await world.network(size=2), await world.network("empty", size=0)
    used = await world.port(blue, "10.1.0.2", device_id="somebody", device_owner="compute:nova")
    foreign = await world.network("foreign", project=OTHER)
    theirs = await world.port(foreign, project=OTHER)
    for status, text, asked in (
        (400, "Multiple possible networks found", {}),
        (400, "Must not input both network_id and port_id", {"net_id": blue, "port_id": used}),
        (400, "Must input network_id when request IP address", {"fixed_ips": [{"ip_address": "10.1.0.3"}]}),
        (404, f"Network {GONE} could not be found.", {"net_id": GONE}),
        (404, f"Network {foreign} could not be found.", {"net_id": foreign}),
        (400, f"Network {empty} requires a subnet", {"net_id": empty}),
        (404, f"Port id {GONE} could not be found.", {"port_id": GONE}),
        (404, f"Port id {theirs} could not be found.", {"port_id": theirs}),
        (409, f"Port {used} is still in use.", {"port_id": used}),
        (
            409,
            "10.1.0.2 is already in use on instance somebody",
            {"net_id": blue, "fixed_ips": at("10.1.0.2")},
        ),
        (
            400,
            "10.7.7.7 is not a valid ip address for network",
            {"net_id": blue, "fixed_ips": at("10.7.7.7")},
        ),
    ):
        said = await attach(member, path, expect=status, **asked)
        assert text in said, said
    assert "tag" in await attach(member, path, expect=400, version="2.48", net_id=blue, tag="x")
    assert (await attach(member, path, net_id=blue))["fixed_ips"][0]["ip_address"] == "10.1.0.3"
    assert "No fixed IP addresses available for network" in await attach(member, path, expect=400, net_id=blue)
    await world.limit_ports(1)
    green = await world.network("green")
    assert await attach(member, path, expect=403, net_id=green) == "Maximum number of ports exceeded"
    await member("POST", f"{path}/action", {"lock": None}, expect=202)
    assert "locked" in await attach(member, path, expect=409, net_id=green)
    await member("DELETE", f"{path}/os-interface/{GONE}", expect=404)
    await member("POST", f"{path}/action", {"unlock": None}, expect=202)
    await member("POST", f"{path}/action", {"suspend": None}, expect=202)
    await world.becomes(member, path.rpartition("/")[2], "SUSPENDED")
    assert "Cannot 'attach_interface'" in await attach(member, path, expect=409, net_id=GONE)


async def test_a_host_that_cannot_plug_leaves_nothing(world, server):
    member, path = server
    network = await world.network()
    for driver in world.steered.drivers.values():
        driver.failure = lambda step: "the guest says no" if isinstance(step, Plug | Unplug) else None
    said = await attach(member, path, expect=500, net_id=network)
    assert "Failed to attach network adapter device" in said
    await until(world.nothing_left)
    assert await actions(member, path) == {"attach_interface": "Error", "create": None}


async def test_attaching_again_with_the_same_key_is_attaching_once(world, server):
    member, path = server
    port = await world.port(await world.network())
    body, key = {"interfaceAttachment": {"port_id": port}}, clock.uuid4()
    for _ in range(2):
        card = (await member("POST", f"{path}/os-interface", body, key=key))["interfaceAttachment"]
        assert card["port_id"] == port
    assert len((await world.steered.state(path.rpartition("/")[2])).nics) == 1


async def test_what_changes_in_networking_is_shown(world, server):
    member, path = server
    network = await world.network()
    port_id = (await attach(member, path, net_id=network))["port_id"]
    [port] = await world.ports()
    ip = port.fixed_ips[0].ip_address
    leads = FloatingIpAssociated(port_id=port_id, fixed_ip_address=ip, router_id="r")
    await world.cloud.executor.execute(
        happened(FLOATING_IP, "f", FloatingIpCreated(floating_ip_address="192.0.2.7"), leads),
        happened(NETWORK, network, NetworkUpdated(name="renamed")),
    )

    async def addresses():
        shown = (await member("GET", path))["server"]["addresses"]
        return [(it["addr"], it["OS-EXT-IPS:type"]) for it in shown.get("renamed", ())]

    async def both():
        return await addresses() == [(ip, "fixed"), ("192.0.2.7", "floating")]

    await until(both)
    await world.cloud.executor.execute(Wish(PORTS, port_id, DeletePort()))

    async def neither():
        return (await member("GET", path))["server"]["addresses"] == {}

    await until(neither)
    assert (await member("GET", f"{path}/os-interface"))["interfaceAttachments"] == []


async def test_groups_that_come_and_go_at_the_same_instant_are_all_heard(world, server):
    member, path = server
    names = [f"group{number}" for number in range(4)]
    ids = [await world.group(name) for name in names]
    await attach(member, path, net_id=await world.network())
    asked = [member("POST", f"{path}/action", {"addSecurityGroup": {"name": it}}, expect=202) for it in names]
    await asyncio.gather(*asked)
    [port] = await world.ports()
    assert set(ids) < set(port.security_group_ids)
    left = {"removeSecurityGroup": {"name": "default"}}, *({"removeSecurityGroup": {"name": it}} for it in names[:3])
    await asyncio.gather(*(member("POST", f"{path}/action", it, expect=202) for it in left))
    [port] = await world.ports()
    assert port.security_group_ids == (ids[3],)


async def test_security_groups_come_and_go(world, server):
    member, path = server
    web = await world.group("web")
    add, remove = ({word: {"name": "web"}} for word in ("addSecurityGroup", "removeSecurityGroup"))
    assert "could not be found as device id" in str(await member("POST", f"{path}/action", add, expect=404))
    for name in ("blue", "green"):
        await attach(member, path, net_id=await world.network(name))
    await member("POST", f"{path}/action", add, expect=202)
    assert all(web in port.security_group_ids and len(port.security_group_ids) == 2 for port in await world.ports())
    await member("POST", f"{path}/action", {"addSecurityGroup": {"name": web}}, expect=202)
    shown = (await member("GET", f"{path}/os-security-groups"))["security_groups"]
    assert [it["name"] for it in shown] == ["default", "web"]
    rules = shown[0]["rules"]
    assert rules
    assert all(it["group"]["name"] == "default" for it in rules)

    async def grouped(*names):
        return {it["name"] for it in (await member("GET", path))["server"]["security_groups"]} == set(names)

    await until(lambda: grouped("default", "web"))
    await member("POST", f"{path}/action", remove, expect=202)
    await until(lambda: grouped("default"))
    said = await member("POST", f"{path}/action", remove, expect=404)
    assert "Security group web not associated with the instance" in str(said)
    nope = {"addSecurityGroup": {"name": "nope"}}
    assert "Security group nope not found." in str(await member("POST", f"{path}/action", nope, expect=404))
    await world.group("web")
    assert "Multiple security groups found" in str(await member("POST", f"{path}/action", add, expect=409))
