"""Several bindings of a port over HTTP: what a live migration does with them."""

import pytest

from api.network.service import SERVICE
from bus.execute import Wish
from handlers.network.host import NETWORK_HOSTS
from handlers.network.port import PORTS
from schema.network.host import RegisterNetworkHost
from schema.network.port_command import ReportPortWired
from schema.network.wiring import NetworkHostFacts
from tests.network.routed import Client, network
from tests.serving import serving


@pytest.fixture
async def served(settings, fresh_database):
    async with serving(settings, fresh_database, [SERVICE]) as it:
        for host in ("h1", "h2"):
            facts = NetworkHostFacts(endpoint_ip=f"172.31.0.{host[1]}")
            await it.cloud.executor.execute(
                Wish(NETWORK_HOSTS, host, RegisterNetworkHost(agent_id=f"agent-{host}", facts=facts))
            )
        yield it


@pytest.fixture
async def port(served, admin):
    """A guest's port on h1."""
    body = {
        "network_id": await network(served.cloud),
        "device_owner": "compute:nova",
        "device_id": "guest",
        "binding:host_id": "h1",
    }
    return (await admin("POST", "/ports", {"port": body}, expect=201))["port"]


async def test_a_port_moves_by_its_bindings(served, admin, port):
    assert (port["binding:host_id"], port["binding:vif_type"]) == ("h1", "bridge")
    path = f"/ports/{port['id']}/bindings"
    [active] = (await admin("GET", path))["bindings"]
    assert (active["host"], active["status"], active["vif_type"]) == ("h1", "ACTIVE", "bridge")
    made = (await admin("POST", path, {"binding": {"host": "h2", "profile": {"a": 1}}}, expect=201))["binding"]
    assert (made["host"], made["status"], made["profile"]) == ("h2", "INACTIVE", {"a": 1})
    await admin.refused("POST", path, {"binding": {"host": "h2"}}, 409, "PortBindingAlreadyExists")
    await admin.refused("POST", path, {"binding": {"host": "h1"}}, 409, "PortBindingAlreadyExists")
    await admin.refused("POST", path, {"binding": {"host": "h9"}}, 409, "PortBindingError")
    assert (made["vif_details"]["wired"], "wired" in active["vif_details"]) == (False, False)
    ready = ReportPortWired(host="h2", generation=100, up=True)
    await served.cloud.executor.execute(Wish(PORTS, port["id"], ready))
    assert (await admin("GET", f"{path}/h2"))["binding"]["vif_details"]["wired"] is True
    changed = await admin("PUT", f"{path}/h2", {"binding": {"vnic_type": "direct"}})
    assert (changed["binding"]["vnic_type"], changed["binding"]["profile"]) == ("direct", {"a": 1})
    assert (await admin("GET", f"{path}/h2"))["binding"] == changed["binding"]
    await admin.refused("PUT", f"{path}/h1/activate", None, 409, "PortBindingAlreadyActive")
    await admin.refused("PUT", f"{path}/h9/activate", None, 404, "PortBindingNotFound")
    activated = await admin("PUT", f"{path}/h2/activate")
    assert (activated["host"], activated["status"]) == ("h2", "ACTIVE")
    assert (await admin("GET", f"/ports/{port['id']}"))["port"]["binding:host_id"] == "h2"
    assert [it["host"] for it in (await admin("GET", f"{path}?status=INACTIVE"))["bindings"]] == ["h1"]
    await admin("DELETE", f"{path}/h1", expect=204)
    await admin.refused("DELETE", f"{path}/h1", None, 404, "PortBindingNotFound")
    assert await admin("GET", f"{path}?fields=host") == {"bindings": [{"host": "h2"}]}
    await admin("DELETE", f"{path}/h2", expect=204)
    assert (await admin("GET", path))["bindings"] == []
    first = (await admin("POST", path, {"binding": {"host": "h1"}}, expect=201))["binding"]
    assert first["status"] == "ACTIVE"


async def test_bindings_are_for_administrators_and_guests_ports(served, admin, port):
    member = Client(served, await served.token("member"))
    await member.refused("GET", f"/ports/{port['id']}/bindings", None, 403, "PolicyNotAuthorized")
    body = {"port": {"network_id": port["network_id"]}}
    other = (await admin("POST", "/ports", body, expect=201))["port"]
    path = f"/ports/{other['id']}/bindings"
    await admin.refused("POST", path, {"binding": {"host": "h1"}}, 400, "BadRequest")
    await admin.refused("GET", f"/ports/{other['id'][:-1]}x/bindings", None, 404, "PortNotFound")
