"""What a flavor lets the cards of its servers carry goes with the server, wherever and however large it is."""

import pytest

from bus.execute import Wish
from handlers.compute.card_limits import card_limits
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import CreateFlavor, SetFlavorExtraSpecs
from schema.compute.server_parts import ServerFlavor
from schema.network.wiring import BandwidthLimit
from tests.compute.networked import networked
from tests.compute.world import wanted

TOWARD = BandwidthLimit(direction="ingress", max_kbps=1000, max_burst_kbps=200)
AWAY = BandwidthLimit(direction="egress", max_kbps=2000)


@pytest.fixture
async def world(settings, fresh_database):
    async with networked(settings, fresh_database) as it:
        specs = {
            "quota:vif_inbound_average": "125",
            "quota:vif_inbound_burst": "25",
            "quota:vif_outbound_average": "250",
        }
        narrow = CreateFlavor(name="narrow", vcpus=1, ram_mb=512, disk_gb=1)
        await it.cloud.executor.execute(
            Wish(FLAVORS, "2", narrow), Wish(FLAVORS, "2", SetFlavorExtraSpecs(extra_specs=specs))
        )
        yield it


async def test_cards_carry_what_the_flavor_lets_them(world):
    member, admin = await world.client(), await world.client("admin")
    networks = [await world.network(name) for name in ("blue", "green")]
    order = wanted(member, flavorRef="2", networks=[{"uuid": networks[0]}])
    id = (await member("POST", "/servers", {"server": order}, expect=202))["server"]["id"]
    await world.becomes(member, id, "ACTIVE")
    attach = {"interfaceAttachment": {"net_id": networks[1]}}
    await member("POST", f"/servers/{id}/os-interface", attach, expect=200)

    async def carried():
        return [port.card_limits for port in await world.ports(device_id=id)]

    assert await carried() == [(TOWARD, AWAY)] * 2
    await member("POST", f"/servers/{id}/action", {"resize": {"flavorRef": "1"}}, expect=202)
    await world.becomes(admin, id, "VERIFY_RESIZE")
    assert await carried() == [(), ()]
    await member("POST", f"/servers/{id}/action", {"revertResize": None}, expect=202)
    await world.becomes(admin, id, "ACTIVE")
    assert await carried() == [(TOWARD, AWAY)] * 2


async def test_a_port_that_leaves_leaves_the_limits_behind(world):
    member = await world.client()
    lent = await world.port(await world.network())
    order = wanted(member, flavorRef="2", networks=[{"port": lent}])
    id = (await member("POST", "/servers", {"server": order}, expect=202))["server"]["id"]
    await world.becomes(member, id, "ACTIVE")
    assert [port.card_limits for port in await world.ports()] == [(TOWARD, AWAY)]
    await member("DELETE", f"/servers/{id}", expect=204)
    await world.gone(member, id)
    assert [(port.id, port.card_limits) for port in await world.ports()] == [(lent, ())]


@pytest.mark.parametrize(
    "specs",
    [{}, {"quota:vif_inbound_burst": "10"}, {"quota:vif_outbound_average": "0"}, {"quota:vif_inbound_average": "many"}],
)
def test_without_an_average_there_is_no_limit(specs):
    assert card_limits(ServerFlavor(id="1", name="any", vcpus=1, ram_mb=1, disk_gb=1, extra_specs=specs)) == ()
