"""Why a server is where it is, over HTTP: decided, told to operators, and asked before there is one."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.cli.why import about, before
from api.compute.service import SERVICE as COMPUTE
from api.log.service import SERVICE as LOG
from bus.config import Settings
from bus.execute import Context, Wish
from handlers.compute.considering import MIRRORS
from handlers.compute.fate import placing, request
from handlers.compute.flavor import FLAVORS
from handlers.compute.host import HOSTS
from handlers.compute.server import SERVERS
from handlers.placement.provider import PROVIDERS
from handlers.placement.schedule import Scheduler
from schema.compute.domain import HostFacts
from schema.compute.flavor import CreateFlavor
from schema.compute.host import DisableHost, EnableHost, RegisterHost
from schema.compute.server_command import CreateServer
from schema.compute.server_parts import Order, ServerFlavor
from schema.placement.provider import PROVIDER, CreateProvider, Inventory, SetInventories
from tests.serving import Served, serving

MINE = "a" * 32
SMALL = ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1)


@pytest.fixture
async def api(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    assert PROVIDER in MIRRORS
    async with serving(settings, fresh_database, [COMPUTE, LOG]) as served:
        execute = served.cloud.executor.execute
        for number, vcpus in enumerate((2, 4)):
            inventories = {
                "VCPU": Inventory(total=vcpus),
                "MEMORY_MB": Inventory(total=8192),
                "DISK_GB": Inventory(total=10),
            }
            id = f"00000000-0000-4000-8000-00000000000{number}"
            await execute(
                Wish(PROVIDERS, id, CreateProvider(name=f"h{number}")),
                Wish(
                    HOSTS,
                    f"h{number}",
                    RegisterHost(provider_id=id, service_id=f"s{number}", facts=HostFacts(hypervisor_type="QEMU")),
                ),
            )
            await execute(Wish(PROVIDERS, id, SetInventories(inventories=inventories)))
        for id, vcpus in (("1", 1), ("2", 8)):
            name = "small" if vcpus == 1 else "large"
            await execute(Wish(FLAVORS, id, CreateFlavor(name=name, vcpus=vcpus, ram_mb=512, disk_gb=1)))
        yield served


def scheduler(api: Served) -> Scheduler:
    return Scheduler.following(api.cloud.mirrors, api.cloud.settings.scheduler)


async def ordered(api: Served, id: str, flavor: ServerFlavor) -> None:
    """A server ordered, and what the scheduler says to it."""
    execute = api.cloud.executor.execute
    command = CreateServer(name="it", project_id=MINE, order=Order(user_id="u"), flavor=flavor)
    [document] = await execute(Wish(SERVERS, id, command), by=Context(request_id="req-1"))
    [answer] = scheduler(api).place([request(document.state)])
    await execute(*placing(document.state, answer))


async def why(api: Served, id: str, token: str) -> dict[str, Any]:
    answer = await api.call("GET", f"/log/v1/why/server/{id}", token=token)
    assert answer.status == 200, answer.body
    return answer.json


async def test_why_a_server_is_on_its_host(api: Served):
    await api.cloud.executor.execute(Wish(HOSTS, "h0", DisableHost(reason="new disks")))
    await ordered(api, "s1", SMALL)
    told = await why(api, "s1", await api.token("admin"))
    [placement] = told["placements"]
    assert placement["host"] == "h1"
    assert placement["decision"]["turned_down"] == [{"filter": "Compute", "hosts": 1}]
    assert 0 < placement["decision"]["position"] < placement["position"]
    assert placement["words"][1:] == [
        "Compute turned down 1.",
        "h0: is disabled: new disks.",
        "h1 weighs 3 (CPU +1, Disk +1, RAM +1), the most.",
    ]
    assert "  h0: is disabled: new disks." in about(told)


async def test_why_a_server_is_on_no_host_and_what_would_help(api: Served):
    await ordered(api, "s1", ServerFlavor(id="9", name="wide", vcpus=9, ram_mb=512, disk_gb=1))
    told = await why(api, "s1", await api.token("admin"))
    [placement] = told["placements"]
    assert placement["host"] is None
    assert placement["decision"]["turned_down"] == [{"filter": "VCPU", "hosts": 2}]
    assert placement["words"][-1] == "It would have fitted with 5 more CPUs on host h1."
    assert "No valid host was found" in told["because"]


async def test_tenants_hear_nothing_of_hosts(api: Served):
    await ordered(api, "s1", SMALL)
    token = await api.token(project=MINE)
    answer = await api.call("GET", "/log/v1/why/server/s1", token=token)
    assert answer.json["placements"] == []
    assert "h1" not in answer.body.decode().replace("sh1", "")
    assert "decision" not in answer.body.decode()
    assert (await api.call("POST", "/log/v1/why", {"flavor": "small"}, token=token)).status == 403


async def test_asked_before_there_is_a_server(api: Served):
    admin, head = await api.token("admin"), await api.cloud.log.head()
    body = {"flavor": "small", "count": 8, "networks": False}
    answer = (await api.call("POST", "/log/v1/why", body, token=admin)).json
    assert (answer["fit"], answer["of"], sorted(answer["hosts"])) == (6, 8, ["h0"] * 2 + ["h1"] * 4)
    assert "2 have too little VCPU free" in answer["refused"]["reason"]
    assert before(answer)[0] == "6 of 8 would fit."
    again = (await api.call("POST", "/log/v1/why", body, token=admin)).json
    assert again["fit"] == 6
    assert await api.cloud.log.head() == head


async def test_the_answer_follows_the_cloud(api: Served):
    admin, execute = await api.token("admin"), api.cloud.executor.execute
    for host in ("h0", "h1"):
        await execute(Wish(HOSTS, host, DisableHost()))
    asked = {"flavor": "1", "host": None, "scheduler_hints": {"query": '["=", "$host", "h1"]'}}
    answer = (await api.call("POST", "/log/v1/why", asked, token=admin)).json
    assert answer["fit"] == 0
    assert answer["refused"]["words"][-1] == "It would have fitted with host h0 enabled."
    await execute(Wish(HOSTS, "h0", EnableHost()))
    answer = (await api.call("POST", "/log/v1/why", asked, token=admin)).json
    assert answer["hosts"] == ["h0"]


@pytest.mark.parametrize("body", [{"flavor": "none"}, {"flavor": "1", "image": "none"}, {"flavor": "1", "count": 101}])
async def test_questions_that_cannot_be_answered(api: Served, body: dict[str, Any]):
    assert (await api.call("POST", "/log/v1/why", body, token=await api.token("admin"))).status == 400
