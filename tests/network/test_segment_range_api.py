"""Which numbers networks are given, over HTTP."""

import msgspec
import pytest

from api.network.service import SERVICE
from tests.network.routed import Client
from tests.serving import serving

RANGES = "/network_segment_ranges"
OWN, OTHER = "p" * 32, "q" * 32


@pytest.fixture
async def served(settings, fresh_database):
    networking = msgspec.structs.replace(
        settings.network, vxlan_ids="100:119", physical_networks="external,fast:200:209"
    )
    async with serving(msgspec.structs.replace(settings, network=networking), fresh_database, [SERVICE]) as it:
        yield it


async def made(client, **fields):
    body = {"network_segment_range": fields}
    return (await client("POST", RANGES, body, expect=201))["network_segment_range"]


async def numbers(served, admin, project, count):
    client = Client(served, await served.token("member", project=project))
    ids = [(await client("POST", "/networks", {"network": {}}, expect=201))["network"]["id"] for _ in range(count)]
    return [(await admin("GET", f"/networks/{id}"))["network"]["provider:segmentation_id"] for id in ids]


async def test_what_the_settings_say_is_there_and_stays(admin, member):
    found = {
        (it["network_type"], it["physical_network"]): it
        for it in (await admin("GET", RANGES + "?default=true"))["network_segment_ranges"]
    }
    assert set(found) == {("vxlan", None), ("vlan", "external"), ("vlan", "fast")}
    vxlan = found["vxlan", None]
    assert (vxlan["minimum"], vxlan["maximum"], vxlan["shared"], vxlan["project_id"]) == (100, 119, True, None)
    assert (vxlan["used"], vxlan["available"]) == ({}, list(range(100, 120)))
    assert found["vlan", "fast"]["available"] == list(range(200, 210))
    one = f"{RANGES}/{vxlan['id']}"
    assert (await admin("GET", one))["network_segment_range"] == vxlan
    change = {"network_segment_range": {"name": "n"}}
    await admin.refused("PUT", one, change, 400, "NetworkSegmentRangeDefaultReadOnly")
    await admin.refused("DELETE", one, None, 400, "NetworkSegmentRangeDefaultReadOnly")
    assert await member("GET", RANGES) == {"network_segment_ranges": []}
    wanted = {"network_segment_range": {"network_type": "vxlan", "minimum": 500, "maximum": 509}}
    await member("POST", RANGES, wanted, expect=403)


async def test_a_range_is_made_changed_and_ended(admin):
    it = await made(admin, name="n", network_type="vxlan", minimum=500, maximum=509)
    assert (it["default"], it["shared"], it["tenant_id"], it["available"]) == (False, True, None, list(range(500, 510)))
    assert it["created_at"] is not None
    one = f"{RANGES}/{it['id']}"
    change = {"network_segment_range": {"name": "m", "maximum": 504}}
    changed = (await admin("PUT", one, change))["network_segment_range"]
    assert (changed["name"], changed["maximum"], changed["revision_number"]) == ("m", 504, 1)
    assert (await admin("GET", RANGES + "?name=m&fields=id"))["network_segment_ranges"] == [{"id": it["id"]}]
    hyphened = f"/network-segment-ranges/{it['id']}?fields=id"
    assert await admin("GET", hyphened) == {"network_segment_range": {"id": it["id"]}}
    assert await admin("PUT", f"{one}/tags", {"tags": ["a", "b"]}) == {"tags": ["a", "b"]}
    await admin("DELETE", f"{one}/tags/a", expect=204)
    assert (await admin("GET", one))["network_segment_range"]["tags"] == ["b"]
    await made(admin, network_type="vlan", physical_network="fast", minimum=500, maximum=509)
    for minimum, maximum in ((504, 600), (1, 500), (502, 503)):
        body = {"network_type": "vxlan", "minimum": minimum, "maximum": maximum}
        message = await admin.refused(
            "POST", RANGES, {"network_segment_range": body}, 409, "NetworkSegmentRangeOverlaps"
        )
        assert it["id"] in message
    await admin("DELETE", one, expect=204)
    await admin.refused("GET", one, None, 404, "NetworkSegmentRangeNotFound")
    await made(admin, network_type="vxlan", minimum=504, maximum=600)


@pytest.mark.parametrize(
    "fields, type",
    [
        ({"network_type": "flat"}, "NetworkSegmentRangeNetTypeNotSupported"),
        ({"network_type": "gre"}, "NetworkSegmentRangeNetTypeNotSupported"),
        ({"network_type": "vlan", "physical_network": "fast", "maximum": 5000}, "NetworkVlanRangeError"),
        ({"network_type": "vxlan", "minimum": 9, "maximum": 8}, "NetworkTunnelRangeError"),
        ({"network_type": "vlan", "physical_network": "slow"}, "InvalidInput"),
        ({"network_type": "vxlan", "physical_network": "fast"}, "HTTPBadRequest"),
        ({"network_type": "vxlan", "shared": False}, "HTTPBadRequest"),
    ],
)
async def test_what_is_no_range_is_refused(admin, fields, type):
    body = {"network_segment_range": {"minimum": 1, "maximum": 9} | fields}
    await admin.refused("POST", RANGES, body, 400, type)


async def test_a_projects_own_numbers_are_its_own_and_come_first(served, admin):
    it = await made(admin, network_type="vxlan", shared=False, project_id=OWN, minimum=110, maximum=112)
    assert (it["shared"], it["project_id"]) == (False, OWN)
    assert set(await numbers(served, admin, OWN, 3)) == {110, 111, 112}
    assert set(await numbers(served, admin, OTHER, 10)) <= {*range(100, 110), *range(113, 120)}
    [further] = await numbers(served, admin, OWN, 1)
    assert further not in range(110, 113)
    one = f"{RANGES}/{it['id']}"
    used = (await admin("GET", one))["network_segment_range"]
    assert (used["used"], used["available"]) == ({"110": OWN, "111": OWN, "112": OWN}, [])
    await admin.refused("DELETE", one, None, 409, "NetworkSegmentRangeReferencedByProject")
    smaller = {"network_segment_range": {"maximum": 111}}
    await admin.refused("PUT", one, smaller, 409, "NetworkSegmentRangeReferencedByProject")


async def test_numbers_that_others_have_from_before_do_not_hold_a_projects_range(served, admin):
    taken = set(await numbers(served, admin, OTHER, 20))
    assert taken == set(range(100, 120))
    it = await made(
        admin, network_type="vxlan", physical_network="", shared=False, tenant_id=OWN, minimum=110, maximum=130
    )
    assert (it["physical_network"], it["used"]["110"], it["available"][0]) == (None, OTHER, 120)
    assert set(await numbers(served, admin, OWN, 1)) <= set(range(120, 131))
    await admin("DELETE", f"{RANGES}/{it['id']}", expect=409)


async def test_shared_ranges_add_to_what_there_is(served, admin, member):
    await made(admin, network_type="vxlan", minimum=120, maximum=121)
    found = await numbers(served, admin, OWN, 22)
    assert set(found) == set(range(100, 122))
    await member("POST", "/networks", {"network": {}}, expect=503)


async def test_vlans_are_of_the_projects_own_range(served, admin):
    own = {"network_type": "vlan", "physical_network": "fast", "shared": False, "project_id": OWN}
    await made(admin, **own, minimum=300, maximum=300)
    body = {"network": {"provider:network_type": "vlan", "project_id": OWN}}
    shown = (await admin("POST", "/networks", body, expect=201))["network"]
    assert (shown["provider:physical_network"], shown["provider:segmentation_id"]) == ("fast", 300)
