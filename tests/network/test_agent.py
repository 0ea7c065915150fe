"""The promises of network agents: what is bound is wired at once, what is lost is said again, what was held is kept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.network.driver import Faults, Touched
from agents.network.simulated import SimulatedNetwork
from agents.network.store import FileStore, Held
from agents.network.world import World
from bus import clock
from bus.config import Settings
from projections.network.host import behind
from schema.network.host import NETWORK_HOST
from schema.network.port import PORT
from schema.network.port_event import PortBindingActivated, PortBindingAdded, PortDeleted, PortUnbound, PortUpdated
from schema.network.port_state import Binding
from schema.network.router import ROUTER, RouterCreated, RouterScheduled
from schema.network.wiring import Wiring, decode_to_host, encode, link_name
from tests.network.wiring import Wired, bound, ended, happened, until, wiring


@pytest.fixture
async def wired(settings: Settings, fresh_database: str) -> AsyncIterator[Wired]:
    async with wiring(settings, fresh_database) as it:
        await it.network()
        yield it


def active(wired: Wired, *ports: str):
    async def all_active() -> bool:
        return all([(await wired.state(PORT, id)).status == "ACTIVE" for id in ports])

    return all_active


def overheard(wired: Wired) -> list[tuple[str, Wiring]]:
    """What hosts are told from now on."""
    told: list[tuple[str, Wiring]] = []
    tell = wired.cloud.broker.tell

    async def listening(host: str, message: bytes) -> None:
        word = decode_to_host(message)
        if isinstance(word, Wiring):
            told.append((host.removesuffix(link_name("")), word))
        await tell(host, message)

    wired.cloud.broker.tell = listening  # type: ignore[method-assign]
    return told


def deaf(wired: Wired):
    """Hosts are told nothing until what is returned is called."""
    tell = wired.cloud.broker.tell

    async def lost(host: str, message: bytes) -> None:
        """It goes nowhere."""

    wired.cloud.broker.tell = lost  # type: ignore[method-assign]

    def heal() -> None:
        wired.cloud.broker.tell = tell  # type: ignore[method-assign]

    return heal


async def test_a_port_that_is_bound_becomes_active(wired):
    driver = SimulatedNetwork("h1")
    agent, _ = await wired.agent("h1", driver)
    await wired.port(1, "h1")
    await until(active(wired, "p1"))
    assert set(driver.world.pieces) == {"port/p1", "network/n0"}
    assert driver.world.ports["p1"].addresses[0].prefix_length == 24
    await wired.happens(happened(PORT, "p1", PortDeleted()))
    await until(lambda: not driver.world.pieces)
    assert agent.leased


async def test_a_port_elsewhere_becomes_a_peer(wired):
    here, there = SimulatedNetwork("h1"), SimulatedNetwork("h2")
    await wired.agent("h1", here)
    await wired.agent("h2", there)
    await until(lambda: wired.telling.host("h1") and wired.telling.host("h2"))
    await wired.port(1, "h1")
    await wired.port(2, "h2")
    await until(active(wired, "p1", "p2"))
    await until(lambda: "p2" in here.world.peers and "p1" in there.world.peers)
    endpoint = (await there.facts()).endpoint_ip
    assert here.world.peers["p2"].endpoint_ip == endpoint
    await until(lambda: here.world.networks["n0"].endpoints == (endpoint,))
    await wired.happens(happened(PORT, "p2", PortUnbound()))
    await until(lambda: set(here.world.pieces) == {"port/p1", "network/n0"} and not there.world.pieces)


async def test_a_port_bound_again_to_the_same_host_becomes_active_again(wired):
    await wired.agent("h1")
    await wired.port(1, "h1")
    await until(active(wired, "p1"))
    await wired.happens(happened(PORT, "p1", PortUnbound(), bound("h1")))
    await until(active(wired, "p1"))


async def test_the_host_a_port_may_come_to_says_when_it_is_ready(wired):
    there = SimulatedNetwork("h2", faults={"port/p1": "no such bridge"})
    await wired.agent("h1")
    await wired.agent("h2", there)
    await wired.port(1, "h1")
    await until(active(wired, "p1"))
    await wired.happens(happened(PORT, "p1", PortBindingAdded(binding=Binding(host="h2", status="INACTIVE"))))
    await until(lambda: "p1" in there.world.ports)

    async def ready() -> bool:
        return bool((await wired.state(PORT, "p1")).bound_to("h2").wired)

    assert not await ready()
    there.faults.clear()
    await until(ready)
    assert (await wired.state(PORT, "p1")).status == "ACTIVE"
    await wired.happens(happened(PORT, "p1", PortBindingActivated(host="h2")))
    await until(active(wired, "p1"))
    assert (await wired.state(PORT, "p1")).bound_to("h1").wired


async def test_what_could_not_be_done_is_told_and_tried_again(wired):
    driver = SimulatedNetwork("h1", faults={"port/p1": "no such bridge"})
    await wired.agent("h1", driver)
    await wired.port(1, "h1")
    await until(lambda: _faulty(wired, "no such bridge"))
    assert (await wired.state(PORT, "p1")).status == "DOWN"
    driver.faults.clear()
    await until(active(wired, "p1"))
    assert (await wired.state(PORT, "p1")).fault is None


async def _faulty(wired: Wired, text: str) -> bool:
    return (await wired.state(PORT, "p1")).fault == text


async def test_an_agent_that_was_away_resumes_with_a_delta(wired, tmp_path: Path):
    store = FileStore(tmp_path / "h1.json")
    agent, task = await wired.agent("h1", store=store)
    for number in range(1, 11):
        await wired.port(number, "h1")
    await until(active(wired, *(f"p{number}" for number in range(1, 11))))
    await until(lambda: store.load().position == agent.position > 0)
    await ended(task)
    await wired.port(11, "h1")
    await wired.happens(happened(PORT, "p1", PortDeleted()))
    await until(lambda: _in_table(wired, "port/p11"))
    await until(lambda: _gone(wired, "port/p1"))
    told = overheard(wired)
    driver = SimulatedNetwork("h1")
    await wired.agent("h1", driver, store)
    await until(active(wired, "p11"))
    await until(lambda: set(driver.world.ports) == {f"p{number}" for number in range(2, 12)})
    assert told
    # In one word or in several: what it had missed, and nothing that it had.
    assert not any(word.full for _, word in told)
    assert {key for _, word in told for key in (*word.pieces, *word.gone)} <= {"port/p11", "port/p1"}


async def _gone(wired: Wired, key: str) -> bool:
    return bool(await wired.cloud.pool.fetchval("SELECT gone FROM network_host_v2 WHERE key = $1", key))


async def test_an_agent_starts_wired_without_a_control_plane(settings, tmp_path: Path, wired):
    store = FileStore(tmp_path / "h1.json")
    agent, task = await wired.agent("h1", store=store)
    await wired.port(1, "h1")
    await until(active(wired, "p1"))
    await until(lambda: store.load().position == agent.position > 0)
    await ended(task)
    deaf(wired)
    driver = SimulatedNetwork("h1")
    await wired.agent("h1", driver, store)
    await until(lambda: set(driver.world.ports) == {"p1"})


async def test_a_lost_word_is_made_good_by_the_next_heartbeat(settings, fresh_database):
    async with wiring(settings, fresh_database, lease_seconds=1.5) as wired:
        await wired.network()
        driver = SimulatedNetwork("h1")
        await wired.agent("h1", driver)
        await wired.port(1, "h1")
        await until(active(wired, "p1"))
        heal = deaf(wired)
        await wired.port(2, "h1")
        await until(lambda: _in_table(wired, "port/p2"))
        heal()
        await until(active(wired, "p2"), seconds=1.5)


async def _in_table(wired: Wired, key: str) -> bool:
    return bool(await wired.cloud.pool.fetchval("SELECT EXISTS (SELECT FROM network_host_v2 WHERE key = $1)", key))


async def test_a_delta_that_does_not_follow_is_asked_for_again(wired):
    """The very next word tells the agent that it missed one; it does not wait for its next heartbeat."""
    driver = SimulatedNetwork("h1")
    await wired.agent("h1", driver, lease_seconds=60.0)
    await wired.port(1, "h1")
    await until(active(wired, "p1"))
    heal = deaf(wired)
    await wired.port(2, "h1")
    await until(lambda: _in_table(wired, "port/p2"))
    heal()
    await wired.port(3, "h1")
    await until(active(wired, "p2", "p3"), seconds=3.0)


async def test_what_is_on_its_way_to_a_host_is_not_looked_up_again(settings, fresh_database):
    """A heartbeat said before the host heard the last word costs no query; the same one said again does."""
    asked = []

    async def counted(holding):
        asked.append(dict(holding))
        return await behind(wired.cloud.pool, holding)

    async with wiring(settings, fresh_database, lacking=counted) as wired:
        await wired.network()
        agent, _ = await wired.agent("h1", lease_seconds=60.0)
        await wired.port(1, "h1")
        await until(active(wired, "p1"))
        heal = deaf(wired)
        told, held = overheard(wired), agent.position
        await wired.port(2, "h1")
        await until(lambda: any("port/p2" in word.pieces for _, word in told))
        asked.clear()
        await wired.telling.catch_up("h1", held)
        assert not asked
        heal()
        await wired.telling.catch_up("h1", held)
        assert asked == [{"h1": held}]
        await until(active(wired, "p2"))


async def test_everything_told_late_does_not_undo_what_was_told_since(wired):
    driver = Watched("h1")
    await wired.agent("h1", driver, lease_seconds=60.0)
    await wired.port(1, "h1")
    await until(active(wired, "p1"))
    told = overheard(wired)
    await wired.telling.catch_up("h1", 0, missed=True)
    everything = next(word for _, word in told if word.full)
    await wired.port(2, "h1")
    await until(active(wired, "p2"))
    driver.had.clear()
    await wired.cloud.broker.tell(link_name("h1"), encode(everything))
    await wired.port(3, "h1")
    await until(active(wired, "p3"))
    assert all({"p1", "p2"} <= ports for ports in driver.had)


class Watched(SimulatedNetwork):
    """Remembers which ports were in place, each time something became of them."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.had: list[set[str]] = []

    async def apply(self, world: World, touched: Touched) -> Faults:
        self.had.append(set(world.ports))
        return await super().apply(world, touched)


async def test_a_silent_host_is_lost_within_its_lease_and_takes_its_routers_down(settings, fresh_database):
    async with wiring(settings, fresh_database, lease_seconds=1.0) as wired:
        await wired.network()
        driver = SimulatedNetwork("h1")
        await wired.agent("h1", driver)
        await wired.port(1, "h1")
        await wired.happens(happened(ROUTER, "r1", RouterCreated(name="r"), RouterScheduled(host="h1")))
        await until(lambda: "r1" in driver.world.routers)
        heal = deaf(wired)
        await until(lambda: driver.fenced and not driver.world.routers, seconds=2.0)
        assert set(driver.world.ports) == {"p1"}
        heal()
        await until(lambda: "r1" in driver.world.routers)


async def test_a_host_whose_agent_died_is_lost_and_returns_under_another_epoch(settings, fresh_database):
    async with wiring(settings, fresh_database, lease_seconds=1.0) as wired:
        _, task = await wired.agent("h1")
        await until(lambda: wired.telling.host("h1"))
        assert (await wired.state(NETWORK_HOST, "h1")).epoch == 1
        await ended(task)
        before = clock.monotonic()
        await until(lambda: not wired.telling.host("h1").up, seconds=3.0)
        assert clock.monotonic() - before < 2.0
        await wired.agent("h1")
        await until(lambda: wired.telling.host("h1").up)
        assert (await wired.state(NETWORK_HOST, "h1")).epoch == 2


async def test_a_storm_of_changes_ends_with_what_is_right(wired):
    driver = SimulatedNetwork("h1", delay_seconds=0.01)
    await wired.agent("h1", driver)
    await asyncio.gather(*(wired.port(number, "h1") for number in range(100)))
    await asyncio.gather(
        *(wired.happens(happened(PORT, f"p{n}", PortUpdated(dns_name=f"web{n}"))) for n in range(0, 100, 2)),
        *(wired.happens(happened(PORT, f"p{n}", PortDeleted())) for n in range(1, 100, 2)),
    )
    await until(active(wired, *(f"p{n}" for n in range(0, 100, 2))))
    await until(lambda: {it.hostname for it in driver.world.ports.values()} == {f"web{n}" for n in range(0, 100, 2)})
    assert len(driver.applied) < 100  # what gathers while one is under way is done together


async def test_what_is_kept_survives_a_torn_file(tmp_path: Path):
    store = FileStore(tmp_path / "h1.json")
    await store.save(Held(position=7))
    assert store.load() == Held(position=7)
    assert (tmp_path / "h1.json").stat().st_mode & 0o077 == 0
    (tmp_path / "h1.json").write_bytes(b'{"position": 7, "pie')
    assert store.load() == Held()


async def test_a_bound_port_is_active_in_little_time(wired):
    await wired.agent("h1")
    await wired.port(0, "h1")
    await until(active(wired, "p0"))
    took = []
    for number in range(1, 31):
        await wired.port(number)
        before = clock.monotonic()
        await wired.happens(happened(PORT, f"p{number}", bound("h1")))
        await until(lambda number=number: _heard_of(wired, number))
        took.append(clock.monotonic() - before)
    took.sort()
    assert took[15] < 0.05


async def _heard_of(wired: Wired, number: int) -> bool:
    stream = PORT.stream(f"p{number}")
    return (await wired.cloud.executor.load([stream]))[stream].state.wired
