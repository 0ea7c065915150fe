"""Floating IPs and port forwardings over HTTP: what Neutron's clients rely on."""

import asyncio
import uuid

import pytest

from api.network.service import SERVICE
from bus.execute import Wish
from handlers.network.addressing import unmaking
from handlers.network.leading import freeing
from handlers.network.port import PORTS
from schema.network.port import PORT
from schema.network.port_command import UpdatePort
from schema.network.router import ROUTER
from tests.network.routed import Client, addresses, network, port, subnet
from tests.serving import serving


class Site:
    """An outside network, an inner one behind a router, and a guest's port in that."""

    def __init__(self, served, member, admin):
        self.cloud = served.cloud
        self.served = served
        self.member = member
        self.admin = admin

    async def build(self):
        self.outside = await network(self.cloud, external=True, project="operators")
        await subnet(
            self.cloud, self.outside, "203.0.113.0/26", "203.0.113.1", "203.0.113.2", "203.0.113.62", "operators"
        )
        self.network = await network(self.cloud)
        self.subnet = await subnet(self.cloud, self.network, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")
        self.port = await port(self.cloud, self.network, {self.subnet: "10.0.0.5"})
        body = {"router": {"external_gateway_info": {"network_id": self.outside}}}
        self.router = (await self.member("POST", "/routers", body, expect=201))["router"]["id"]
        await self.member("PUT", f"/routers/{self.router}/add_router_interface", {"subnet_id": self.subnet})

    async def make(self, client=None, **fields):
        body = {"floatingip": {"floating_network_id": self.outside, **fields}}
        return (await (client or self.member)("POST", "/floatingips", body, expect=201))["floatingip"]

    async def put(self, id, **fields):
        return (await self.member("PUT", f"/floatingips/{id}", {"floatingip": fields}))["floatingip"]

    async def outer_ports(self):
        return [it for it in await self.cloud.documents.find(PORT) if it.state.device_owner == "network:floatingip"]


@pytest.fixture
async def site(settings, fresh_database):
    async with serving(settings, fresh_database, [SERVICE]) as served:
        site = Site(served, Client(served, await served.token("member")), Client(served, await served.token("admin")))
        await site.build()
        yield site


async def test_where_floating_ips_come_from(site):
    await network(site.cloud, external=True, project="operators")
    inside = await network(site.cloud)
    await subnet(site.cloud, inside, "10.1.0.0/24", "10.1.0.1", "10.1.0.2", "10.1.0.254")
    [pool] = (await site.member("GET", "/floatingip_pools"))["floatingip_pools"]
    assert (pool["network_id"], pool["cidr"]) == (site.outside, "203.0.113.0/26")
    assert (await site.member("GET", "/floatingip-pools?cidr=10.0.0.0/8"))["floatingip_pools"] == []
    made = await site.make(subnet_id=pool["subnet_id"])
    assert made["floating_ip_address"].startswith("203.0.113.")


async def test_a_floating_ips_life(site):
    made = await site.make(description="web")
    assert (made["status"], made["port_id"], made["router_id"], made["fixed_ip_address"]) == ("DOWN", None, None, None)
    assert made["floating_network_id"] == site.outside
    assert made["port_forwardings"] == []
    [outer] = await site.outer_ports()
    assert outer.state.device_id == made["id"]
    assert [it.ip_address for it in outer.state.fixed_ips] == [made["floating_ip_address"]]
    given = await site.put(made["id"], port_id=site.port)
    assert (given["port_id"], given["fixed_ip_address"]) == (site.port, "10.0.0.5")
    assert (given["router_id"], given["status"]) == (site.router, "ACTIVE")
    assert given["port_details"]["network_id"] == site.network
    named = await site.put(made["id"], description="shop")
    assert (named["description"], named["port_id"]) == ("shop", site.port)
    listed = (await site.member("GET", f"/floatingips?port_id={site.port}"))["floatingips"]
    assert [it["id"] for it in listed] == [made["id"]]
    assert (await site.put(made["id"]))["port_id"] is None  # a change of nothing frees it
    assert (await site.put(made["id"], port_id=site.port))["port_id"] == site.port
    free = await site.put(made["id"], port_id=None)
    assert (free["status"], free["port_id"], free["router_id"], free["port_details"]) == ("DOWN", None, None, None)
    await site.member("DELETE", f"/floatingips/{made['id']}", expect=204)
    assert await site.outer_ports() == []
    await site.member.refused("GET", f"/floatingips/{made['id']}", None, 404, "FloatingIPNotFound")


async def test_it_may_be_made_for_a_port(site):
    made = await site.make(port_id=site.port)
    assert (made["status"], made["router_id"]) == ("ACTIVE", site.router)
    body = {"floatingip": {"floating_network_id": site.outside, "port_id": site.port}}
    await site.member.refused("POST", "/floatingips", body, 409, "FloatingIPPortAlreadyAssociated")
    other = await site.make()
    path = f"/floatingips/{other['id']}"
    await site.member.refused(
        "PUT", path, {"floatingip": {"port_id": site.port}}, 409, "FloatingIPPortAlreadyAssociated"
    )
    assert len(await site.outer_ports()) == 2


async def test_what_it_leads_through_stays(site):
    made = await site.make(port_id=site.port)
    one = f"/routers/{site.router}"
    await site.member.refused(
        "PUT", f"{one}/remove_router_interface", {"subnet_id": site.subnet}, 409, "RouterInterfaceInUseByFloatingIP"
    )
    await site.member.refused(
        "PUT", one, {"router": {"external_gateway_info": None}}, 409, "RouterExternalGatewayInUseByFloatingIp"
    )
    await site.member("DELETE", f"/floatingips/{made['id']}", expect=204)
    await site.member("PUT", f"{one}/remove_router_interface", {"subnet_id": site.subnet})
    await site.member("DELETE", one, expect=204)


async def test_it_leads_only_where_there_is_a_way(site):
    id = await network(site.cloud)
    apart = await port(
        site.cloud, id, {await subnet(site.cloud, id, "10.9.0.0/24", None, "10.9.0.2", "10.9.0.9"): "10.9.0.5"}
    )
    bare = await port(site.cloud, id, {})
    stranger = await port(site.cloud, site.network, {site.subnet: "10.0.0.9"}, project="q" * 32)
    hidden = await port(site.cloud, await network(site.cloud, project="q" * 32), {}, project="q" * 32)

    async def refused(status, type, **fields):
        body = {"floatingip": {"floating_network_id": site.outside, **fields}}
        return await site.member.refused("POST", "/floatingips", body, status, type)

    await refused(404, "ExternalGatewayForFloatingIPNotFound", port_id=apart)
    await refused(400, "BadRequest", port_id=bare)
    await refused(404, "PortNotFound", port_id=str(uuid.uuid4()))
    await refused(404, "PortNotFound", port_id=hidden)
    assert "different project" in await refused(400, "BadRequest", port_id=stranger)
    await refused(400, "BadRequest", port_id=site.port, fixed_ip_address="10.0.0.200")
    await refused(400, "BadRequest", fixed_ip_address="10.0.0.5")
    await refused(400, "BadRequest", floating_network_id=site.network)
    await refused(403, "PolicyNotAuthorized", floating_ip_address="203.0.113.40")
    assert await site.outer_ports() == []


async def test_a_port_with_two_addresses_needs_to_be_told_which(site):
    two = await port(site.cloud, site.network, {site.subnet: "10.0.0.20"})
    second = await subnet(site.cloud, site.network, "10.1.0.0/24", "10.1.0.1", "10.1.0.2", "10.1.0.254")
    await site.member("PUT", f"/routers/{site.router}/add_router_interface", {"subnet_id": second})
    document = await site.cloud.documents.get(PORT, two)
    fixed = (*document.state.fixed_ips, type(document.state.fixed_ips[0])(subnet_id=second, ip_address="10.1.0.20"))
    await site.cloud.executor.execute(Wish(PORTS, two, UpdatePort(fixed_ips=fixed)))
    made = await site.make()
    path = f"/floatingips/{made['id']}"
    assert "multiple" in await site.member.refused("PUT", path, {"floatingip": {"port_id": two}}, 400, "BadRequest")
    given = await site.put(made["id"], port_id=two, fixed_ip_address="10.1.0.20")
    assert given["fixed_ip_address"] == "10.1.0.20"
    moved = await site.put(made["id"], port_id=site.port)
    assert moved["port_id"] == site.port
    router = (await site.cloud.documents.get(ROUTER, site.router)).state
    assert router.floating == {made["id"]: (site.subnet,)}


async def test_an_operator_chooses_the_address(site):
    made = await site.make(site.admin, floating_ip_address="203.0.113.40")
    assert made["floating_ip_address"] == "203.0.113.40"
    body = {"floatingip": {"floating_network_id": site.outside, "floating_ip_address": "203.0.113.40"}}
    await site.admin.refused("POST", "/floatingips", body, 409, "IpAddressAlreadyAllocated")
    body["floatingip"]["floating_ip_address"] = "198.51.100.1"
    await site.admin.refused("POST", "/floatingips", body, 400, "InvalidIpForNetwork")


async def test_a_port_that_goes_leaves_its_floating_ip_behind(site):
    made = await site.make(port_id=site.port)
    other = await site.make()
    body = {"port_forwarding": _ssh(await port(site.cloud, site.network, {site.subnet: "10.0.0.7"}))}
    forwarded_to = body["port_forwarding"]["internal_port_id"]
    await site.member("POST", f"/floatingips/{other['id']}/port_forwardings", body, expect=201)
    ports = await site.cloud.documents.get_many(PORT, [site.port, forwarded_to])
    wishes = await freeing(site.cloud, list(ports))
    endings = [wish for document in ports.values() for wish in unmaking(document.state)]
    await site.cloud.executor.execute(*endings, *wishes)
    left = (await site.member("GET", f"/floatingips/{made['id']}"))["floatingip"]
    assert (left["port_id"], left["router_id"], left["status"]) == (None, None, "DOWN")
    left = (await site.member("GET", f"/floatingips/{other['id']}"))["floatingip"]
    assert (left["port_forwardings"], left["router_id"]) == ([], None)
    assert (await site.cloud.documents.get(ROUTER, site.router)).state.floating == {}


async def test_fifty_made_at_once_have_fifty_addresses(site):
    id = await network(site.cloud, external=True, project="operators")
    await subnet(site.cloud, id, "198.51.100.0/27", "198.51.100.1", "198.51.100.2", "198.51.100.30", "operators")
    body = {"floatingip": {"floating_network_id": id}}
    answers = await asyncio.gather(
        *(site.served.call("POST", "/networking/v2.0/floatingips", body, token=site.member.token) for _ in range(50))
    )
    made = [answer.json["floatingip"]["floating_ip_address"] for answer in answers if answer.status == 201]
    refused = [answer.json["NeutronError"]["type"] for answer in answers if answer.status != 201]
    assert len(made) == len(set(made)) == 29
    assert refused == ["ExternalIpAddressExhausted"] * 21
    assert {ip for ip in await addresses(site.cloud) if ip.startswith("198.51.100.")} == set(made)


def _ssh(port_id, **fields):
    return {
        "protocol": "tcp",
        "external_port": 2222,
        "internal_port": 22,
        "internal_port_id": port_id,
        "internal_ip_address": "10.0.0.7",
        **fields,
    }


async def test_ports_are_forwarded(site):
    inner = await port(site.cloud, site.network, {site.subnet: "10.0.0.7"})
    made = await site.make()
    path = f"/floatingips/{made['id']}/port_forwardings"
    first = (await site.member("POST", path, {"port_forwarding": _ssh(inner)}, expect=201))["port_forwarding"]
    assert (first["external_port"], first["internal_port"], first["protocol"]) == (2222, 22, "tcp")
    assert first["external_port_range"] == "2222:2222"
    many = _ssh(inner, protocol="udp", external_port_range="5000:5009", internal_port_range="6000:6009")
    del many["external_port"], many["internal_port"]
    second = (await site.member("POST", path, {"port_forwarding": many}, expect=201))["port_forwarding"]
    assert (second["external_port_range"], second["internal_port_range"]) == ("5000:5009", "6000:6009")
    shown = (await site.member("GET", f"/floatingips/{made['id']}"))["floatingip"]
    assert (shown["status"], shown["router_id"], len(shown["port_forwardings"])) == ("ACTIVE", site.router, 2)
    assert shown["port_forwardings"][0].keys() <= {
        "id",
        "protocol",
        "internal_ip_address",
        "internal_port",
        "external_port",
        "internal_port_id",
    }
    assert len((await site.member("GET", path))["port_forwardings"]) == 2
    assert len((await site.member("GET", f"{path}?external_port=2222"))["port_forwardings"]) == 1
    one = f"{path}/{first['id']}"
    changed = await site.member("PUT", one, {"port_forwarding": {"external_port": 2022, "description": "x"}})
    assert changed["port_forwarding"]["external_port"] == 2022
    assert (await site.member("GET", one))["port_forwarding"]["description"] == "x"
    await site.member.refused("DELETE", f"/floatingips/{made['id']}", None, 409, "FipInUseByPortForwarding")
    body = {"floatingip": {"port_id": site.port}}
    await site.member.refused("PUT", f"/floatingips/{made['id']}", body, 409, "FipInUseByPortForwarding")
    await site.member("DELETE", one, expect=204)
    await site.member.refused("GET", one, None, 404, "PortForwardingNotFound")
    await site.member("DELETE", f"{path}/{second['id']}", expect=204)
    await site.member("DELETE", f"/floatingips/{made['id']}", expect=204)
    assert (await site.cloud.documents.get(ROUTER, site.router)).state.floating == {}


async def test_forwardings_that_cannot_be_are_refused(site):
    inner = await port(site.cloud, site.network, {site.subnet: "10.0.0.7"})
    made, other = await site.make(), await site.make()
    path = f"/floatingips/{made['id']}/port_forwardings"
    await site.member("POST", path, {"port_forwarding": _ssh(inner)}, expect=201)

    async def refused(status, type, at=path, **fields):
        await site.member.refused("POST", at, {"port_forwarding": _ssh(inner, **fields)}, status, type)

    await refused(400, "BadRequest", internal_port=80)
    await refused(400, "BadRequest", external_port=80)
    await refused(400, "BadRequest", at=f"/floatingips/{other['id']}/port_forwardings")
    await refused(400, "HTTPBadRequest", external_port=70000)
    await refused(400, "HTTPBadRequest", external_port=80, protocol="icmp")
    await refused(400, "BadRequest", external_port=80, internal_port=80, internal_ip_address="10.0.0.99")
    await refused(400, "HTTPBadRequest", external_port_range="80:90")
    given = await site.make(port_id=site.port)
    elsewhere = f"/floatingips/{given['id']}/port_forwardings"
    await refused(409, "FloatingIPPortAlreadyAssociated", at=elsewhere, external_port=80, internal_port=80)
    fields = {"internal_port_id": site.port, "internal_ip_address": "10.0.0.5", "external_port": 80}
    await refused(409, "PortHasBindingFloatingIP", **fields)
    body = {"floatingip": {"port_id": inner}}
    await site.member.refused("PUT", f"/floatingips/{other['id']}", body, 409, "PortHasPortForwarding")


async def test_a_port_does_not_end_while_something_leads_to_it(site):
    """Associated and deleted at once, whoever is first: in the end the port is gone and nothing leads to it."""
    for _ in range(8):
        made = await site.make()
        body = {"port": {"network_id": site.network}}
        it = (await site.member("POST", "/ports", body, expect=201))["port"]["id"]
        change = {"floatingip": {"port_id": it}}
        await asyncio.gather(
            site.served.call("PUT", f"/networking/v2.0/floatingips/{made['id']}", change, token=site.member.token),
            site.member("DELETE", f"/ports/{it}", expect=204),
        )
        left = (await site.member("GET", f"/floatingips/{made['id']}"))["floatingip"]
        assert (left["port_id"], left["router_id"]) == (None, None)
