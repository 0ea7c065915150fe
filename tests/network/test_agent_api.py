"""Agents over HTTP: what operators see of network hosts, and what they may move by hand."""

import pytest

from bus.execute import Wish
from handlers.network.host import NETWORK_HOSTS
from schema.network.host import LoseNetworkHost, RegisterNetworkHost
from schema.network.wiring import NetworkHostFacts
from tests.network.routed import Client, network, subnet


@pytest.fixture
async def hosts(served):
    for number, name in enumerate(("net-1", "net-2"), 1):
        facts = NetworkHostFacts(endpoint_ip=f"10.9.0.{number}", physical_networks=("external",))
        command = RegisterNetworkHost(agent_id=f"agent-{name}", facts=facts)
        await served.cloud.executor.execute(Wish(NETWORK_HOSTS, name, command))


async def _agents(admin, query=""):
    return (await admin("GET", f"/agents{query}"))["agents"]


async def test_a_host_is_shown_as_the_agents_it_stands_for(hosts, admin, served):
    found = await _agents(admin)
    kinds = ["Linux bridge agent", "L3 agent", "DHCP agent", "Metadata agent"]
    assert [(it["host"], it["agent_type"]) for it in found] == [(h, k) for h in ("net-1", "net-2") for k in kinds]
    assert all(it["alive"] and it["admin_state_up"] for it in found)
    assert found[0]["configurations"]["tunneling_ip"] == "10.9.0.1"
    assert await _agents(admin, "?agent_type=L3%20Agent&host=net-2") == [found[5]]
    assert await admin("GET", f"/agents/{found[5]['id']}?fields=binary") == {"agent": {"binary": "neutron-l3-agent"}}
    await served.cloud.executor.execute(Wish(NETWORK_HOSTS, "net-1", LoseNetworkHost(epoch=1, silent_seconds=6)))
    assert {it["host"] for it in await _agents(admin, "?alive=false")} == {"net-1"}
    await admin.refused("GET", "/agents/nothing", None, 404, "AgentNotFound")
    await admin.refused("GET", "/agents?colour=red", None, 400, "HTTPBadRequest")


async def test_only_operators_see_agents(hosts, served):
    member = Client(served, await served.token("member"))
    assert await member("GET", "/agents") == {"agents": []}
    [agent, *_] = (await Client(served, await served.token("admin"))("GET", "/agents"))["agents"]
    await member.refused("GET", f"/agents/{agent['id']}", None, 403, "PolicyNotAuthorized")


async def test_an_agent_is_switched_off_described_and_forgotten(hosts, admin):
    [agent] = await _agents(admin, "?host=net-1&binary=neutron-l3-agent")
    one = f"/agents/{agent['id']}"
    changed = (await admin("PUT", one, {"agent": {"admin_state_up": False, "description": "old"}}))["agent"]
    assert (changed["admin_state_up"], changed["description"]) == (False, "old")
    assert (await admin("GET", one))["agent"]["description"] == "old"
    assert (await admin("PUT", one, {"agent": {"description": None}}))["agent"]["description"] is None
    await admin("DELETE", one, expect=204)
    assert {it["host"] for it in await _agents(admin)} == {"net-2"}


async def test_routers_are_put_on_hosts_by_hand(hosts, admin, served):
    inner = await network(served.cloud)
    inner_subnet = await subnet(served.cloud, inner, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.9")
    router = (await admin("POST", "/routers", {"router": {"name": "r"}}, expect=201))["router"]["id"]
    await admin("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": inner_subnet})
    [first] = await _agents(admin, "?host=net-1&binary=neutron-l3-agent")
    [second] = await _agents(admin, "?host=net-2&binary=neutron-l3-agent")
    [dhcp] = await _agents(admin, "?host=net-1&binary=neutron-dhcp-agent")
    assert await admin("GET", f"/routers/{router}/l3-agents") == {"agents": []}
    await admin("POST", f"/agents/{first['id']}/l3-routers", {"router_id": router}, expect=201)
    assert (await admin("GET", f"/routers/{router}/l3-agents"))["agents"][0]["id"] == first["id"]
    assert (await admin("GET", f"/agents/{first['id']}/l3-routers"))["routers"][0]["id"] == router
    for agent in (first, second):
        body = {"router_id": router}
        await admin.refused("POST", f"/agents/{agent['id']}/l3-routers", body, 409, "RouterHostedByL3Agent")
    await admin.refused("POST", f"/agents/{dhcp['id']}/l3-routers", {"router_id": router}, 409, "InvalidL3Agent")
    gone = f"/agents/{second['id']}/l3-routers/{router}"
    await admin.refused("DELETE", gone, None, 409, "RouterNotHostedByL3Agent")
    await admin("DELETE", f"/agents/{first['id']}/l3-routers/{router}", expect=204)
    assert await admin("GET", f"/agents/{first['id']}/l3-routers") == {"routers": []}


async def test_networks_are_where_their_ports_are(hosts, admin, served):
    made = (await admin("POST", "/networks", {"network": {"name": "n"}}, expect=201))["network"]["id"]
    [dhcp] = await _agents(admin, "?host=net-1&binary=neutron-dhcp-agent")
    assert await admin("GET", f"/networks/{made}/dhcp-agents") == {"agents": []}
    body = {"network_id": made}
    await admin.refused("POST", f"/agents/{dhcp['id']}/dhcp-networks", body, 409, "InvalidDHCPAgent")
    port = {"network_id": made, "binding:host_id": "net-1", "device_owner": "compute:nova", "device_id": "s"}
    await admin("POST", "/ports", {"port": port}, expect=201)
    while not (await admin("GET", f"/networks/{made}/dhcp-agents"))["agents"]:
        pass
    assert [it["id"] for it in (await admin("GET", f"/agents/{dhcp['id']}/dhcp-networks"))["networks"]] == [made]
    await admin.refused("POST", f"/agents/{dhcp['id']}/dhcp-networks", body, 409, "NetworkHostedByDHCPAgent")
