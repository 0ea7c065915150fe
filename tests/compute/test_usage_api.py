"""Usage as clients see it: right to the second, deleted servers included."""

from datetime import timedelta

import pytest

from bus import clock
from bus.execute import Wish
from handlers.compute.server import SERVERS
from schema.compute.server_command import CreateServer, DeleteServer, EndServer, ObserveServer, PlaceServer
from schema.compute.server_parts import Order, ServerFlavor
from schema.compute.task import PowerState

MINE = "d" * 32
FLAVOR = ServerFlavor(id="1", name="tiny", vcpus=2, ram_mb=512, disk_gb=3, ephemeral_gb=1)


class Adjustable(clock.Clock):
    """The real clock, some time later."""

    ahead_seconds = 0.0

    def now(self):
        return super().now() + timedelta(seconds=self.ahead_seconds)


@pytest.fixture
def time():
    adjustable = Adjustable()
    before = clock.use(adjustable)
    yield adjustable
    clock.use(before)


async def run(served, id, project=MINE):
    create = CreateServer(name=f"name-{id}", project_id=project, order=Order(user_id="u"), flavor=FLAVOR)
    [document] = await served.cloud.executor.execute(Wish(SERVERS, id, create))
    place = PlaceServer(host="h1", provider_id="p1")
    [document] = await served.cloud.executor.execute(Wish(SERVERS, id, place))
    seen = ObserveServer(host="h1", generation=document.state.generation, power_state=PowerState.RUNNING)
    [document] = await served.cloud.executor.execute(Wish(SERVERS, id, seen))
    assert document.state.launched_at


async def end(served, id):
    await served.cloud.executor.execute(Wish(SERVERS, id, DeleteServer()))
    await served.cloud.executor.execute(Wish(SERVERS, id, EndServer()))


def span(time, before_hours, after_hours=0.0):
    now = time.now()
    form = "%Y-%m-%dT%H:%M:%S.%f"
    start, stop = (now + timedelta(hours=hours) for hours in (-before_hours, after_hours))
    return f"start={start.strftime(form)}&end={stop.strftime(form)}"


async def test_usage_counts_what_ran_and_what_is_gone(client, served, time):
    await run(served, "s1")
    await run(served, "s2")
    time.ahead_seconds = 3600
    await end(served, "s2")
    time.ahead_seconds = 7200
    member, admin = await client("member", project=MINE), await client()
    usage = (await member("GET", f"/os-simple-tenant-usage/{MINE}?{span(time, 24)}"))["tenant_usage"]
    assert usage["total_hours"] == pytest.approx(3, abs=0.02)
    assert usage["total_vcpus_usage"] == pytest.approx(6, abs=0.04)
    assert usage["total_memory_mb_usage"] == pytest.approx(3 * 512, abs=10)
    assert usage["total_local_gb_usage"] == pytest.approx(12, abs=0.08)
    servers = {it["instance_id"]: it for it in usage["server_usages"]}
    assert (servers["s1"]["state"], servers["s1"]["ended_at"]) == ("active", None)
    assert servers["s2"]["state"] == "terminated"
    assert servers["s2"]["hours"] == pytest.approx(1, abs=0.02)
    assert servers["s1"]["uptime"] == pytest.approx(7200, abs=60)

    window = (await member("GET", f"/os-simple-tenant-usage/{MINE}?{span(time, 0.5)}"))["tenant_usage"]
    assert window["total_hours"] == pytest.approx(0.5, abs=0.01)
    [listed] = (await admin("GET", f"/os-simple-tenant-usage?{span(time, 24)}"))["tenant_usages"]
    assert (listed["tenant_id"], "server_usages" in listed) == (MINE, False)
    [listed] = (await admin("GET", f"/os-simple-tenant-usage?detailed=1&{span(time, 24)}"))["tenant_usages"]
    assert len(listed["server_usages"]) == 2


async def test_usage_is_paged_by_server(client, served, time):
    admin = await client()
    for nth in range(3):
        await run(served, f"s{nth}")
    first = await admin("GET", f"/os-simple-tenant-usage?detailed=1&limit=2&{span(time, 1, 1)}")
    [link] = first["tenant_usages_links"]
    rest = await admin("GET", link["href"].partition("/compute/v2.1")[2])
    found = [it["instance_id"] for answer in (first, rest) for it in answer["tenant_usages"][0]["server_usages"]]
    assert found == ["s0", "s1", "s2"]


async def test_who_used_nothing_has_used_zero_hours(client, time):
    member = await client("member", project=MINE)
    usage = (await member("GET", f"/os-simple-tenant-usage/{MINE}?{span(time, 1)}"))["tenant_usage"]
    assert (usage["total_hours"], usage["server_usages"]) == (0, [])


async def test_bad_periods_are_refused(client):
    member = await client("member", project=MINE)
    for query in ("start=yesterday", "start=2030-01-02T00:00:00&end=2030-01-01T00:00:00", "limit=-1", "marker=nobody"):
        await member("GET", f"/os-simple-tenant-usage/{MINE}?{query}", expect=400)
    await member("GET", f"/os-simple-tenant-usage/{'e' * 32}", expect=403)
    await member("GET", "/os-simple-tenant-usage", expect=403)
