"""Quotas, limits and extensions as clients see them."""

import pytest

from bus.execute import Wish
from handlers.compute.quota import QUOTAS
from schema.compute.quota import ChangeQuotaHold, Hold

MINE = "d" * 32


@pytest.fixture
async def admin(client):
    return await client(project=MINE)


async def held(served, hold):
    """A server holds this much."""
    command = ChangeQuotaHold(server_id="s1", before=None, after=hold)
    await served.cloud.executor.execute(Wish(QUOTAS, MINE, command))


async def test_a_project_without_limits_has_the_defaults(admin):
    shown = (await admin("GET", f"/os-quota-sets/{MINE}"))["quota_set"]
    assert shown == {
        "id": MINE,
        "instances": 10,
        "cores": 20,
        "ram": 51_200,
        "key_pairs": 100,
        "metadata_items": 128,
        "server_groups": 10,
        "server_group_members": 10,
    }
    assert (await admin("GET", f"/os-quota-sets/{MINE}/defaults"))["quota_set"] == shown


async def test_older_versions_know_more(admin):
    oldest = (await admin("GET", f"/os-quota-sets/{MINE}", version="2.1"))["quota_set"]
    assert {"floating_ips", "security_groups", "injected_files"} < set(oldest)
    middle = set((await admin("GET", f"/os-quota-sets/{MINE}", version="2.36"))["quota_set"])
    assert "injected_files" in middle
    assert "floating_ips" not in middle
    await admin("PUT", f"/os-quota-sets/{MINE}", {"quota_set": {"floating_ips": 3}}, version="2.35")
    await admin("PUT", f"/os-quota-sets/{MINE}", {"quota_set": {"floating_ips": 3}}, version="2.36", expect=400)


async def test_limits_are_set_and_cleared(admin):
    changed = (await admin("PUT", f"/os-quota-sets/{MINE}", {"quota_set": {"cores": "4", "instances": -1}}))[
        "quota_set"
    ]
    assert (changed["cores"], changed["instances"], changed["ram"]) == (4, -1, 51_200)
    assert "id" not in changed
    await admin("DELETE", f"/os-quota-sets/{MINE}?x=1", expect=400)
    await admin("DELETE", f"/os-quota-sets/{MINE}?user_id=u", expect=202)
    assert (await admin("GET", f"/os-quota-sets/{MINE}"))["quota_set"]["cores"] == 4, "the project's stay"
    await admin("DELETE", f"/os-quota-sets/{MINE}?x=1", expect=202, version="2.74")
    assert (await admin("GET", f"/os-quota-sets/{MINE}"))["quota_set"]["cores"] == 20


async def test_usage_shows_in_detail_and_in_limits(admin, served):
    await held(served, Hold(4, 2048))
    detail = (await admin("GET", f"/os-quota-sets/{MINE}/detail"))["quota_set"]
    assert detail["cores"] == {"limit": 20, "in_use": 4, "reserved": 0}
    assert detail["key_pairs"] == {"limit": 100, "in_use": 0, "reserved": 0}
    absolute = (await admin("GET", "/limits"))["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["totalCoresUsed"], absolute["totalRAMUsed"]) == (1, 4, 2048)
    assert (absolute["maxTotalInstances"], absolute["maxTotalCores"]) == (10, 20)
    low = {"quota_set": {"cores": 3}}
    assert "already used" in str(await admin("PUT", f"/os-quota-sets/{MINE}", low, expect=400))
    await admin("PUT", f"/os-quota-sets/{MINE}", {"quota_set": {"cores": 3, "force": True}})


async def test_the_default_class_moves_everybody_without_limits_of_their_own(admin):
    await admin("PUT", f"/os-quota-sets/{MINE}", {"quota_set": {"cores": 4}})
    changed = await admin("PUT", "/os-quota-class-sets/default", {"quota_class_set": {"cores": 99, "ram": 7}})
    assert (changed["quota_class_set"]["cores"], changed["quota_class_set"]["ram"]) == (99, 7)
    shown = (await admin("GET", f"/os-quota-sets/{MINE}"))["quota_set"]
    assert (shown["cores"], shown["ram"]) == (4, 7)
    defaults = (await admin("GET", f"/os-quota-sets/{MINE}/defaults"))["quota_set"]
    assert (defaults["cores"], defaults["ram"]) == (99, 7)
    assert (await admin("GET", "/os-quota-class-sets/default"))["quota_class_set"]["id"] == "default"
    old = {"quota_class_set": {"floating_ips": 9}}
    await admin("PUT", "/os-quota-class-sets/default", old, version="2.1")
    kept = (await admin("GET", "/os-quota-class-sets/default", version="2.1"))["quota_class_set"]
    assert (kept["floating_ips"], kept["fixed_ips"]) == (9, -1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"quota_set": {"cores": -2}},
        {"quota_set": {"cores": 2**31}},
        {"quota_set": {"cores": "many"}},
        {"quota_set": {"cores": None}},
        {"quota_set": {"colours": 3}},
        {"quota_set": {"cores": 3, "force": "perhaps"}},
        {"quota_set": []},
    ],
)
async def test_bad_limits_are_refused_and_leave_no_event(admin, served, body):
    before = await served.cloud.log.head()
    await admin("PUT", f"/os-quota-sets/{MINE}", body, expect=400)
    assert await served.cloud.log.head() == before


async def test_quotas_are_for_projects_that_are_there(admin):
    assert "not a valid project" in str(await admin("GET", "/os-quota-sets/nobody", expect=400))
    await admin("PUT", "/os-quota-sets/nobody", {"quota_set": {"cores": 1}}, expect=400)


async def test_members_see_their_own_quota_only(client):
    member = await client("member", project=MINE)
    await member("GET", f"/os-quota-sets/{MINE}")
    await member("GET", f"/os-quota-sets/{'e' * 32}", expect=403)
    await member("PUT", f"/os-quota-sets/{MINE}", {"quota_set": {"cores": 1}}, expect=403)
    await member("GET", f"/limits?tenant_id={'e' * 32}", expect=403)
    await member("GET", "/os-quota-class-sets/default", expect=403)


async def test_limits_of_older_versions_name_what_is_networks_now(admin):
    absolute = (await admin("GET", "/limits?reserved=1", version="2.1"))["limits"]["absolute"]
    assert {"maxTotalFloatingIps", "maxImageMeta", "maxPersonality"} < set(absolute)
    newer = (await admin("GET", "/limits"))["limits"]
    assert newer["rate"] == []
    assert not {"maxTotalFloatingIps", "maxImageMeta", "maxPersonality"} & set(newer["absolute"])


async def test_extensions_are_listed(client):
    member = await client("member")
    listed = (await member("GET", "/extensions"))["extensions"]
    assert {"os-keypairs", "os-quota-sets"} <= {it["alias"] for it in listed}
    assert (await member("GET", "/extensions/os-keypairs"))["extension"]["name"] == "Keypairs"
    await member("GET", "/extensions/nobody", expect=404)


async def test_somebody_has_a_quota_of_their_own(admin, served):
    path, ada = f"/os-quota-sets/{MINE}", f"/os-quota-sets/{MINE}?user_id=ada"
    set_ = (await admin("PUT", ada, {"quota_set": {"cores": 4}}))["quota_set"]
    assert (set_["cores"], set_["instances"]) == (4, 10)
    assert (await admin("GET", path))["quota_set"]["cores"] == 20
    assert (await admin("GET", ada))["quota_set"]["cores"] == 4
    assert (await admin("GET", f"{path}?user_id=bob"))["quota_set"]["cores"] == 20
    for user_id in ("ada", "bob"):
        await held(served, Hold(3, 64, user_id))
    detail = (await admin("GET", f"{path}/detail?user_id=ada"))["quota_set"]
    assert detail["cores"] == {"limit": 4, "in_use": 3, "reserved": 0}
    assert (await admin("GET", f"{path}/detail"))["quota_set"]["cores"]["in_use"] == 6
    over = (await admin("PUT", ada, {"quota_set": {"cores": 21}}, expect=400))["badRequest"]["message"]
    assert "must be less than or equal to 20" in over
    under = (await admin("PUT", ada, {"quota_set": {"cores": 2}}, expect=400))["badRequest"]["message"]
    assert "must be greater than or equal to already used and reserved 3" in under
    await admin("PUT", ada, {"quota_set": {"cores": 2, "force": True}})
    await admin("DELETE", ada, expect=202)
    assert (await admin("GET", ada))["quota_set"]["cores"] == 20
    await admin("PUT", f"{path}?x=1", {"quota_set": {}}, expect=400)
    await admin("PUT", f"{path}?x=1", {"quota_set": {}}, version="2.74")
