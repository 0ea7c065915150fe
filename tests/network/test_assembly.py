"""How the parts of a host's networking go together: what comes first, what is told of each, and what waits for what."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping

import pytest

from agents.network import namespace, tap
from agents.network.assembly import Assembly, merged
from agents.network.driver import Faults, Touched
from agents.network.metadata import Metadata
from agents.network.namespace import Namespace
from agents.network.switch import Attachment, bridge_name
from agents.network.world import World
from schema.network.wiring import NetworkHostFacts, RouterSeen, WiredGroup, WiredNetwork
from tests.network.dhcp_place import until
from tests.network.hosts import network, port

ONE, TWO = port(network(), 1, group_ids=("g",)), port(network(), 2)
WORLD = World({f"port/{ONE.id}": ONE, f"port/{TWO.id}": TWO, "group/g": WiredGroup(id="g")})


class Part:
    """Any part: notes what it was given, and says of it what it was told to."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self.name, self._journal = name, journal
        self.faults: Faults = {}
        self.ports: set[str] = set()
        self.touched: Touched = None
        self.fails: Exception | None = None
        self.waits: asyncio.Event | None = None

    async def start(self, on_change: Callable[[], None]) -> None:
        self._journal.append(f"{self.name} starts")

    async def apply(self, world: World, touched: Touched) -> Faults:
        if self.waits:
            await self.waits.wait()
        if self.fails:
            raise self.fails
        self.ports, self.touched = {it.id for it in world.ports.values()}, touched
        self._journal.append(self.name)
        return self.faults

    async def close(self) -> None:
        self._journal.append(f"{self.name} closes")

    # A switch and what holds routers can do more.

    async def facts(self) -> NetworkHostFacts:
        return NetworkHostFacts()

    def bridge_of(self, network: WiredNetwork) -> str:
        return bridge_name(network.id)

    async def attach(self, attachment: Attachment, world: World) -> None: ...

    async def detach(self, port_id: str) -> None: ...

    async def routers(self) -> Mapping[str, RouterSeen]:
        return {}

    async def fence(self) -> None:
        self._journal.append(f"{self.name} falls silent")


class Together:
    def __init__(self, inside: Namespace) -> None:
        self.journal: list[str] = []
        names = ("firewall", "switch", "shaping", "dhcp", "routers")
        self.firewall, self.switch, self.shaping, self.dhcp, self.routers = (Part(it, self.journal) for it in names)
        self.driver = Assembly(
            inside,
            firewall=self.firewall,
            switch=self.switch,
            shaping=self.shaping,
            metadata=Metadata(),
            dhcp=self.dhcp,
            routers=self.routers,
        )


@pytest.fixture
def space() -> Iterator[Namespace]:
    name = f"cl-{os.getpid()}-together"
    namespace.create(name)
    yield Namespace(name)
    namespace.remove(name)


@pytest.fixture
def together(space: Namespace) -> Together:
    return Together(space)


async def test_rules_come_before_taps_and_taps_before_the_rest(together):
    assert await together.driver.apply(WORLD, None) == {}
    assert together.journal[:2] == ["firewall", "switch"]
    assert set(together.journal[2:]) == {"shaping", "dhcp", "routers"}


@pytest.mark.parametrize("blamed", [f"port/{ONE.id}", "group/g"])
async def test_a_port_without_rules_gets_no_tap(together, blamed):
    together.firewall.faults = {blamed: "refused"}
    assert await together.driver.apply(WORLD, None) == {blamed: "refused"}
    assert together.switch.ports == {TWO.id}
    together.firewall.faults = {}
    await together.driver.apply(WORLD, frozenset({blamed}))
    assert together.switch.ports == {ONE.id, TWO.id}
    assert f"port/{ONE.id}" in (together.switch.touched or ())


async def test_a_port_that_has_a_tap_keeps_it_whatever_becomes_of_its_rules(together, space):
    await space.run(tap.create, ONE.tap)
    together.firewall.faults = {f"port/{ONE.id}": "refused"}
    await together.driver.apply(WORLD, None)
    assert together.switch.ports == {ONE.id, TWO.id}


async def test_what_several_parts_say_of_a_piece_is_told_together(together):
    together.switch.faults = {"network/n": "no tunnel"}
    together.dhcp.faults = {"network/n": "DHCP: no foot", "network/m": "DHCP: no address"}
    found = await together.driver.apply(WORLD, None)
    assert found == {"network/n": "no tunnel; DHCP: no foot", "network/m": "DHCP: no address"}
    assert merged([{"a": "x"}, {}, {"a": "x"}]) == {"a": "x"}


async def test_a_part_that_fails_keeps_no_other_from_its_work(together):
    together.dhcp.fails = RuntimeError("dnsmasq is gone")
    with pytest.raises(RuntimeError, match="dnsmasq is gone"):
        await together.driver.apply(WORLD, None)
    assert {"shaping", "routers"} <= set(together.journal)


async def test_a_slow_part_does_not_hold_up_the_others(together):
    together.dhcp.waits = asyncio.Event()
    applying = asyncio.create_task(together.driver.apply(WORLD, None))
    await until(lambda: {"shaping", "routers"} <= set(together.journal))
    assert "dhcp" not in together.journal
    together.dhcp.waits.set()
    assert await applying == {}


async def test_fencing_silences_routers_alone_and_closing_closes_all(together):
    await together.driver.start(lambda: None, lambda port_id, router_id="": None)
    await together.driver.fence()
    await together.driver.close()
    assert [it for it in together.journal if "silent" in it] == ["routers falls silent"]
    assert len([it for it in together.journal if it.endswith("closes")]) == 5
