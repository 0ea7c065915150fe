"""The read model of hosts: what was built from the log anew equals what grew, and a delta is all that a host lacks."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Self

import pytest

from bus.cloud import Cloud, open_cloud
from bus.config import Settings
from bus.consumer import ProjectionWorker
from bus.execute import AlreadyTaken
from bus.memory_broker import MemoryBroker
from bus.rebuild import rebuild
from projections import projections
from projections.network import host as host_projection
from projections.network.delta import Delta, Deltas
from projections.network.host import NETWORK_HOSTS, behind
from schema.event import Event, Kind
from schema.network.host import NETWORK_HOST, NetworkHostRegistered
from schema.network.network import NETWORK, NetworkCreated, Segment
from schema.network.port import PORT
from schema.network.port_event import PortCreated, PortDeleted, PortWired
from schema.network.wiring import NetworkHostFacts, Piece, Wiring, encode
from tests.network.history import HAPPENINGS
from tests.network.wiring import bound, ended, happened, take

pytestmark = pytest.mark.law

ROWS = """
SELECT host, key, piece - 'generation' AS piece FROM network_host_v2 WHERE NOT gone ORDER BY host, key
"""


@pytest.fixture
async def cloud(settings: Settings, fresh_database: str) -> AsyncIterator[Cloud]:
    projections()
    cloud = await open_cloud(settings, fresh_database)
    await cloud.start()
    yield cloud
    await cloud.close()


class Happening:
    """A log that histories happen to, one append after the other."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.documents = {}
        self.waiting: list[tuple[Kind, str, tuple[Event, ...]]] = []

    def happens(self, kind: Kind, id: str, *events: Event) -> None:
        self.waiting.append((kind, id, events))

    async def some(self, chance: Random, steps: int) -> None:
        for _ in range(steps):
            chance.choice(HAPPENINGS)(self, chance)
            for kind, id, events in self.waiting:
                try:
                    [document] = await self._cloud.executor.execute(happened(kind, id, *events))
                except AlreadyTaken:
                    continue
                self.documents[document.stream] = document
            self.waiting.clear()


class Watched:
    """A worker, and what it told after its commits."""

    def __init__(self, cloud: Cloud, broker: MemoryBroker | None = None) -> None:
        self.told: list[Deltas] = []
        self.worker = ProjectionWorker(
            cloud.pool, cloud.log, broker or cloud.broker, cloud.checkpoints, NETWORK_HOSTS, self._heard
        )

    async def _heard(self, deltas: Deltas) -> None:
        self.told.append(deltas)

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.worker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self.task)


async def contents(cloud: Cloud) -> list[tuple]:
    return [tuple(row) for row in await cloud.pool.fetch(ROWS)]


async def reached(cloud: Cloud) -> None:
    assert await NETWORK_HOSTS.caught_up(cloud.pool, timeout_seconds=20.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_is_built_anew_is_what_grew(cloud: Cloud, fresh_database: str, seed: int):
    happening, chance = Happening(cloud), Random(seed)
    async with Watched(cloud):
        await happening.some(chance, 250)
        await reached(cloud)
    async with Watched(cloud):  # a restart in between
        await happening.some(chance, 100)
        await reached(cloud)
    grown = await contents(cloud)
    assert len(grown) > 4
    assert NETWORK_HOSTS.name in (await rebuild(fresh_database)).projections
    assert await contents(cloud) == []
    async with Watched(cloud, MemoryBroker()):
        await reached(cloud)
    assert await contents(cloud) == grown
    assert await cloud.pool.fetchval("SELECT count(*) FROM parked") == 0


async def test_a_worker_that_begins_again_writes_nothing_that_is_there(cloud: Cloud):
    happening, chance = Happening(cloud), Random(5)
    async with Watched(cloud):
        await happening.some(chance, 120)
        await reached(cloud)
    before = await cloud.pool.fetch("SELECT * FROM network_host_v2 ORDER BY host, key")
    async with Watched(cloud) as watched:
        facts = NetworkHostFacts(endpoint_ip="172.31.9.9")
        await cloud.executor.execute(happened(NETWORK_HOST, "other", NetworkHostRegistered(agent_id="a", facts=facts)))
        await reached(cloud)
    after = await cloud.pool.fetch("SELECT * FROM network_host_v2 ORDER BY host, key")
    assert after == before
    assert watched.told == [] or all(key.startswith(("port/", "router/")) for key in _keys(watched.told))


def _keys(told: list[Deltas]) -> list[str]:
    every = [delta for deltas in told for delta in deltas.values()]
    return [key for it in (*every, *(it for delta in every for it in delta.common)) for key in (*it.pieces, *it.gone)]


@pytest.mark.parametrize("seed", [11, 12])
async def test_whoever_follows_deltas_or_asks_for_what_it_lacks_holds_everything(cloud: Cloud, seed: int):
    """One host hears every word after a commit, one only asks now and then: both end with what the table has."""
    happening, chance = Happening(cloud), Random(seed)
    followed: dict[str, dict[str, Piece]] = {}
    asking: dict[str, tuple[int, dict[str, Piece]]] = {host: (0, {}) for host in ("h0", "h1", "h2")}
    async with Watched(cloud) as watched:
        for _ in range(8):
            await happening.some(chance, 30)
            await reached(cloud)
            if chance.random() < 0.6:
                await _ask(cloud, asking)
        await _ask(cloud, asking)
    positions: dict[str, int] = {}
    for deltas in watched.told:
        for host, delta in deltas.items():
            assert delta.since == positions.get(host, 0) < delta.position
            positions[host] = delta.position
            take(followed.setdefault(host, {}), delta, host)
    assert await _ask(cloud, asking) == {}
    held = {host: followed.get(host, {}) for host in asking}
    assert {host: pieces for host, (_, pieces) in asking.items()} == held


async def _ask(cloud: Cloud, asking: dict[str, tuple[int, dict[str, Piece]]]) -> Deltas:
    lacking = await behind(cloud.pool, {host: position for host, (position, _) in asking.items()})
    for host, delta in lacking.items():
        pieces = {} if delta.full else dict(asking[host][1])
        take(pieces, delta, host)
        asking[host] = (delta.position, pieces)
    return lacking


async def test_who_holds_something_from_before_the_tombstones_is_told_everything(cloud: Cloud, monkeypatch):
    monkeypatch.setattr(host_projection, "KEPT_POSITIONS", 5)
    monkeypatch.setattr(host_projection, "PRUNED_EVERY_POSITIONS", 1)
    async with Watched(cloud):
        await cloud.executor.execute(happened(PORT, "p1", PortCreated(parent_id="n1", mac_address="p1"), bound("h1")))
        await cloud.executor.execute(happened(PORT, "p2", PortCreated(parent_id="n1", mac_address="p2"), bound("h1")))
        await reached(cloud)
        held = await cloud.pool.fetchval("SELECT max(position) FROM network_host_v2")
        await cloud.executor.execute(happened(PORT, "p1", PortDeleted()))
        for number in range(10):
            elsewhere = PortCreated(parent_id="n9", mac_address=str(number))
            await cloud.executor.execute(happened(PORT, f"x{number}", elsewhere, bound("h9")))
            await reached(cloud)
    assert not await cloud.pool.fetchval("SELECT EXISTS (SELECT FROM network_host_v2 WHERE key = 'port/p1')")
    told = (await behind(cloud.pool, {"h1": held}))["h1"]
    assert told.full
    assert set(told.pieces) == {"port/p2"}
    assert await behind(cloud.pool, {"h1": told.position}) == {}


async def test_who_holds_more_than_there_is_has_it_from_another_log_and_is_told_everything(cloud: Cloud):
    async with Watched(cloud):
        await cloud.executor.execute(happened(PORT, "p1", PortCreated(parent_id="n1", mac_address="p1"), bound("h1")))
        await reached(cloud)
    told = (await behind(cloud.pool, {"h1": 1_000_000}))["h1"]
    assert told.full
    assert set(told.pieces) == {"port/p1"}


async def test_hosts_are_told_nothing_from_a_read_model_that_is_yet_to_be_built(cloud: Cloud):
    assert await behind(cloud.pool, {"h1": 0, "h2": 7}) == {}


async def test_that_its_port_is_active_is_no_news_to_a_host(cloud: Cloud):
    async with Watched(cloud) as watched:
        await cloud.executor.execute(happened(PORT, "p1", PortCreated(parent_id="n1", mac_address="p1"), bound("h1")))
        await reached(cloud)
        assert len(watched.told) == 1
        await cloud.executor.execute(happened(PORT, "p1", PortWired(up=True)))
        await reached(cloud)
    assert len(watched.told) == 1


async def test_a_thousand_hosts_that_restart_are_told_what_changed_and_no_more(cloud: Cloud):
    """2,000 ports in 200 networks over 1,000 hosts; while all agents are away, 20 ports come."""
    async with Watched(cloud):
        await asyncio.gather(
            *(
                cloud.executor.execute(
                    happened(NETWORK, f"n{n}", NetworkCreated(segments=(Segment(id="g", segmentation_id=n + 1),)))
                )
                for n in range(200)
            )
        )
        await asyncio.gather(*(_born(cloud, n) for n in range(2000)))
        await reached(cloud)
        full = await behind(cloud.pool, {f"h{n}": 0 for n in range(1000)})
        holding = {host: delta.position for host, delta in full.items()}
        assert len(holding) == 1000
        await asyncio.gather(*(_born(cloud, n) for n in range(2000, 2020)))
        await reached(cloud)
    lacking = await behind(cloud.pool, holding)
    written = await cloud.pool.fetchval(
        "SELECT sum(length(piece::text)) FROM network_host_v2 WHERE position > $1", max(holding.values())
    )
    said = sum(_bytes(delta) for delta in lacking.values())
    assert not any(delta.full for delta in lacking.values())
    assert len(lacking) < 300
    assert said <= written + 200 * len(lacking)
    assert said < sum(_bytes(delta) for delta in full.values()) / 20


async def _born(cloud: Cloud, number: int) -> None:
    created = PortCreated(parent_id=f"n{number % 200}", mac_address=f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}")
    await cloud.executor.execute(happened(PORT, f"p{number}", created, bound(f"h{number % 1000}")))


def _bytes(delta: Delta) -> int:
    wiring = Wiring(
        epoch=1,
        position=delta.position,
        since=delta.since,
        full=delta.full,
        pieces=delta.pieces,
        gone=tuple(delta.gone),
        common=tuple(it.encoded for it in delta.common),
    )
    return len(encode(wiring))
