"""Servers are ordered with networks, and everything that can be known to be wrong with that is said at once."""

import asyncio

import pytest

from bus import clock
from handlers.compute import step
from tests.compute.networked import networked
from tests.compute.world import GONE, OTHER, PROJECT, wanted


@pytest.fixture
async def world(settings, fresh_database):
    async with networked(settings, fresh_database) as it:
        yield it


async def orders(world, networks, *, expect=202, member=None, **fields):
    member = member or await world.client()
    fields = {"networks": networks, **fields} if networks is not None else fields
    answer = await member("POST", "/servers", {"server": wanted(member, **fields)}, expect=expect)
    return answer["server"] if expect == 202 else next(iter(answer.values()))["message"]


async def test_a_server_gets_a_port_of_its_own(world):
    network, member = await world.network(), await world.client()
    id = (await orders(world, [{"uuid": network, "tag": "front"}]))["id"]
    shown = await world.becomes(member, id, "ACTIVE")
    [port] = await world.ports(device_id=id)
    assert (port.status, port.device_owner, port.made_by) == ("ACTIVE", "compute:nova", id)
    assert (port.host, port.dns_name, port.wired) == (await host(world, id), "web", True)
    [address] = shown["addresses"]["blue"]
    assert address == {
        "version": 4,
        "addr": port.fixed_ips[0].ip_address,
        "OS-EXT-IPS:type": "fixed",
        "OS-EXT-IPS-MAC:mac_addr": port.mac_address,
    }
    assert shown["security_groups"] == [{"name": "default"}]
    assert await world.ports_counted() == 1
    ips = await member("GET", f"/servers/{id}/ips")
    assert ips == {"addresses": {"blue": [{"version": 4, "addr": address["addr"]}]}}
    assert (await member("GET", f"/servers/{id}/ips/blue"))["blue"] == ips["addresses"]["blue"]
    found = await member("GET", "/servers?ip=10.1.0.")
    assert [it["id"] for it in found["servers"]] == [id]
    assert (await member("GET", "/servers?ip=10.9"))["servers"] == []
    await member("DELETE", f"/servers/{id}", expect=204)
    await world.gone(member, id)
    assert await world.nothing_left()


async def host(world, id):
    return (await world.steered.state(id)).host


async def test_ports_addresses_and_several_networks_in_the_order_asked_for(world):
    blue, green = await world.network("blue"), await world.network("green")
    lent = await world.port(green, "10.2.0.9", dns_name="mine")
    member = await world.client()
    asked = [{"port": lent, "tag": "b"}, {"uuid": blue, "fixed_ip": "10.1.0.77"}, {"uuid": blue}]
    id = (await orders(world, asked, security_groups=[{"name": await world.group("web")}, {"name": "default"}]))["id"]
    shown = await world.becomes(member, id, "ACTIVE")
    nics = (await world.steered.state(id)).nics
    assert [(nic.label, nic.tag, nic.made) for nic in nics] == [
        ("green", "b", False),
        ("blue", "", True),
        ("blue", "", True),
    ]
    assert nics[1].addresses[0].ip == "10.1.0.77"
    assert nics[0].security_groups == (), "groups are for the ports that are made"
    assert set(nics[1].security_groups) == {"web", "default"}
    assert {it["name"] for it in shown["security_groups"]} == {"web", "default"}
    [port] = await world.ports(id=lent)
    assert (port.device_id, port.dns_name, port.status) == (id, "mine", "ACTIVE")
    await member("DELETE", f"/servers/{id}", expect=204)
    await world.gone(member, id)
    [port] = await world.ports()
    assert (port.id, port.device_id, port.device_owner, port.host, port.status) == (lent, "", "", "", "DOWN")


async def test_who_says_nothing_gets_the_only_network(world):
    member = await world.client(version="2.36")
    assert (await world.boot(member))["addresses"] == {}
    newest = await world.client()
    assert "Unable to automatically allocate a network" in await orders(world, "auto", expect=400)
    await world.network(project=OTHER, shared_with=("*",))
    assert list((await world.boot(member))["addresses"]) == ["blue"]
    assert list((await world.boot(newest, networks="auto"))["addresses"]) == ["blue"]
    assert (await world.boot(newest, networks="none"))["addresses"] == {}
    await world.network("green")
    text = "Multiple possible networks found, use a Network ID to be more specific."
    assert await orders(world, "auto", expect=409) == text
    assert await orders(world, None, expect=409, member=member) == text
    assert await orders(world, [], expect=409) == text


async def test_who_has_no_network_is_given_one(world):
    outside = await world.network("outside", project=OTHER, external_for=("*",), is_default=True)
    member = await world.client()
    key, body = clock.uuid4(), {"server": wanted(member, networks="auto")}
    first, again = [(await member("POST", "/servers", body, expect=202, key=key))["server"]["id"] for _ in range(2)]
    assert first == again
    shown = await world.becomes(member, first, "ACTIVE")
    assert list(shown["addresses"]) == ["auto_allocated_network"]
    assert list((await world.boot(member, networks="auto"))["addresses"]) == ["auto_allocated_network"]
    assert outside not in {port.network_id for port in await world.ports(project_id=PROJECT)}


async def test_many_servers_at_once_each_get_their_own(world):
    network, member = await world.network(), await world.client()
    made = await orders(world, [{"uuid": network}], min_count=5, max_count=5)
    await world.becomes(member, made["id"], "ACTIVE")
    servers = (await member("GET", "/servers/detail"))["servers"]
    assert len({it["addresses"]["blue"][0]["addr"] for it in servers}) == 5
    assert await world.ports_counted() == 5
    assert "max_count cannot be greater than 1 if an fixed_ip is specified" in await orders(
        world, [{"uuid": network, "fixed_ip": "10.1.0.8"}], max_count=2, expect=400
    )
    port = await world.port(network)
    text = await orders(world, [{"port": port}], max_count=2, expect=400)
    assert "Unable to launch multiple instances with a single configured port ID" in text


async def test_as_many_servers_as_there_may_be_ports(world):
    network = await world.network()
    await world.limit_ports(3)
    await orders(world, [{"uuid": network}, {"uuid": network}], min_count=1, max_count=3)
    assert await world.ports_counted() == 2
    assert await orders(world, [{"uuid": network}] * 2, expect=403) == "Maximum number of ports exceeded"
    await orders(world, [{"uuid": network}])
    assert await orders(world, "auto", expect=403) == "Maximum number of ports exceeded"
    assert await world.ports_counted() == 3


async def test_what_is_wrong_is_said_at_once_and_leaves_nothing(world):
    blue, empty = await world.network(size=2), await world.network("empty", size=0)
    outside = await world.network("outside", project=OTHER, external_for=("*",))
    foreign = await world.network("foreign", project=OTHER)
    bare = await world.network("bare", port_security_enabled=False)
    used = await world.port(blue, "10.1.0.2", device_id="somebody", device_owner="compute:nova")
    theirs = await world.port(blue, project=OTHER)
    free = await world.port(blue)
    before = len(await world.ports())
    for asked, status, text in (
        ([{"uuid": GONE}], 400, f"Network {GONE} could not be found."),
        ([{"uuid": foreign}], 400, f"Network {foreign} could not be found."),
        ([{"uuid": empty}], 400, f"Network {empty} requires a subnet in order to boot instances on."),
        ([{"uuid": outside}], 403, f"It is not allowed to create an interface on external network {outside}"),
        ([{"port": GONE}], 400, f"Port id {GONE} could not be found."),
        ([{"port": theirs}], 400, f"Port id {theirs} could not be found."),
        ([{"port": used}], 409, f"Port {used} is still in use."),
        ([{"port": free}, {"port": free}], 400, f"Port ID '{free}' was specified twice"),
        ([{"port": free, "fixed_ip": "10.1.0.9"}], 400, "the two cannot be specified together"),
        ([{"tag": "x"}], 400, "missing 'uuid'"),
        ([{"uuid": blue, "fixed_ip": "10.9.9.9"}], 400, f"10.9.9.9 is not a valid ip address for network {blue}"),
        ([{"uuid": blue, "fixed_ip": "10.1.0.2"}], 400, "10.1.0.2 is already in use on instance somebody"),
        ([{"uuid": blue, "fixed_ip": "here"}], 400, "fixed_ip"),
        ([{"uuid": "here"}], 400, "networks"),
        ([{"uuid": blue}, {"uuid": blue}], 400, f"No fixed IP addresses available for network: {blue}"),
    ):
        said = await orders(world, asked, expect=status)
        assert text in said, said
    groups = [{"name": "nope"}]
    said = await orders(world, [{"uuid": blue}], security_groups=groups, expect=400)
    assert said == "Security group nope not found."
    await world.group("twin")
    await world.group("twin")
    said = await orders(world, [{"uuid": blue}], security_groups=[{"name": "twin"}], expect=409)
    assert "Multiple security groups found matching 'twin'" in said
    web = await world.group("web")
    said = await orders(world, [{"uuid": bare}], security_groups=[{"name": web}], expect=400)
    assert "Network requires port_security_enabled" in said
    old = await world.client(version="2.31")
    assert "'tag' was unexpected" in await orders(world, [{"uuid": blue, "tag": "x"}], member=old, expect=400)
    admin = await world.client("admin")
    said = await orders(world, [{"port": theirs}], member=admin, expect=400)
    assert said == f"Port {theirs} not usable for instance web."
    assert len(await world.ports()) == before
    assert await world.ports_counted() == 0
    assert await orders(world, [{"uuid": outside}], member=admin)


async def test_nobody_else_gets_an_address_however_many_want_one(world):
    network = await world.network(size=12)
    member = await world.client()

    async def order():
        server = {"server": wanted(member, networks=[{"uuid": network}])}
        return (
            await world.served.call(
                "POST",
                "/compute/v2.1/servers",
                server,
                token=member.token,
                headers={"OpenStack-API-Version": "compute latest"},
            )
        ).status

    answers = await asyncio.gather(*(order() for _ in range(16)))
    addresses = [it.fixed_ips[0].ip_address for it in await world.ports()]
    assert len(addresses) == len(set(addresses)) == answers.count(202)
    assert set(answers) <= {202, 400, 403}
    assert answers.count(202) == 10, "the quota of instances"


async def test_a_build_that_fails_takes_what_it_made_and_nothing_else(world, monkeypatch):
    monkeypatch.setattr(step, "WIRING_SECONDS", 0)
    network, member = await world.network(), await world.client()
    lent = await world.port(network, "10.1.0.50")
    for name in ("h1", "h2"):
        world.steered.drivers[name].failure = lambda step: "no more memory" if type(step).__name__ == "Start" else None
    id = (await orders(world, [{"uuid": network}, {"port": lent}]))["id"]
    shown = await world.becomes(member, id, "ERROR")
    assert "no more memory" in shown["fault"]["message"]
    assert shown["addresses"] == {}
    [port] = await world.ports()
    assert (port.id, port.device_id, port.host) == (lent, "", "")
    assert await world.ports_counted() == 0
    await member("DELETE", f"/servers/{id}", expect=204)
    await world.gone(member, id)
    assert [it.id for it in await world.ports()] == [lent]
    assert await world.steered.clean()


async def test_the_same_order_again_is_the_same_server(world):
    network, member = await world.network(), await world.client()
    port = await world.port(network, "10.1.0.50")
    body = {"server": wanted(member, networks=[{"port": port}, {"uuid": network}])}
    key = clock.uuid4()
    first = await member("POST", "/servers", body, expect=202, key=key)
    again = await member("POST", "/servers", body, expect=202, key=key)
    assert first["server"]["id"] == again["server"]["id"]
    assert len(await world.ports(project_id=PROJECT)) == 2


async def test_after_a_change_older_versions_say_less(world):
    network, member = await world.network(), await world.client()
    id = (await orders(world, [{"uuid": network}], member=member))["id"]
    await world.becomes(member, id, "ACTIVE")
    image = (await member("GET", f"/servers/{id}"))["server"]["image"]["id"]

    async def rebuilt(version):
        body = {"rebuild": {"imageRef": image}}
        shown = (await member("POST", f"/servers/{id}/action", body, expect=202, version=version))["server"]
        await world.becomes(member, id, "ACTIVE")
        return shown

    [address] = (await rebuilt("2.53"))["addresses"]["blue"]
    assert set(address) == {"version", "addr"}
    shown = await rebuilt("2.57")
    assert (shown["key_name"], shown["user_data"]) == (None, None)
    assert "server_groups" not in shown
    assert (await rebuilt("2.71"))["server_groups"] == []
    shown = await rebuilt("2.75")
    assert "OS-EXT-IPS:type" in shown["addresses"]["blue"][0]
    assert (shown["user_data"], shown["OS-EXT-STS:vm_state"]) == (None, "active")
    [address] = (await member("PUT", f"/servers/{id}", {"server": {}}, version="2.1"))["server"]["addresses"]["blue"]
    assert set(address) == {"version", "addr"}


async def test_groups_that_a_server_leaves_are_not_shown_any_more(world):
    network, member = await world.network(), await world.client()
    id = (await orders(world, [{"uuid": network}], member=member))["id"]
    await world.becomes(member, id, "ACTIVE")
    path = f"/servers/{id}/action"
    await member("POST", path, {"removeSecurityGroup": {"name": "default"}}, expect=202)
    assert "security_groups" not in (await member("GET", f"/servers/{id}"))["server"]
    await member("POST", path, {"addSecurityGroup": {"name": "default"}}, expect=202)
    assert (await member("GET", f"/servers/{id}"))["server"]["security_groups"] == [{"name": "default"}]


async def test_groups_are_not_shown_while_a_server_is_built(world, monkeypatch):
    """As in Nova, though its ports are in them by then."""
    ready = asyncio.Event()
    for driver in world.steered.drivers.values():
        monkeypatch.setattr(driver, "act", _once(ready, driver.act))
    network, member = await world.network(), await world.client()
    await world.group("web")
    made = await orders(world, [{"uuid": network}], member=member, security_groups=[{"name": "web"}])
    assert made["security_groups"] == [{"name": "web"}], "the answer to the order has what was ordered"
    path = f"/servers/{made['id']}"

    async def seen():
        one = (await member("GET", path))["server"]
        [listed] = (await member("GET", "/servers/detail"))["servers"]
        return one["status"], [it.get("security_groups") for it in (one, listed)]

    await world.steered.sees(made["id"], lambda server: server.nics and server.nics[0].security_groups)
    assert await seen() == ("BUILD", [None, None])
    ready.set()
    await world.becomes(member, made["id"], "ACTIVE")
    assert await seen() == ("ACTIVE", [[{"name": "web"}]] * 2)


def _once(ready, act):
    """A host that does nothing until it is ready."""

    async def later(step):
        await ready.wait()
        await act(step)

    return later


async def test_administrators_may_tell_a_guest_its_networks_anew(world):
    network, member, admin = await world.network(), await world.client(), await world.client("admin")
    id = (await orders(world, [{"uuid": network}], member=member))["id"]
    await world.becomes(member, id, "ACTIVE")
    path = f"/servers/{id}/action"
    await member("POST", path, {"injectNetworkInfo": None}, expect=403)
    await admin("POST", path, {"injectNetworkInfo": None}, expect=202)
    await admin("POST", path, {"resetNetwork": None}, expect=410)
