"""Errands in guests, and looks into them: passwords, crash dumps, diagnostics, topology. On simulated hosts."""

import pytest

from api.compute.server_topology import view
from handlers.compute.server import SERVERS
from schema.compute.errand import CrashDumpTriggered, ServerPasswordChanged
from schema.compute.server_command import ChangeServerPassword, TriggerCrashDump
from schema.compute.topology import GuestCell, Topology
from tests.compute.test_server import requested, running
from tests.story import Story

WITH_AGENT = "22222222-2222-4222-8222-222222222222"
server = Story(SERVERS, "7f0a8d4e-0000-4000-8000-000000000001")


def test_an_errand_is_recorded_once():
    given = server.given(*running)
    given.when(ChangeServerPassword(request_id="r")).then(ServerPasswordChanged(request_id="r"))
    given.when(TriggerCrashDump(request_id="s")).then(CrashDumpTriggered(request_id="s"))
    server.given(requested).when(ChangeServerPassword(request_id="r")).refused("while it is in vm_state building")


def test_a_topology_tells_administrators_where_it_is():
    cells = (GuestCell(id=0, host_cell=1, cpus=(0, 1), memory_mb=512, page_kib=2048, pins={0: 4, 1: 5}),)
    cell = {"memory_mb": 512, "vcpu_set": [0, 1], "siblings": []}
    assert view(Topology(cells=cells), whole=False) == {"nodes": [cell], "pagesize_kb": 2048}
    told = view(Topology(cells=cells), whole=True)["nodes"]
    assert told == [cell | {"host_node": 1, "cpu_pinning": {"0": 4, "1": 5}}]
    assert view(Topology(cells=cells, numa=False), whole=True) == {"nodes": [], "pagesize_kb": None}


@pytest.fixture
async def member(world):
    return await world.client()


@pytest.fixture
async def id(world, member):
    return (await world.boot(member))["id"]


async def actions(client, id):
    shown = (await client("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    return [action["action"] for action in shown]


async def console(client, id):
    return (await client("POST", f"/servers/{id}/action", {"os-getConsoleOutput": {}}))["output"]


async def test_a_crash_dump_is_triggered(world, member, id):
    path, body = f"/servers/{id}/action", {"trigger_crash_dump": None}
    await member("POST", path, body, expect=202)
    assert "NMI" in await console(member, id)
    assert (await actions(member, id))[0] == "trigger_crash_dump"
    await member("POST", path, body, expect=404, version="2.16")
    await member("POST", path, {"lock": None}, expect=202)
    admin = await world.client("admin")
    await admin("POST", path, {"lock": None}, expect=202)
    assert "is locked" in (await member("POST", path, body, expect=409))["conflictingRequest"]["message"]
    await admin("POST", path, {"unlock": None}, expect=202)
    await member("POST", path, {"os-stop": None}, expect=202)
    await world.becomes(member, id, "SHUTOFF")
    refusal = (await member("POST", path, body, expect=409))["conflictingRequest"]["message"]
    assert refusal == f"Cannot 'trigger_crash_dump' server {id} while it is in vm_state stopped"


async def test_a_password_takes_an_agent(world, member, id):
    body = {"changePassword": {"adminPass": "pass-word-1"}}
    refusal = await member("POST", f"/servers/{id}/action", body, expect=409)
    assert refusal["conflictingRequest"]["message"].startswith(f"Failed to set admin password on {id}")
    await world.image(WITH_AGENT, properties={"hw_qemu_guest_agent": "yes", "os_admin_user": "ada"})
    agile = (await world.boot(member, imageRef=WITH_AGENT))["id"]
    await member("POST", f"/servers/{agile}/action", body, expect=202)
    assert "ada has another password" in await console(member, agile)
    assert (await actions(member, agile))[0] == "changePassword"
    action, *_ = (await member("GET", f"/servers/{agile}/os-instance-actions"))["instanceActions"]
    shown = await member("GET", f"/servers/{agile}/os-instance-actions/{action['request_id']}")
    [part] = shown["instanceAction"]["events"]
    assert (part["event"], part["result"]) == ("compute_set_admin_password", "Success")
    rows = await world.cloud.pool.fetch("SELECT data::text FROM events")
    assert not any("pass-word-1" in row[0] for row in rows)
    await member("POST", f"/servers/{agile}/action", {"changePassword": {}}, expect=400)


async def test_diagnostics_are_for_administrators(world, member, id):
    admin = await world.client("admin")
    path = f"/servers/{id}/diagnostics"
    await member("GET", path, expect=403)
    shown = await admin("GET", path, version="2.48")
    assert shown["state"] == "running"
    assert (shown["num_cpus"], shown["num_disks"], shown["num_nics"]) == (1, 1, 0)
    assert shown["memory_details"] == {"maximum": 512, "used": 512}
    assert shown["uptime"] >= 0
    old = await admin("GET", path, version="2.47")
    assert old["cpu0_time"] == 0
    assert {"vda_read", "vda_write_req", "vda_errors", "memory"} <= old.keys()
    await member("POST", f"/servers/{id}/action", {"os-stop": None}, expect=202)
    await world.becomes(member, id, "SHUTOFF")
    refusal = (await admin("GET", path, expect=409))["conflictingRequest"]["message"]
    assert refusal == f"Cannot 'get_diagnostics' instance {id} while it is in power state shutdown"


async def test_a_topology_without_numa(member, id):
    assert await member("GET", f"/servers/{id}/topology") == {"nodes": [], "pagesize_kb": None}
    await member("GET", f"/servers/{id}/topology", expect=404, version="2.77")
