"""No address twice, under any interleaving of processes, and a released one returns."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.cloud import Cloud, open_cloud
from bus.execute import Executor, Wish
from bus.log import Append
from bus.memory_log import MemoryLog
from handlers.network.addressing import Wanted, readdressing, unmaking, with_addresses
from handlers.network.network import NETWORKS
from handlers.network.plugging import PortWanted, planned
from handlers.network.replugging import addresses_after
from handlers.network.subnet import SUBNETS
from schema.network.network import AddNetworkSubnet, CreateNetwork
from schema.network.port import PORT
from schema.network.subnet import SUBNET, CreateSubnet, Pool
from schema.refusal import Conflict, NotFound
from tests.network.routed import addresses, network, subnet


class Interleaved(MemoryLog):
    """Lets others go first for so many turns before each load and append."""

    def __init__(self, turns: list[int]) -> None:
        super().__init__()
        self._turns = turns or [0]
        self._calls = 0

    async def _wait(self) -> None:
        self._calls += 1
        for _ in range(self._turns[self._calls % len(self._turns)]):
            await asyncio.sleep(0)

    async def append(self, append: Append) -> int:
        await self._wait()
        return await super().append(append)

    async def load(self, streams: Any) -> Any:
        await self._wait()
        return await super().load(streams)


def _process(log: MemoryLog) -> Cloud:
    """As much of a process as addresses need."""
    nothing = cast("Any", None)
    return Cloud(nothing, nothing, log, Executor(log), nothing, nothing, nothing, nothing, nothing)


async def _plug(cloud: Cloud, wanted: list[Wanted] | None, count: int) -> None:
    async def attempt(picks: Any) -> None:
        ask = PortWanted(network_id="n", project_id="", fixed_ips=wanted, security_group_ids=())
        ports = await planned(cloud, picks, [ask] * count)
        await cloud.executor.execute(*(wish for port in ports for wish in port.wishes))

    await with_addresses(cloud, attempt)


async def _change(cloud: Cloud, id: str, wanted: list[Wanted] | None) -> None:
    """To other addresses; None: to none, and gone."""

    async def attempt(picks: Any) -> None:
        port = (await cloud.executor.load([PORT.stream(id)]))[PORT.stream(id)].state
        if wanted is None:
            await cloud.executor.execute(*unmaking(port))
            return
        after = await addresses_after(picks, port, wanted, "", port.mac_address)
        if after != port.fixed_ips:
            await cloud.executor.execute(*readdressing(port, after))

    await with_addresses(cloud, attempt)


wants = st.sampled_from([None, [], [Wanted(ip="10.0.0.3")], [Wanted(subnet_id="s")], [Wanted(subnet_id="s")] * 2])
steps = st.one_of(
    st.tuples(st.just("plug"), st.integers(0, 2), wants, st.integers(1, 2)),
    st.tuples(st.just("change"), st.integers(0, 2), wants, st.integers(0, 5)),
)


@pytest.mark.law
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(steps, max_size=6), max_size=5), st.lists(st.integers(0, 3), max_size=7))
def test_ports_and_subnet_agree_who_has_what_whatever_happens_at_once(rounds, turns):
    asyncio.run(_agree(rounds, turns))


async def _agree(rounds: list[list[tuple[Any, ...]]], turns: list[int]) -> None:
    log = Interleaved(turns)
    clouds = [_process(log) for _ in range(3)]
    await _lay(clouds[0], "10.0.0.2", "10.0.0.6")
    for round in rounds:
        there = sorted(it.id for it in _ports(log))
        work = [
            _plug(clouds[process], wanted, number)
            if what == "plug"
            else _change(clouds[process], there[number % len(there)], wanted)
            for what, process, wanted, number in round
            if what == "plug" or there
        ]
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, (Conflict, NotFound)):
                raise outcome
        held = [(fixed.ip_address, it.id) for it in _ports(log) for fixed in it.fixed_ips]
        allocation = log.documents[SUBNET.stream("s")].state.allocation
        assert len({ip for ip, _ in held}) == len(held) == len(allocation)
        assert all(allocation.given_to(ip, id) for ip, id in held)
    for document in list(_ports(log)):
        await _change(clouds[0], document.id, None)
    assert log.documents[SUBNET.stream("s")].state.taken == b""
    for cloud in clouds:
        await cloud.executor.close()


async def test_a_port_is_not_given_its_own_address_again_by_who_knows_an_older_subnet():
    log = MemoryLog()
    one, other = _process(log), _process(log)
    await _lay(one, "10.0.0.2", "10.0.0.3")
    await _plug(other, [Wanted(ip="10.0.0.2")], 1)
    [port] = _ports(log)
    await _change(one, port.id, [Wanted(subnet_id="s")] * 2)
    other.executor.forget([PORT.stream(port.id)])
    with pytest.raises(Conflict, match="No more IP addresses"):
        await _change(other, port.id, [Wanted(subnet_id="s")] * 3)
    [port] = _ports(log)
    assert sorted(it.ip_address for it in port.fixed_ips) == ["10.0.0.2", "10.0.0.3"]
    for cloud in (one, other):
        await cloud.executor.close()


async def _lay(cloud: Cloud, first: str, last: str) -> None:
    """One subnet, with so many addresses."""
    pools = (Pool(start=first, end=last),)
    await cloud.executor.execute(
        Wish(NETWORKS, "n", CreateNetwork()),
        Wish(SUBNETS, "s", CreateSubnet(parent_id="n", cidr="10.0.0.0/29", pools=pools)),
        Wish(NETWORKS, "n", AddNetworkSubnet(subnet_id="s")),
    )


def _ports(log: MemoryLog) -> list[Any]:
    return [it.state for name, it in log.documents.items() if name.startswith("port/") and it.state.living]


async def test_two_processes_fill_a_subnet_to_the_last_address(settings, fresh_database):
    clouds = [await open_cloud(settings, fresh_database) for _ in range(2)]
    for cloud in clouds:
        await cloud.start()
    id = await network(clouds[0])
    await subnet(clouds[0], id, "10.0.0.0/25", "10.0.0.1", "10.0.0.2", "10.0.0.126")
    attempts = 0

    async def plug(cloud: Cloud) -> str:
        async def attempt(picks: Any) -> str:
            nonlocal attempts
            attempts += 1
            [port] = await planned(cloud, picks, [PortWanted(network_id=id, project_id="p")])
            await cloud.executor.execute(*port.wishes)
            return port.fixed_ips[0].ip_address

        return await with_addresses(cloud, attempt)

    first = await asyncio.gather(*(plug(clouds[n % 2]) for n in range(60)))
    assert len(set(first)) == 60
    assert attempts < 60 * 2, "a lost race costs one more pick"
    outcomes = await asyncio.gather(*(plug(clouds[n % 2]) for n in range(80)), return_exceptions=True)
    later = [it for it in outcomes if isinstance(it, str)]
    refused = [it.code for it in outcomes if isinstance(it, Conflict)]
    assert len({*first, *later}) == 125
    assert refused == ["IpAddressGenerationFailure"] * 15
    assert set(await addresses(clouds[1])) == {*first, *later}
    for cloud in clouds:
        await cloud.close()
