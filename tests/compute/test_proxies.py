"""What compute once did for other services: by asking ours, until the microversion in which Nova stopped."""

import pytest

from api.compute.service import SERVICE as COMPUTE
from api.image.service import SERVICE as IMAGE
from api.network.service import SERVICE as NETWORK
from bus import clock
from tests.compute.networked import networked
from tests.compute.world import IMAGE as IMAGE_ID
from tests.compute.world import OTHER, PROJECT

LAST, LAST_METADATA = "2.35", "2.38"


@pytest.fixture
async def world(settings, fresh_database):
    async with networked(settings, fresh_database, (COMPUTE, NETWORK, IMAGE)) as it:
        yield it


@pytest.fixture
async def member(world):
    return await world.client(version=LAST)


async def test_images_are_listed_and_shown(world, member):
    await world.image("mine", name="mine", properties={"instance_uuid": "s1"})
    [short] = (await member("GET", "/images?name=mine"))["images"]
    assert set(short) == {"id", "name", "links"}
    shown = (await member("GET", "/images/mine"))["image"]
    assert (shown["status"], shown["progress"], shown["OS-EXT-IMG-SIZE:size"]) == ("ACTIVE", 100, 1000)
    assert shown["metadata"] == {"instance_uuid": "s1"}
    assert shown["server"]["id"] == "s1"
    assert [it["rel"] for it in shown["links"]] == ["self", "bookmark", "alternate"]
    detailed = (await member("GET", "/images/detail?server=http://x/servers/s1"))["images"]
    assert detailed == [shown]
    assert len((await member("GET", "/images?status=ACTIVE"))["images"]) == 2
    assert (await member("GET", "/images?status=SAVING"))["images"] == []
    assert (await member("GET", "/images?changes-since=2999-01-01T00:00:00Z"))["images"] == []
    page = await member("GET", "/images?limit=1")
    assert len(page["images"]) == 1
    assert "marker=" in page["images_links"][0]["href"]
    for wrong in ("limit=-1", "limit=x", "marker=nothing", "changes-since=never"):
        await member("GET", f"/images?{wrong}", expect=400)
    await member("GET", "/images/nothing", expect=404)
    await member("GET", "/images", version="2.36", expect=404)


async def test_images_are_deleted_by_who_may(world, member):
    assert (await member("DELETE", "/images/nothing", expect=404))["itemNotFound"]["message"] == "Image not found."
    await member("DELETE", f"/images/{IMAGE_ID}", expect=403)
    admin = await world.client("admin", version=LAST)
    await admin("DELETE", f"/images/{IMAGE_ID}", expect=204)
    await member("GET", f"/images/{IMAGE_ID}", expect=404)


async def test_an_images_metadata_is_its_properties(world):
    admin = await world.client("admin", version=LAST_METADATA)
    path = f"/images/{IMAGE_ID}/metadata"
    assert await admin("POST", path, {"metadata": {"a": "1", "b": "2"}}) == {"metadata": {"a": "1", "b": "2"}}
    assert await admin("PUT", f"{path}/a", {"meta": {"a": "3"}}) == {"meta": {"a": "3"}}
    assert await admin("GET", path) == {"metadata": {"a": "3", "b": "2"}}
    await admin("PUT", f"{path}/a", {"meta": {"b": "3"}}, expect=400)
    await admin("DELETE", f"{path}/a", expect=204)
    await admin("DELETE", f"{path}/a", expect=404)
    await admin("GET", f"{path}/a", expect=404)
    assert await admin("PUT", path, {"metadata": {"c": "4"}}) == {"metadata": {"c": "4"}}
    many = {f"key{number}": "x" for number in range(129)}
    await admin("PUT", path, {"metadata": many}, expect=403)
    member = await world.client(version=LAST_METADATA)
    assert (await member("GET", f"{path}/c"))["meta"] == {"c": "4"}
    await member("PUT", path, {"metadata": {}}, expect=403)
    await admin("GET", path, version="2.39", expect=404)


async def test_networks_can_be_looked_at(world, member):
    id = await world.network("blue")
    await world.network("theirs", project=OTHER)
    [shown] = (await member("GET", "/os-networks"))["networks"]
    assert (shown["id"], shown["label"], shown["cidr"]) == (id, "blue", None)
    assert "vlan" not in shown
    assert (await member("GET", "/os-tenant-networks"))["networks"] == [{"id": id, "label": "blue", "cidr": "None"}]
    assert (await member("GET", f"/os-tenant-networks/{id}"))["network"]["label"] == "blue"
    admin = await world.client("admin", version=LAST)
    assert (await admin("GET", f"/os-networks/{id}"))["network"]["vlan"] is None
    await member("GET", f"/os-networks/{clock.uuid4()}", expect=404)
    gone = (await member("POST", "/os-networks", expect=410))["computeFault"]
    assert gone["code"] == 410
    for path in ("/os-networks", "/os-tenant-networks", "/os-fping", "/os-security-groups", "/os-floating-ips"):
        await member("GET", path, version="2.36", expect=404)


async def test_floating_ips_come_from_pools(world, member):
    outside = await world.network("public", external_for=("*",), shared_with=())
    assert (await member("GET", "/os-floating-ip-pools"))["floating_ip_pools"] == [{"name": "public"}]
    made = (await member("POST", "/os-floating-ips", {"pool": "public"}))["floating_ip"]
    assert (made["pool"], made["fixed_ip"], made["instance_id"]) == ("public", None, None)
    for body in ({"pool": outside}, {}, None):
        other = (await member("POST", "/os-floating-ips", body))["floating_ip"]
        await member("DELETE", f"/os-floating-ips/{other['id']}", expect=202)
    assert (await member("GET", "/os-floating-ips"))["floating_ips"] == [made]
    assert (await member("GET", f"/os-floating-ips/{made['id']}"))["floating_ip"] == made
    await member("POST", "/os-floating-ips", {"pool": "nowhere"}, expect=404)
    await member("GET", f"/os-floating-ips/{clock.uuid4()}", expect=404)
    await member("DELETE", f"/os-floating-ips/{clock.uuid4()}", expect=404)
    await member("GET", "/os-floating-ips-bulk", expect=410)


async def test_security_groups_and_their_rules(world, member):
    words = {"security_group": {"name": "web", "description": "d"}}
    group = (await member("POST", "/os-security-groups", words))["security_group"]
    assert (group["name"], group["rules"], group["tenant_id"]) == ("web", [], PROJECT)
    assert [it["name"] for it in (await member("GET", "/os-security-groups"))["security_groups"]] == ["default", "web"]
    assert [it["name"] for it in (await member("GET", "/os-security-groups?offset=1"))["security_groups"]] == ["web"]
    rule = {"parent_group_id": group["id"], "ip_protocol": "tcp", "from_port": "22", "to_port": 22}
    made = (await member("POST", "/os-security-group-rules", {"security_group_rule": rule}))["security_group_rule"]
    assert (made["from_port"], made["ip_range"], made["group"]) == (22, {"cidr": "0.0.0.0/0"}, {})
    ping = rule | {"ip_protocol": "icmp", "from_port": -1, "to_port": -1, "cidr": "10.0.0.0/8"}
    pinged = (await member("POST", "/os-security-group-rules", {"security_group_rule": ping}))["security_group_rule"]
    assert (pinged["from_port"], pinged["ip_range"]) == (-1, {"cidr": "10.0.0.0/8"})
    of_group = {"parent_group_id": group["id"], "group_id": group["id"]}
    its = (await member("POST", "/os-security-group-rules", {"security_group_rule": of_group}))["security_group_rule"]
    assert its["group"] == {"name": "web", "tenant_id": PROJECT}
    for wrong in (
        rule,
        rule | {"parent_group_id": "web"},
        rule | {"ip_protocol": "nonsense"},
        rule | {"from_port": 70000},
        rule | {"cidr": "10.0.0.300/8"},
        {"parent_group_id": group["id"]},
    ):
        await member("POST", "/os-security-group-rules", {"security_group_rule": wrong}, expect=400)
    other = rule | {"parent_group_id": clock.uuid4()}
    await member("POST", "/os-security-group-rules", {"security_group_rule": other}, expect=404)
    await member("DELETE", f"/os-security-group-rules/{made['id']}", expect=202)
    await member("DELETE", f"/os-security-group-rules/{made['id']}", expect=404)
    renamed = {"security_group": {"name": "new", "description": ""}}
    assert (await member("PUT", f"/os-security-groups/{group['id']}", renamed))["security_group"]["name"] == "new"
    for name in ("", "  ", "x" * 256):
        await member("POST", "/os-security-groups", {"security_group": {"name": name}}, expect=400)
    [default] = [
        it for it in (await member("GET", "/os-security-groups"))["security_groups"] if it["name"] == "default"
    ]
    await member("DELETE", f"/os-security-groups/{default['id']}", expect=400)
    await member("DELETE", f"/os-security-groups/{group['id']}", expect=202)
    await member("GET", f"/os-security-groups/{group['id']}", expect=404)
    await member("GET", "/os-security-groups/web", expect=400)


async def test_there_are_no_volumes_until_there_is_block_storage(member):
    assert await member("GET", "/os-volumes") == {"volumes": []}
    assert await member("GET", "/os-snapshots/detail") == {"snapshots": []}
    refusal = await member("GET", "/os-volumes/v", expect=404)
    assert refusal["itemNotFound"]["message"] == "Volume v could not be found."
    refusal = await member("POST", "/os-volumes", {"volume": {"size": 1}}, expect=400)
    assert "no block storage" in refusal["badRequest"]["message"]


@pytest.mark.parametrize("path", ["/os-agents", "/os-cells", "/os-cloudpipe", "/servers/x/consoles"])
async def test_what_is_gone_is_said_to_be_gone(member, path):
    await member("GET", path, expect=410)
    await member("GET", path, expect=410, version="latest")
