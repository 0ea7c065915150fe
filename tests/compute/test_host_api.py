"""Hypervisors, services, zones and aggregates as administrators see them."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from bus import clock
from bus.execute import Wish
from handlers.compute.lease import Hosts
from handlers.placement.provider import PROVIDERS
from schema.compute.domain import Heartbeat, HostFacts
from schema.compute.host import DISABLED_TRAIT, HOST
from schema.placement.provider import PROVIDER, Claim

FACTS = HostFacts(
    hypervisor_type="QEMU",
    hypervisor_version=7_002_000,
    vcpus=8,
    memory_mb=16_384,
    disk_gb=200,
    host_ip="10.0.0.7",
    cpu_info={"arch": "x86_64"},
)


@pytest.fixture
async def hosts(served):
    """h1 and h2 have registered."""
    ears = Hosts(served.cloud)
    for name in ("h1", "h2"):
        await ears.on_heartbeat(name, Heartbeat(host=name, epoch=0, facts=FACTS))
    return {name: served.cloud.mirror(HOST).get(name).state for name in ("h1", "h2")}


async def claim(served, host, consumer="c" * 36):
    resources = {"VCPU": 2, "MEMORY_MB": 1024, "DISK_GB": 20}
    await served.cloud.executor.execute(
        Wish(PROVIDERS, host.provider_id, Claim(consumer_id=consumer, resources=resources))
    )


async def test_hypervisors_are_listed_and_shown(client, served, hosts):
    admin = await client()
    await claim(served, hosts["h1"])
    listed = (await admin("GET", "/os-hypervisors"))["hypervisors"]
    assert [it["hypervisor_hostname"] for it in listed] == ["h1", "h2"]
    assert listed[0] == {
        "id": hosts["h1"].provider_id,
        "hypervisor_hostname": "h1",
        "state": "up",
        "status": "enabled",
    }
    path = f"/os-hypervisors/{hosts['h1'].provider_id}"
    older = (await admin("GET", path, version="2.53"))["hypervisor"]
    used = {name: older[name] for name in ("vcpus_used", "memory_mb_used", "local_gb_used", "running_vms")}
    assert used == {"vcpus_used": 2, "memory_mb_used": 1024 + 512, "local_gb_used": 20, "running_vms": 1}
    assert older["free_ram_mb"] == 16_384 - 1536
    assert older["cpu_info"] == {"arch": "x86_64"}
    assert older["service"] == {"id": hosts["h1"].service_id, "host": "h1", "disabled_reason": None}
    newer = (await admin("GET", path))["hypervisor"]
    assert "vcpus" not in newer
    assert newer["uptime"] is None
    await admin("GET", f"/os-hypervisors/{newer['id']}/uptime", expect=501, version="2.87")
    await admin("GET", "/os-hypervisors/nobody", expect=400)
    await admin("GET", "/os-hypervisors/nobody", expect=404, version="2.52")
    await admin("GET", f"/os-hypervisors/{clock.uuid4()}", expect=404)
    await admin("DELETE", "/os-services/nobody", expect=400)
    await admin("DELETE", "/os-services/nobody", expect=400, version="2.52")
    await admin("DELETE", f"/os-services/{clock.uuid4()}", expect=404)


async def test_a_hypervisor_tells_how_long_it_has_been_up(client, served, hosts):
    admin = await client()
    started = clock.now() - timedelta(days=3, hours=4, minutes=5, seconds=30)
    facts = replace(FACTS, booted_at=int(started.timestamp()))
    await Hosts(served.cloud).on_heartbeat("h1", Heartbeat(host="h1", epoch=1, facts=facts))
    path = f"/os-hypervisors/{hosts['h1'].provider_id}"
    assert (await admin("GET", path))["hypervisor"]["uptime"].endswith(" up 3 days,  4:05")
    told = (await admin("GET", f"{path}/uptime", version="2.87"))["hypervisor"]
    assert (told["hypervisor_hostname"], told["uptime"][-5:]) == ("h1", " 4:05")
    await admin("PUT", f"/os-services/{hosts['h1'].service_id}", {"forced_down": True})
    await admin("GET", f"{path}/uptime", expect=400, version="2.87")
    assert (await admin("GET", path))["hypervisor"]["uptime"] is None


async def test_older_hypervisors_have_numbers(client, hosts):
    admin = await client(version="2.1")
    [first, _] = (await admin("GET", "/os-hypervisors/detail"))["hypervisors"]
    assert isinstance(first["id"], int)
    assert first["cpu_info"] == '{"arch":"x86_64"}'
    assert (await admin("GET", f"/os-hypervisors/{first['id']}"))["hypervisor"] == first
    found = await admin("GET", "/os-hypervisors/h2/search")
    assert [it["hypervisor_hostname"] for it in found["hypervisors"]] == ["h2"]
    await admin("GET", "/os-hypervisors/nobody/search", expect=404)
    statistics = (await admin("GET", "/os-hypervisors/statistics"))["hypervisor_statistics"]
    assert (statistics["count"], statistics["vcpus"], statistics["memory_mb"]) == (2, 16, 32_768)
    await admin("GET", "/os-hypervisors/statistics", expect=404, version="2.88")


async def test_hypervisors_are_filtered_and_paged(client, hosts):
    admin = await client()
    one = await admin("GET", "/os-hypervisors?hypervisor_hostname_pattern=1&with_servers=true")
    assert [(it["hypervisor_hostname"], it["servers"]) for it in one["hypervisors"]] == [("h1", [])]
    await admin("GET", "/os-hypervisors?hypervisor_hostname_pattern=nobody", expect=404)
    first = await admin("GET", "/os-hypervisors?limit=1")
    rest = await admin("GET", first["hypervisors_links"][0]["href"].partition("/compute/v2.1")[2])
    assert [it["hypervisor_hostname"] for it in rest["hypervisors"]] == ["h2"]
    await admin("GET", "/os-hypervisors?marker=nobody", expect=400)


async def test_placement_says_of_a_host_that_it_is_disabled(client, served, hosts):
    admin = await client()
    path = f"/os-services/{hosts['h1'].service_id}"

    async def traits():
        return (await served.cloud.documents.get(PROVIDER, hosts["h1"].provider_id)).state.traits

    await admin("PUT", path, {"status": "disabled"})
    assert await traits() == (DISABLED_TRAIT,)
    facts = replace(FACTS, traits=("HW_CPU_X86_VMX",))
    await Hosts(served.cloud).on_heartbeat("h1", Heartbeat(host="h1", epoch=1, facts=facts))
    assert await traits() == (DISABLED_TRAIT, "HW_CPU_X86_VMX")
    await admin("PUT", path, {"status": "enabled"})
    assert await traits() == ("HW_CPU_X86_VMX",)


async def test_services_are_disabled_and_enabled(client, hosts):
    admin = await client()
    [first, second] = (await admin("GET", "/os-services?binary=nova-compute"))["services"]
    assert (first["host"], first["state"], first["status"], first["zone"]) == ("h1", "up", "enabled", "nova")
    path = f"/os-services/{first['id']}"
    changed = await admin("PUT", path, {"status": "disabled", "disabled_reason": "a fan"})
    assert (changed["service"]["status"], changed["service"]["disabled_reason"]) == ("disabled", "a fan")
    assert (await admin("GET", "/os-hypervisors"))["hypervisors"][0]["status"] == "disabled"
    assert (await admin("PUT", path, {"status": "enabled"}))["service"]["disabled_reason"] is None
    assert (await admin("PUT", path, {"forced_down": True}))["service"]["state"] == "down"
    assert (await admin("PUT", path, {"forced_down": False}))["service"]["state"] == "up"
    assert [it["host"] for it in (await admin("GET", "/os-services?host=h2"))["services"]] == [second["host"]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "sleeping"},
        {"status": "enabled", "disabled_reason": "x"},
        {"disabled_reason": "x"},
        {"status": "disabled", "disabled_reason": ""},
        {"status": "disabled", "disabled_reason": "x" * 256},
        {"forced_down": "perhaps"},
        {"colour": "red"},
    ],
)
async def test_bad_changes_of_services_are_refused(client, served, hosts, body):
    admin = await client()
    before = await served.cloud.log.head()
    await admin("PUT", f"/os-services/{hosts['h1'].service_id}", body, expect=400)
    assert await served.cloud.log.head() == before


async def test_services_had_older_ways(client, hosts):
    admin = await client(version="2.11")
    h1 = {"host": "h1", "binary": "nova-compute"}
    disabled = await admin("PUT", "/os-services/disable-log-reason", h1 | {"disabled_reason": "a fan"})
    assert disabled == {"service": h1 | {"status": "disabled", "disabled_reason": "a fan"}}
    assert await admin("PUT", "/os-services/enable", h1) == {"service": h1 | {"status": "enabled"}}
    assert await admin("PUT", "/os-services/force-down", h1 | {"forced_down": True}) == {
        "service": h1 | {"forced_down": True}
    }
    await admin("PUT", "/os-services/enable", {"host": "nobody", "binary": "nova-compute"}, expect=404)
    await admin("PUT", "/os-services/enable", {"host": "h1"}, expect=400)


async def test_a_service_without_servers_is_forgotten_with_its_provider(client, served, hosts):
    admin = await client()
    made = await admin("POST", "/os-aggregates", {"aggregate": {"name": "fast"}})
    await admin("POST", f"/os-aggregates/{made['aggregate']['id']}/action", {"add_host": {"host": "h1"}})
    await claim(served, hosts["h2"])
    await admin("DELETE", f"/os-services/{hosts['h1'].service_id}", expect=204)
    await admin("DELETE", f"/os-services/{hosts['h1'].service_id}", expect=404)
    await admin("DELETE", f"/os-services/{hosts['h2'].service_id}", expect=409)
    assert [it["hypervisor_hostname"] for it in (await admin("GET", "/os-hypervisors"))["hypervisors"]] == ["h2"]
    assert (await admin("GET", f"/os-aggregates/{made['aggregate']['id']}"))["aggregate"]["hosts"] == []
    await admin("DELETE", "/os-services/7", expect=400)


async def test_members_see_zones_and_no_hosts(client, hosts):
    member = await client("member")
    await member("GET", "/os-hypervisors", expect=403)
    await member("GET", "/os-services", expect=403)
    await member("GET", "/os-aggregates", expect=403)
    await member("GET", "/os-availability-zone/detail", expect=403)
    assert await member("GET", "/os-availability-zone") == {
        "availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}]
    }


async def test_an_aggregate_goes_through_life(client, hosts):
    admin = await client()
    made = (await admin("POST", "/os-aggregates", {"aggregate": {"name": "fast", "availability_zone": "north"}}))[
        "aggregate"
    ]
    assert (made["id"], made["name"], made["availability_zone"]) == (1, "fast", "north")
    path = "/os-aggregates/1"
    assert len(made["uuid"]) == 36
    added = (await admin("POST", f"{path}/action", {"add_host": {"host": "h1"}}))["aggregate"]
    assert (added["hosts"], added["metadata"]) == (["h1"], {"availability_zone": "north"})
    zones = (await admin("GET", "/os-availability-zone/detail"))["availabilityZoneInfo"]
    assert [(zone["zoneName"], list(zone["hosts"])) for zone in zones] == [("north", ["h1"]), ("nova", ["h2"])]
    meta = await admin("POST", f"{path}/action", {"set_metadata": {"metadata": {"ssd": "true"}}})
    assert meta["aggregate"]["metadata"] == {"availability_zone": "north", "ssd": "true"}
    meta = await admin("POST", f"{path}/action", {"set_metadata": {"metadata": {"ssd": None}}})
    assert meta["aggregate"]["metadata"] == {"availability_zone": "north"}
    changed = await admin("PUT", path, {"aggregate": {"name": "faster", "availability_zone": "south"}})
    assert (changed["aggregate"]["name"], changed["aggregate"]["availability_zone"]) == ("faster", "south")
    assert (await admin("GET", "/os-services?host=h1"))["services"][0]["zone"] == "south"
    await admin("DELETE", path, expect=400)
    await admin("POST", f"{path}/action", {"add_host": {"host": "h1"}}, expect=409)
    await admin("POST", f"{path}/action", {"add_host": {"host": "nobody"}}, expect=404)
    await admin("POST", f"{path}/action", {"remove_host": {"host": "h2"}}, expect=404)
    await admin("POST", f"{path}/action", {"remove_host": {"host": "h1"}})
    await admin("DELETE", path)
    await admin("GET", path, expect=404)
    assert (await admin("GET", "/os-aggregates"))["aggregates"] == []


async def test_a_host_is_in_one_zone_and_stays_there_while_it_has_servers(client, served, hosts):
    admin = await client()
    for name in ("north", "south"):
        await admin("POST", "/os-aggregates", {"aggregate": {"name": name, "availability_zone": name}})
    await admin("POST", "/os-aggregates/1/action", {"add_host": {"host": "h1"}})
    await admin("POST", "/os-aggregates/2/action", {"add_host": {"host": "h1"}}, expect=409)
    await claim(served, hosts["h1"])
    change = {"set_metadata": {"metadata": {"availability_zone": "east"}}}
    await admin("POST", "/os-aggregates/1/action", change, expect=409)
    await admin("POST", "/os-aggregates/1/action", {"remove_host": {"host": "h1"}}, expect=409)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"aggregate": {}},
        {"aggregate": {"name": ""}},
        {"aggregate": {"name": " x"}},
        {"aggregate": {"name": "x" * 256}},
        {"aggregate": {"name": "x", "availability_zone": ""}},
        {"aggregate": {"name": "x", "availability_zone": "a:b"}},
        {"aggregate": {"name": "x", "colour": "red"}},
    ],
)
async def test_bad_aggregates_are_refused_and_leave_no_event(client, served, body):
    admin = await client()
    before = await served.cloud.log.head()
    await admin("POST", "/os-aggregates", body, expect=400)
    assert await served.cloud.log.head() == before


async def test_aggregates_have_their_own_names(client):
    admin = await client()
    await admin("POST", "/os-aggregates", {"aggregate": {"name": "fast"}})
    await admin("POST", "/os-aggregates", {"aggregate": {"name": "fast"}}, expect=409)
    await admin("GET", "/os-aggregates/none", expect=400)
    await admin("GET", "/os-aggregates/-1", expect=404)
    await admin("PUT", "/os-aggregates/1", {"aggregate": {}}, expect=400)
    assert "uuid" not in (await admin("GET", "/os-aggregates/1", version="2.40"))["aggregate"]


async def test_hosts_were_listed_once(client, hosts):
    admin = await client(version="2.42")
    assert (await admin("GET", "/os-hosts"))["hosts"][0] == {"host_name": "h1", "service": "compute", "zone": "nova"}
    assert len((await admin("GET", "/os-hosts?zone="))["hosts"]) == len((await admin("GET", "/os-hosts"))["hosts"])
    await admin("GET", "/os-hosts", expect=404, version="2.43")


async def test_an_old_client_sees_and_disables_a_host(client, hosts):
    admin, member = await client(version="2.42"), await client("member", version="2.42")
    rows = [it["resource"] for it in (await admin("GET", "/os-hosts/h1"))["host"]]
    assert [row["project"] for row in rows] == ["(total)", "(used_now)", "(used_max)"]
    assert all(row.keys() == {"host", "project", "cpu", "memory_mb", "disk_gb"} for row in rows)
    assert rows[0]["cpu"] > 0
    answer = await admin("PUT", "/os-hosts/h1", {"status": "disable"})
    assert answer == {"host": "h1", "status": "disabled"}
    assert (await admin("GET", "/os-services?host=h1"))["services"][0]["status"] == "disabled"
    await admin("PUT", "/os-hosts/h1", {"status": "enable"})
    assert (await admin("GET", "/os-services?host=h1"))["services"][0]["status"] == "enabled"
    for body in ({}, {"status": "open"}, {"status": "enable", "colour": "red"}):
        await admin("PUT", "/os-hosts/h1", body, expect=400)
    for path in ("/os-hosts/h1", "/os-hosts/h1/reboot", "/os-hosts/h1/shutdown", "/os-hosts/h1/startup"):
        await member("GET", path, expect=403)
        await admin("GET", path.replace("h1", "nobody"), expect=404)
    await admin("GET", "/os-hosts/h1/reboot", expect=501)
    await member("PUT", "/os-hosts/h1", {"status": "disable"}, expect=403)
    await admin("GET", "/os-hosts/h1", expect=404, version="2.43")


async def test_aggregates_made_at_once_get_numbers_of_their_own(client):
    admin = await client()
    names = [f"rack-{nth}" for nth in range(10)]
    made = await asyncio.gather(*(admin("POST", "/os-aggregates", {"aggregate": {"name": name}}) for name in names))
    assert sorted(it["aggregate"]["id"] for it in made) == list(range(1, 11))


async def test_every_host_has_told_the_usage_of_the_month_before(client, hosts):
    admin = await client()
    log = (await admin("GET", "/os-instance_usage_audit_log/2026-03-15%2012:00:00"))["instance_usage_audit_log"]
    assert (log["period_beginning"], log["period_ending"]) == ("2026-02-01 00:00:00", "2026-03-01 00:00:00")
    assert (log["num_hosts"], log["num_hosts_done"], log["hosts_not_run"]) == (2, 2, [])
    assert "instance_usage_audit_logs" in await admin("GET", "/os-instance_usage_audit_log")
    await admin("GET", "/os-instance_usage_audit_log/yesterday", expect=400)
