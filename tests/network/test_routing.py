"""Where routers live: fewest routers first, only where they reach their networks, and elsewhere when a host is lost."""

import asyncio
from typing import Any, cast

import pytest

from bus.cloud import Cloud, open_cloud
from bus.consumer import Reactions
from bus.execute import SYSTEM, Executor, Wish
from bus.memory_log import MemoryLog
from handlers.network.host import NETWORK_HOSTS
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from handlers.network.router import ROUTERS
from handlers.network.routing import RouterReactor, choose, move, needs_of, place_by_hand, seen, take_away_by_hand
from schema.network.host import ChangeNetworkHost, LoseNetworkHost, NetworkHost, RegisterNetworkHost, ReturnNetworkHost
from schema.network.network import CreateNetwork, Network, Segment
from schema.network.port import PORT
from schema.network.port_command import BindPort, CreatePort
from schema.network.router import ROUTER, AddRouterInterface, CreateRouter, ExternalGateway, Router, RouterInterface
from schema.network.wiring import NetworkHostFacts, RouterSeen
from schema.refusal import Conflict

OUTSIDE = NetworkHostFacts(physical_networks=("external",))
INNER = NetworkHostFacts()
AWAY = NetworkHostFacts(routes=False, physical_networks=("external",))


def _host(id, facts=OUTSIDE, *, up=True, enabled=True):
    return NetworkHost(id=id, facts=facts, up=up, enabled=enabled, epoch=1)


def _router(host="", avoids=""):
    gateway = ExternalGateway(network_id="outside", port_id="g")
    return Router(id="r", gateway=gateway, host=host, avoids=avoids)


NEEDS = needs_of(
    _router(),
    {"outside": Network(id="outside", segments=(Segment(id="s", network_type="flat", physical_network="external"),))},
)


def test_the_fitting_host_with_the_fewest_routers_gets_it():
    hosts = [_host("a"), _host("b"), _host("c", INNER), _host("d", AWAY), _host("e", up=False)]
    assert choose(_router(), NEEDS, hosts, {"a": 2, "b": 1}) == "b"
    assert choose(_router(), NEEDS, [_host("c", INNER), _host("d", AWAY)], {}) == ""


def test_it_stays_where_it_is_and_does_not_go_where_it_should_not():
    hosts = [_host("a", enabled=False), _host("b")]
    assert choose(_router(host="a"), NEEDS, hosts, {"a": 9}) == "a"
    assert choose(_router(), NEEDS, hosts, {}) == "b"
    assert choose(_router(avoids="b"), NEEDS, hosts, {}) == ""


def test_its_vpn_is_a_reason_to_go_elsewhere():
    able = NetworkHostFacts(physical_networks=("external",), capabilities=("vpn",))
    router = Router(id="r", host="a", services={"service": ()})
    assert choose(router, needs_of(router, {}), [_host("a"), _host("b", able)], {"b": 5}) == "b"
    assert choose(router, needs_of(_router(), {}), [_host("a"), _host("b", able)], {"b": 5}) == "a"


@pytest.fixture
async def followed(settings, fresh_database):
    """A cloud whose routers are followed through."""
    cloud = await open_cloud(settings, fresh_database)
    reactor = RouterReactor(cloud)
    await cloud.start()
    reactions = Reactions(cloud.log, cloud.executor, cloud.broker, cloud.checkpoints, [reactor])
    task = asyncio.create_task(reactions.run())
    yield cloud
    assert not reactions.parked
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await cloud.close()


async def _until(condition):
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  what is so lies in the database
            await asyncio.sleep(0.01)


async def _register(cloud, *names, facts=OUTSIDE):
    await cloud.executor.execute(
        *(Wish(NETWORK_HOSTS, name, RegisterNetworkHost(agent_id=name, facts=facts)) for name in names)
    )


async def _outside(cloud):
    segment = Segment(id="s", network_type="flat", physical_network="external")
    await cloud.executor.execute(
        Wish(NETWORKS, "outside", CreateNetwork(name="outside", segments=(segment,), external_for=("*",)))
    )


async def _make(cloud, id):
    gateway = ExternalGateway(network_id="outside", port_id=f"g-{id}")
    await cloud.executor.execute(
        Wish(ROUTERS, id, CreateRouter(name=id, gateway=gateway)),
        Wish(PORTS, f"g-{id}", CreatePort(parent_id="outside", mac_address=f"mac {id}", device_id=id)),
    )


async def _homes(cloud):
    return {document.id: document.state.host for document in await cloud.documents.find(ROUTER)}


async def _ports(cloud):
    return {document.state.device_id: document.state.host for document in await cloud.documents.find(PORT)}


async def test_routers_are_spread_and_move_with_their_ports_when_a_host_is_lost(followed):
    await _register(followed, "a", "b")
    await _outside(followed)
    for n in range(6):
        await _make(followed, f"r{n}")

    async def spread():
        homes = list((await _homes(followed)).values())
        return (homes.count("a"), homes.count("b")) == (3, 3)

    await _until(spread)
    await followed.executor.execute(Wish(NETWORK_HOSTS, "a", LoseNetworkHost(epoch=1)))

    async def moved():
        homes = await _homes(followed)
        return set(homes.values()) == {"b"} and await _ports(followed) == homes

    await _until(moved)
    await followed.executor.execute(Wish(NETWORK_HOSTS, "b", LoseNetworkHost(epoch=1)))

    async def nowhere():
        homes = await _homes(followed)
        return set(homes.values()) == {""} and await _ports(followed) == homes

    await _until(nowhere)
    await followed.executor.execute(Wish(NETWORK_HOSTS, "a", ReturnNetworkHost()))

    async def back():
        homes = await _homes(followed)
        return set(homes.values()) == {"a"} and await _ports(followed) == homes

    await _until(back)


async def test_a_router_with_nothing_to_join_has_no_host(followed):
    await _register(followed, "a")
    await followed.executor.execute(Wish(ROUTERS, "r", CreateRouter(name="r")))
    foot = RouterInterface(port_id="i", network_id="n", subnet_ids=("s",))
    await followed.executor.execute(
        Wish(ROUTERS, "r", AddRouterInterface(interface=foot)),
        Wish(PORTS, "i", CreatePort(parent_id="n", mac_address="m", device_id="r")),
    )

    async def placed():
        return await _homes(followed) == {"r": "a"} and await _ports(followed) == {"r": "a"}

    await _until(placed)


async def test_its_feet_are_up_when_its_host_has_it_in_place(followed):
    await _register(followed, "a")
    await _outside(followed)
    await _make(followed, "r")

    async def placed():
        return await _homes(followed) == {"r": "a"}

    await _until(placed)
    await followed.executor.execute(seen("a", RouterSeen(router_id="r", generation=1, up=True)))

    async def up():
        return (await followed.documents.get(PORT, "g-r")).state.status == "ACTIVE"

    await _until(up)


async def test_a_foot_more_is_up_where_the_router_is_in_place(followed):
    await _register(followed, "a")
    await _outside(followed)
    await _make(followed, "r")

    async def placed():
        return await _homes(followed) == {"r": "a"}

    await _until(placed)
    await followed.executor.execute(seen("a", RouterSeen(router_id="r", generation=1, up=True)))
    foot = RouterInterface(port_id="i", network_id="n", subnet_ids=("s",))
    await followed.executor.execute(
        Wish(ROUTERS, "r", AddRouterInterface(interface=foot)),
        Wish(PORTS, "i", CreatePort(parent_id="n", mac_address="m", device_id="r")),
    )

    async def up():
        return {(await followed.documents.get(PORT, id)).state.status for id in ("g-r", "i")} == {"ACTIVE"}

    await _until(up)


async def test_the_feet_of_one_that_is_switched_off_are_up_all_the_same(followed):
    await _register(followed, "a")
    await followed.executor.execute(Wish(ROUTERS, "r", CreateRouter(name="r", admin_state_up=False)))
    foot = RouterInterface(port_id="i", network_id="n", subnet_ids=("s",))
    await followed.executor.execute(
        Wish(ROUTERS, "r", AddRouterInterface(interface=foot)),
        Wish(PORTS, "i", CreatePort(parent_id="n", mac_address="m", device_id="r")),
    )

    async def up():
        return (await followed.documents.get(PORT, "i")).state.status == "ACTIVE"

    await _until(up)


async def test_an_operator_moves_a_router_and_takes_it_away(followed):
    await _register(followed, "a", "b")
    await _register(followed, "c", facts=INNER)
    await _outside(followed)
    await _make(followed, "r")

    async def at(host):
        async def there():
            return await _homes(followed) == {"r": host} and await _ports(followed) == {"r": host}

        await _until(there)

    await at("a")
    await place_by_hand(followed, "r", "b", SYSTEM)
    await at("b")
    with pytest.raises(Conflict):
        await place_by_hand(followed, "r", "c", SYSTEM)
    await take_away_by_hand(followed, "r", "b", SYSTEM)
    await at("a")
    with pytest.raises(Conflict):
        await take_away_by_hand(followed, "r", "b", SYSTEM)


async def test_a_host_that_is_disabled_gets_no_more_routers(followed):
    await _register(followed, "a")
    await _outside(followed)
    await followed.executor.execute(Wish(NETWORK_HOSTS, "a", ChangeNetworkHost(enabled=False)))
    await _make(followed, "r")
    await followed.executor.execute(Wish(NETWORK_HOSTS, "a", ChangeNetworkHost(enabled=True)))

    async def placed():
        return await _homes(followed) == {"r": "a"}

    await _until(placed)


async def test_no_port_is_taken_where_its_router_is_not_by_who_knows_one_of_them_as_it_was():
    log = MemoryLog()
    nothing = cast("Any", None)
    one, other = (
        Cloud(nothing, nothing, log, Executor(log), nothing, nothing, nothing, nothing, nothing) for _ in range(2)
    )
    await _make(one, "r")

    def homes():
        return {log.documents[it].state.host for it in (ROUTER.stream("r"), PORT.stream("g-r"))}

    await move(one, [(log.documents[ROUTER.stream("r")].state, "a")])
    on_a = log.documents[ROUTER.stream("r")].state
    await move(one, [(on_a, "b")])
    assert homes() == {"b"}
    await move(other, [(on_a, "a")])
    assert homes() == {"b"}
    await other.executor.execute(Wish(PORTS, "g-r", BindPort(host="b", vif_type="bridge")))
    await move(one, [(log.documents[ROUTER.stream("r")].state, "a")])
    await move(other, [(log.documents[ROUTER.stream("r")].state, "b")])
    assert homes() == {"b"}
    for cloud in (one, other):
        await cloud.executor.close()
