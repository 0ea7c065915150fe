"""Placement as an operator knows it: every `openstack` command of osc-placement, against a served cloud."""

from collections.abc import AsyncIterator

import pytest

from api.identity.service import SERVICE as IDENTITY
from api.placement.service import SERVICE as PLACEMENT
from bus import clock
from handlers.identity.bootstrap import bootstrap
from tests.command import commanding
from tests.identity.conftest import PASSWORD
from tests.placement.osc import Osc
from tests.serving import serving


@pytest.fixture
async def osc(settings, fresh_database, monkeypatch) -> AsyncIterator[Osc]:
    monkeypatch.setattr("handlers.identity.passwords.COST", 4)
    async with serving(settings, fresh_database, [IDENTITY, PLACEMENT]) as served:
        await bootstrap(served.cloud, PASSWORD)
        async with commanding(served, PASSWORD) as command:
            yield Osc(command)


async def test_providers_classes_and_traits(osc):
    host, numa = clock.uuid4(), clock.uuid4()
    made = await osc(f"resource provider create --uuid {host} host-1")
    assert (made["uuid"], made["name"], made["generation"], made["root_provider_uuid"]) == (host, "host-1", 0, host)
    await osc(f"resource provider create --uuid {numa} --parent-provider {host} numa-0")
    assert "already exists" in await osc.refused("resource provider create host-1")
    assert {it["name"] for it in await osc("resource provider list")} == {"host-1", "numa-0"}
    [child] = await osc(f"resource provider list --in-tree {host} --name numa-0")
    assert child["parent_provider_uuid"] == host
    assert (await osc(f"resource provider set {host} --name host-one"))["name"] == "host-one"
    assert (await osc(f"resource provider set {numa} --name numa-1 --parent-provider {host}"))["name"] == "numa-1"
    assert (await osc(f"resource provider show {host} --allocations"))["allocations"] == {}

    assert "does not match" in await osc.refused("resource class create iron")
    await osc("resource class create CUSTOM_IRON")
    await osc("resource class set CUSTOM_GOLD")
    assert (await osc("resource class show CUSTOM_GOLD"))["name"] == "CUSTOM_GOLD"
    assert {"VCPU", "CUSTOM_IRON", "CUSTOM_GOLD"} <= {it["name"] for it in await osc("resource class list")}
    await osc("resource class delete CUSTOM_GOLD")
    assert "No such resource class" in await osc.refused("resource class show CUSTOM_GOLD")

    await osc("trait create CUSTOM_FAST")
    await osc("trait show CUSTOM_FAST")
    assert [it["name"] for it in await osc("trait list --name startswith:CUSTOM")] == ["CUSTOM_FAST"]
    traits = f"resource provider trait set --trait CUSTOM_FAST --trait HW_CPU_X86_AVX2 {host}"
    assert {it["name"] for it in await osc(traits)} == {"CUSTOM_FAST", "HW_CPU_X86_AVX2"}
    assert len(await osc(f"resource provider trait list {host}")) == 2
    assert len(await osc("trait list --associated")) == 2
    assert "in use" in await osc.refused("trait delete CUSTOM_FAST")
    await osc(f"resource provider trait delete {host}")
    await osc("trait delete CUSTOM_FAST")
    assert "It has child resource providers" in await osc.refused(f"resource provider delete {host}")
    await osc(f"resource provider delete {numa}")
    await osc(f"resource provider delete {host}")
    assert await osc("resource provider list") == []


async def test_inventories_and_what_is_allocated_of_them(osc):
    host, rack, server = clock.uuid4(), clock.uuid4(), clock.uuid4()
    await osc(f"resource provider create --uuid {host} host-1")
    given = "--resource VCPU=16 --resource VCPU:allocation_ratio=2.0 --resource MEMORY_MB=4096"
    assert len(await osc(f"resource provider inventory set {host} {given}")) == 2
    assert len(await osc(f"resource provider inventory set --amend {host} --resource DISK_GB=100")) == 3
    await osc(f"resource provider inventory class set {host} DISK_GB --total 200 --reserved 20")
    disk = await osc(f"resource provider inventory show {host} DISK_GB")
    assert (disk["total"], disk["reserved"]) == (200, 20)
    by_class = {it["resource_class"]: it for it in await osc(f"resource provider inventory list {host}")}
    assert by_class["VCPU"]["allocation_ratio"] == 2.0
    assert by_class.keys() == {"VCPU", "MEMORY_MB", "DISK_GB"}

    generation = (await osc(f"resource provider show {host}"))["generation"]
    set_it = f"resource provider aggregate set --aggregate {rack} --generation {generation} {host}"
    assert [it["uuid"] for it in await osc(set_it)] == [rack]
    assert "generation" in await osc.refused(set_it)
    assert [it["uuid"] for it in await osc(f"resource provider aggregate list {host}")] == [rack]
    amend = f"resource provider inventory set {rack} --aggregate --amend --resource VCPU:allocation_ratio=4.0"
    assert {it["resource_provider"] for it in await osc(amend)} == {host}

    asked = f"--resource VCPU=32 --member-of {rack}"
    assert [it["uuid"] for it in await osc(f"resource provider list {asked}")] == [host]
    [candidate, *_] = await osc(f"allocation candidate list {asked} --limit 1")
    assert candidate["resource provider"] == host
    groups = "--group 1 --resource VCPU=2 --group 2 --resource DISK_GB=1 --group-policy isolate"
    assert await osc(f"allocation candidate list {groups}") == []
    assert await osc(f"allocation candidate list {groups.replace('isolate', 'none')}") != []

    owner = "--project-id p --user-id u --consumer-type INSTANCE"
    one = f"--allocation rp={host},VCPU=2,MEMORY_MB=256"
    [held] = await osc(f"resource provider allocation set {server} {one} {owner}")
    assert (held["resource_provider"], held["resources"]) == (host, {"VCPU": 2, "MEMORY_MB": 256})
    assert len(await osc(f"resource provider allocation show {server}")) == 1
    usage = {it["resource_class"]: it["usage"] for it in await osc(f"resource provider usage show {host}")}
    assert usage == {"VCPU": 2, "MEMORY_MB": 256, "DISK_GB": 0}
    [used] = await osc("resource usage show p --user-id u")  # since 1.38 by the consumer's type
    assert (used["resource_class"], used["usage"]["VCPU"]) == ("INSTANCE", 2)
    assert "has allocations" in await osc.refused(f"resource provider delete {host}")
    too_much = f"resource provider allocation set {server} --allocation rp={host},VCPU=65 {owner}"
    assert "exceed" in await osc.refused(too_much)

    await osc(f"resource provider allocation unset {server} --resource-class MEMORY_MB")
    assert (await osc(f"resource provider allocation show {server}"))[0]["resources"] == {"VCPU": 2}
    await osc(f"resource provider allocation unset {server} --provider {host}")
    assert await osc(f"resource provider allocation show {server}") == []
    await osc(f"resource provider allocation set {server} {one} {owner}")
    await osc(f"resource provider allocation delete {server}")
    await osc(f"resource provider inventory delete {host} --resource-class VCPU")
    await osc(f"resource provider inventory delete {host}")
    assert await osc(f"resource provider inventory list {host}") == []
