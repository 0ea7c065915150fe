"""What differs between servers, claims, ports and hosts is named; what is under way is left alone."""

import asyncio

import pytest
from msgspec.structs import replace

from api.compute.service import SERVICE as COMPUTE
from api.log.service import SERVICE as LOG
from bus import clock
from bus.execute import Wish
from handlers.compute.drift import Kind, drifts, held_otherwise, left_behind
from handlers.compute.healing import Healing, settled_drift
from handlers.network.port import PORTS
from handlers.placement.claims import claim
from handlers.placement.provider import PROVIDERS
from schema.compute.domain import Observed
from schema.compute.host import Host
from schema.compute.nic import ServerNic
from schema.compute.question import Leftover
from schema.compute.server_state import Server
from schema.compute.task import PowerState, Task, VmState
from schema.network.port_command import BindPort
from schema.network.port_state import Binding, Port
from schema.placement.provider import Provider, Release
from tests.compute.networked import networked
from tests.compute.world import PROJECT

NOW = clock.now()
HOST = Host(id="h1", provider_id="p1", created_at=NOW)
SERVER = Server(
    id="s1", parent_id="h1", created_at=NOW, vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, nics=()
)
PROVIDER = Provider(id="p1", created_at=NOW, claims={"s1": {"VCPU": 1}})


def kinds(server=SERVER, provider=PROVIDER, ports=()):
    return [it.kind for it in drifts({"s1": server}, [HOST], {"p1": provider}, {it.id: it for it in ports})]


def test_where_all_say_the_same_nothing_is_named():
    assert kinds() == []


def test_a_claim_of_a_deleted_server_is_an_orphan():
    assert kinds(replace(SERVER, deleted_at=NOW, vm_state=VmState.DELETED)) == [Kind.ORPHAN_CLAIM]


def test_a_server_without_a_claim_is_named_unless_something_is_under_way():
    nothing = replace(PROVIDER, claims={})
    assert kinds(provider=nothing) == [Kind.NO_CLAIM]
    assert kinds(replace(SERVER, task=Task.DELETING), nothing) == []


def test_a_guest_that_does_not_what_it_should_is_named():
    assert kinds(replace(SERVER, power_state=PowerState.SHUTDOWN)) == [Kind.WRONG_POWER]


def test_a_server_on_a_host_there_is_none_of_is_named():
    assert kinds(replace(SERVER, parent_id="h9")) == [Kind.NO_HOST]


def test_a_port_on_another_host_is_named():
    server = replace(
        SERVER, nics=(ServerNic(port_id="n1", network_id="n", label="net", mac_address="fa:16:3e:00:00:01"),)
    )
    port = Port(id="n1", created_at=NOW, binding=Binding(host="h2"))
    assert kinds(server, ports=[port]) == [Kind.PORT_ELSEWHERE]
    assert kinds(server, ports=[replace(port, binding=Binding(host="h1"))]) == []


def held(*guests, server=SERVER):
    there = {it.server_id: it for it in guests}
    return [it.kind for it in held_otherwise(HOST, {"s1": replace(server, launched_at=NOW, generation=3)}, there)]


@pytest.mark.parametrize(
    "guest, kind",
    [
        (Observed(server_id="s1", power="running", generation=3), []),
        (Observed(server_id="s1", power="stopped", generation=3), [Kind.WRONG_POWER]),
        (Observed(server_id="s1", power="running", generation=2), [Kind.OUTDATED]),
        (Observed(server_id="s1", generation=3), [Kind.MISSING]),
    ],
)
def test_what_a_host_holds_is_held_against_what_it_should(guest, kind):
    assert held(guest) == kind


def test_a_guest_that_is_no_server_of_the_hosts_own_is_unknown():
    mine = Observed(server_id="s1", power="running", generation=3)
    stranger = Observed(server_id="s2", power="running")
    assert held(mine, stranger) == [Kind.UNKNOWN]
    assert held(mine, replace(stranger, power="absent")) == [Kind.LEFTOVER]
    assert held(mine, replace(mine, server_id="s2", power="absent", sent=True)) == [Kind.LEFTOVER]
    assert held(mine, server=replace(SERVER, parent_id="h2")) == [Kind.UNKNOWN]
    assert held(mine, server=replace(SERVER, parent_id="h2", task=Task.REBOOTING)) == []


def test_a_host_that_does_not_say_what_it_holds_is_named():
    assert [it.kind for it in held_otherwise(HOST, {}, None)] == [Kind.SILENT_HOST]


def left(file, server=SERVER):
    return [(it.kind, it.file) for it in left_behind(HOST, {"s1": server}, [file])]


TPM = Leftover(name="/swtpm/s1", server_id="s1", size_bytes=4096)
COPY = Leftover(name="/guests/s1/copy", server_id="s1", held=True)


def test_a_file_of_a_server_that_is_gone_or_elsewhere_is_left_over():
    named = [(Kind.LEFTOVER_FILE, TPM.name)]
    assert left(TPM, replace(SERVER, deleted_at=NOW, vm_state=VmState.DELETED)) == named
    assert left(TPM, replace(SERVER, parent_id="h2")) == named
    assert left(replace(TPM, server_id="")) == left(replace(TPM, server_id="s9")) == named
    shared = replace(TPM, shared=True)
    assert left(shared, replace(SERVER, parent_id="h2")) == []  # whoever that is: it may be its disk
    assert left(shared, replace(SERVER, parent_id=None, vm_state=VmState.SHELVED_OFFLOADED)) == named
    assert left(TPM) == []  # its own: the guest is missing, and may want it when it is back


def test_a_file_that_its_own_guest_has_no_use_for_is_left_over_unless_something_is_under_way():
    assert left(COPY) == [(Kind.LEFTOVER_FILE, COPY.name)]
    assert left(COPY, replace(SERVER, task=Task.IMAGE_SNAPSHOT)) == []


async def test_one_host_looks_at_what_all_share(settings, fresh_database, tmp_path, monkeypatch):
    settings = replace(settings, shared_storage=tmp_path)
    async with networked(settings, fresh_database, (COMPUTE, LOG)) as world:
        asked = {}
        for name, driver in world.steered.drivers.items():
            monkeypatch.setattr(driver, "leftovers", _noting(asked, name))
        await settled_drift(world.cloud)
        assert asked == {"h1": ("h1", "h2"), "h2": ()}


def _noting(asked, name):
    async def leftovers(hosts=()):
        asked[name] = hosts
        return []

    return leftovers


async def test_drift_is_told_to_administrators_only(settings, fresh_database):
    async with networked(settings, fresh_database, (COMPUTE, LOG)) as world:
        member, call = await world.client(), world.served.call
        await world.network()
        id = (await world.boot(member))["id"]
        admin = await world.served.token("admin")
        assert (await call("GET", "/log/v1/drift", token=admin)).json == {"drift": []}
        assert (await call("GET", "/log/v1/drift", token=await world.served.token())).status == 403
        server = await world.steered.state(id)
        await world.cloud.executor.execute(Wish(PROVIDERS, server.provider_id, Release(consumer_id=id)))
        [found] = (await call("GET", "/log/v1/drift", token=admin)).json["drift"]
        assert (found["kind"], found["host"], found["server"]) == ("no-claim", server.host, id)
        # A guest that the agent cannot be rid of, since nobody has told it to: found by asking its host.
        driver = world.steered.drivers[server.host]
        mine = driver.domains[id]
        driver.domains["stranger"] = replace(mine, seen=replace(mine.seen, server_id="stranger"))
        found = (await call("GET", "/log/v1/drift", token=admin)).json["drift"]
        assert {it["kind"] for it in found} >= {"no-claim", "unknown"}


async def test_what_can_be_healed_is_by_setting(settings, fresh_database):
    settings = replace(settings, drift="heal", drift_seconds=1.0)
    async with networked(settings, fresh_database, (COMPUTE, LOG)) as world:
        member, cloud = await world.client(), world.cloud
        networks = [{"uuid": await world.network()}]
        gone, id, unclaimed = [(await world.boot(member, networks=networks))["id"] for _ in range(3)]
        await member("DELETE", f"/servers/{unclaimed}", expect=204)
        await world.gone(member, unclaimed)
        was = await world.steered.state(gone)
        await member("DELETE", f"/servers/{gone}", expect=204)
        await world.gone(member, gone)
        server = await world.steered.state(id)
        other = "h2" if server.host == "h1" else "h1"
        await cloud.executor.execute(
            *claim(gone, {was.provider_id: {"VCPU": 1}}, PROJECT, "ada"),
            Wish(PORTS, server.nics[0].port_id, BindPort(host=other, vif_type="bridge")),
        )
        mine = world.steered.drivers[server.host].domains[id]
        stray = replace(mine, seen=replace(mine.seen, server_id=gone))
        world.steered.drivers[other].domains[gone] = stray
        left = replace(stray.seen, server_id=unclaimed, power="absent")
        world.steered.drivers[other].domains[unclaimed] = replace(stray, seen=left)
        unknown = Leftover(name="/guests/notes.txt")
        world.steered.drivers[other].files = [replace(TPM, server_id=gone), replace(COPY, server_id=id), unknown]
        seen = await settled_drift(cloud)
        assert {it.kind for it in seen.found} >= {Kind.ORPHAN_CLAIM, Kind.PORT_ELSEWHERE, Kind.LEFTOVER}
        assert [it.kind for it in seen.found].count(Kind.LEFTOVER_FILE) == 3
        healing = Healing(cloud, world.steered.reactor.telling)
        async with asyncio.timeout(15):
            while [it.file for it in seen.found] != [unknown.name]:  # whose that is a person must find out
                await healing.heal(seen)
                seen = await settled_drift(cloud)
        assert not {gone, unclaimed} & world.steered.drivers[other].domains.keys()
        [port] = await world.ports(device_id=id)
        assert port.host == server.host


async def test_a_guest_that_strayed_is_brought_back_to_what_the_log_says(settings, fresh_database):
    """Both where its host told of it, and the server stayed what it is, and where it did not."""
    async with networked(settings, fresh_database, (COMPUTE, LOG)) as world:
        member, cloud = await world.client(), world.cloud
        rescued, paused = [(await world.boot(member))["id"] for _ in range(2)]
        await member("POST", f"/servers/{rescued}/action", {"rescue": None}, expect=200)
        await world.becomes(member, rescued, "RESCUE")
        await member("POST", f"/servers/{paused}/action", {"pause": None}, expect=202)
        await world.becomes(member, paused, "PAUSED")
        hosts = {id: (await world.steered.state(id)).host for id in (rescued, paused)}
        guests = {id: world.steered.drivers[host].domains[id] for id, host in hosts.items()}
        world.steered.drivers[hosts[rescued]].lose_power(rescued)
        await world.steered.sees(rescued, lambda state: state.power_state is PowerState.SHUTDOWN)
        guests[paused].seen = replace(guests[paused].seen, power="running")
        seen = await settled_drift(cloud)
        assert {(it.kind, it.server_id) for it in seen.found} == {(Kind.WRONG_POWER, id) for id in guests}
        healing = Healing(cloud, world.steered.reactor.telling)
        await healing.heal(seen)
        await world.steered.until(lambda: guests[rescued].seen.power == "running")
        await world.steered.until(lambda: guests[paused].seen.power == "paused")
        await world.steered.sees(rescued, lambda state: state.power_state is PowerState.RUNNING)
        assert (await world.steered.state(rescued)).vm_state is VmState.RESCUED
        assert (await world.steered.state(paused)).vm_state is VmState.PAUSED
        await healing.heal(seen)
        assert (await settled_drift(cloud)).found == []
