"""Addresses given to servers the old way, by clients that name no version."""

import pytest

from api.compute.service import SERVICE as COMPUTE
from api.network.service import SERVICE as NETWORK
from tests.compute.networked import networked
from tests.compute.world import OTHER
from tests.network.wiring import until

OLD = "2.43"


@pytest.fixture
async def world(settings, fresh_database):
    async with networked(settings, fresh_database, [COMPUTE, NETWORK]) as it:
        yield it


async def act(member, id, word, expect=202, version=OLD, **held):
    answer = await member("POST", f"/servers/{id}/action", {word: held}, expect=expect, version=version)
    return next(iter(answer.values()))["message"] if expect != 202 else None


async def shows(world, member, id, *addresses):
    async def so():
        shown = (await member("GET", f"/servers/{id}"))["server"]["addresses"].get("blue", [])
        return [(it["addr"], it["OS-EXT-IPS:type"]) for it in shown] == list(addresses)

    await until(so)


async def test_fixed_addresses_come_and_go(world):
    network, member = await world.network(size=3), await world.client()
    id = (await world.boot(member, networks=[{"uuid": network, "fixed_ip": "10.1.0.2"}]))["id"]
    await act(member, id, "addFixedIp", networkId=network)
    [port] = await world.ports()
    more = port.fixed_ips[1].ip_address
    await shows(world, member, id, ("10.1.0.2", "fixed"), (more, "fixed"))
    await act(member, id, "addFixedIp", networkId=network)
    assert "No fixed IP addresses available" in await act(member, id, "addFixedIp", 400, networkId=network)
    await act(member, id, "removeFixedIp", address="10.1.0.2")
    said = await act(member, id, "removeFixedIp", 400, address="10.1.0.2")
    assert said == f"Instance {id} doesn't have fixed IP '10.1.0.2'."
    assert "could not be found" in await act(member, id, "addFixedIp", 404, networkId="nope")
    gone = {"addFixedIp": {"networkId": network}}
    await member("POST", f"/servers/{id}/action", gone, expect=404, version="2.44")


async def test_floating_addresses_come_and_go(world):
    blue, member = await world.network(), await world.client()
    outside = await world.network("outside", project=OTHER, external_for=("*",))
    id = (await world.boot(member, networks=[{"uuid": blue}]))["id"]
    [port] = await world.ports(device_id=id)
    inside = port.fixed_ips[0].ip_address

    async def network(path, body, method="POST"):
        return (await world.served.call(method, f"/networking/v2.0{path}", body, token=member.token)).json

    asked = {"external_gateway_info": {"network_id": outside}}
    router = (await network("/routers", {"router": asked}))["router"]["id"]
    floating = (await network("/floatingips", {"floatingip": {"floating_network_id": outside}}))["floatingip"]
    ip = floating["floating_ip_address"]
    assert "Unable to associate floating IP" in await act(member, id, "addFloatingIp", 400, address=ip)
    await network(f"/routers/{router}/add_router_interface", {"subnet_id": port.fixed_ips[0].subnet_id}, "PUT")
    assert await act(member, id, "addFloatingIp", 404, address="192.0.2.1") == "floating IP not found"
    wrong = await act(member, id, "addFloatingIp", 400, address=ip, fixed_address="10.9.9.9")
    assert wrong == "Specified fixed address not assigned to instance"
    assert "is not associated with instance" in await act(member, id, "removeFloatingIp", 409, address=ip)
    await act(member, id, "addFloatingIp", address=ip)
    await shows(world, member, id, (inside, "fixed"), (ip, "floating"))
    await act(member, id, "removeFloatingIp", address=ip)
    await shows(world, member, id, (inside, "fixed"))
    await act(member, id, "addFloatingIp", address=ip, fixed_address=inside)
    await member("DELETE", f"/servers/{id}", expect=204)
    await world.gone(member, id)
    left = (await network("/floatingips", None, "GET"))["floatingips"]
    assert [(it["port_id"], it["status"]) for it in left] == [(None, "DOWN")]
