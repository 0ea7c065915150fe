"""The network agent: holds what its host must have, has the driver bring the host there, and tells what became of it.

    Wiring ─▶ pieces (and the file) ─▶ touched ─┐
    sweep, and somebody else's changes ─────────┼─▶ driver.apply, one at a time ─▶ faults ─▶ outgoing ─▶ report
    faults, after a while ──────────────────────┘

It starts from its file, wired as it was, whether the control plane is there or not. A delta that does not follow what
it holds is asked for again by a heartbeat. Without a lease ports stay as they are, but routers, which another host may
have been given, are taken down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from agents.network.driver import Faults, NetworkDriver
from agents.network.link import NetworkLink
from agents.network.outbox import Outbox, Seen
from agents.network.store import Held, NoStore, Store
from agents.network.told import told
from agents.network.world import World
from agents.tenure import Tenure
from bus import clock
from schema.compute.domain import Lease
from schema.network.wiring import (
    InstanceData,
    NetworkHeartbeat,
    NetworkHostFacts,
    Piece,
    PortSeen,
    RouterSeen,
    WiredPort,
    WiredRouter,
    Wiring,
)

log = structlog.get_logger()

RETRY_SECONDS = 1.0
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
"""What could not be done is tried again after ever longer pauses, and by every sweep."""
DEBOUNCE_SECONDS = 0.05
"""Somebody else's changes are gathered for so long before they are looked at."""
REPEAT_SECONDS = 60.0
"""How often everything is told again, should a report have been lost."""
GREETING_SECONDS = 1.0
"""How long a starting agent waits for its first lease before it goes by what it held."""


class NetworkAgent:
    """`await run()` until cancelled."""

    def __init__(
        self,
        host: str,
        driver: NetworkDriver,
        link: NetworkLink,
        *,
        store: Store | None = None,
        lease_seconds: float = 5.0,
        sweep_seconds: float = 10.0,
    ) -> None:
        self.host = host
        self._held = Held()
        self._driver = driver
        self._link = link
        self._store: Store = store or NoStore()
        self._lease_seconds = lease_seconds
        self._sweep_seconds = sweep_seconds
        self._tenure = Tenure(
            host, lease_seconds, on_taken=self._taken, on_lapsed=self._lapsed, on_epoch=self._beat_now
        )
        self._outbox = Outbox(host, link, lambda: self.epoch if self.leased else 0, lambda: self.position)
        self._facts = NetworkHostFacts()
        self._world = World({})
        self._touched: set[str] = set()
        self._everything = True
        self._fenced = False
        self._faults: Faults = {}
        self._backoff_seconds = FIRST_BACKOFF_SECONDS
        self._reported: dict[str, Seen] = {}
        self._repeated_at = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake_beat = asyncio.Event()
        self._missed = False
        self._said = 0
        """What it said last that it holds."""
        self._wake_work = asyncio.Event()
        self._wake_save = asyncio.Event()
        self._greeted = asyncio.Event()

    @property
    def epoch(self) -> int:
        """Of its lease; 0 before the first."""
        return self._tenure.epoch

    @property
    def leased(self) -> bool:
        return self._tenure.held

    @property
    def position(self) -> int:
        """Everything told up to here is held."""
        return self._held.position

    @property
    def world(self) -> World:
        """What its host must have, as far as it was told."""
        return self._world

    def _worldly(self, endpoint_ip: str = "") -> World:
        return World(self._held.pieces, self._held.common, host=self.host, endpoint_ip=endpoint_ip)

    async def run(self) -> None:
        """Serve this host. Ends only by cancellation, or if the driver cannot start."""
        self._held = self._store.load()
        self._world = self._worldly()
        try:
            await self._driver.start(self._changed_by_others, self._outbox.ask)
            self._tenure.start()
            async with asyncio.TaskGroup() as tasks:
                for loop in (self._listen, self._beat, self._work, self._sweep, self._save, self._outbox.run):
                    tasks.create_task(self._for_ever(loop), name=f"network of {self.host}: {loop.__name__}")
        finally:
            self._tenure.stop()
            for timer in self._timers.values():
                timer.cancel()
            await self._driver.close()
            await self._link.close()

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except ConnectionError as error:
                log.info("the control plane is away", host=self.host, error=str(error))
            except Exception:
                log.exception("a loop of the network agent failed and begins again", host=self.host)
            await asyncio.sleep(RETRY_SECONDS * (1 + clock.fraction()))

    # What it is told

    async def _listen(self) -> None:
        async for word in self._link.inbox():
            match word:
                case Lease():
                    self._tenure.take(word)
                case Wiring():
                    self._take(word)
                case InstanceData():
                    self._driver.instance(word.port_id, word.server_id, word.seed)

    def _take(self, word: Wiring) -> None:
        if word.epoch < self.epoch:
            return
        self._tenure.meet(word.epoch)
        if not word.full and word.since > self.position:
            self._missed = True  # something between was lost
            self._beat_now()
            return
        if word.position <= self.position and (not word.full or self.position != self._said):
            return  # it has heard something newer since it said what it holds
        self._held, touched = told(self._held, word)
        self._world = self._worldly(self._facts.endpoint_ip)
        self._wake_save.set()
        if touched:
            self._touch(touched)

    # The lease

    async def _beat(self) -> None:
        while True:
            self._wake_beat.clear()
            await self._know_facts()
            number = self._tenure.beat()
            missed, self._missed, self._said = self._missed, False, self.position
            await self._link.report(
                NetworkHeartbeat(
                    host=self.host,
                    epoch=self.epoch,
                    facts=self._facts,
                    beat=number,
                    position=self.position,
                    missed=missed,
                )
            )
            await _wait(self._wake_beat, self._lease_seconds / 3 * (0.9 + 0.2 * clock.fraction()))

    async def _know_facts(self) -> None:
        facts = await self._driver.facts()
        if facts.endpoint_ip != self._world.endpoint_ip:
            self._world = self._worldly(facts.endpoint_ip)
            self._everything = True
            self._wake_work.set()
        self._facts = facts

    def _beat_now(self) -> None:
        self._wake_beat.set()

    def _taken(self) -> None:
        """What was said without this lease may have been said in vain; what was left undone is done."""
        self._greeted.set()
        self._reported.clear()
        self._fenced = False
        self._look_at_everything()
        self._outbox.wake()

    def _lapsed(self) -> None:
        self._fenced = True
        self._look_at_everything()

    # What it does

    def _touch(self, keys: Iterable[str]) -> None:
        self._touched.update(keys)
        self._wake_work.set()

    def _look_at_everything(self) -> None:
        self._everything = True
        self._wake_work.set()

    def _changed_by_others(self) -> None:
        self._later("change", DEBOUNCE_SECONDS, self._look_at_everything)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_seconds)
            self._look_at_everything()

    async def _work(self) -> None:
        await _wait(self._greeted, GREETING_SECONDS)
        while True:
            await self._wake_work.wait()
            self._wake_work.clear()
            everything, self._everything = self._everything, False
            touched, self._touched = self._touched, set()
            try:
                await self._apply(None if everything else frozenset(touched))
            except Exception:
                self._everything |= everything
                self._touched |= touched
                self._later("retry", self._back_off(), self._wake_work.set)
                raise

    async def _apply(self, touched: frozenset[str] | None) -> None:
        """Bring the host to what it must have, and note what became of each piece."""
        fenced, world = self._fenced, self._world
        if fenced:
            await self._driver.fence()
            world = World(_without_routers(world), world.common, host=self.host, endpoint_ip=world.endpoint_ip)
        faults = await self._driver.apply(world, touched)
        if touched is not None:
            faults = {key: text for key, text in self._faults.items() if key not in touched} | faults
        for key, text in faults.items():
            if self._faults.get(key) != text:
                log.warning("a piece of the network is not in place", host=self.host, piece=key, fault=text)
        as_ever = not faults and not self._faults
        self._faults = faults
        if faults:
            self._later("faults", self._back_off(), lambda: self._touch(self._faults))
        else:
            self._backoff_seconds = FIRST_BACKOFF_SECONDS
        routers = dict(await self._driver.routers()) if world.routers else {}
        self._note(world, routers, touched if as_ever else None)

    def _back_off(self) -> float:
        seconds = self._backoff_seconds
        self._backoff_seconds = min(2 * seconds, LONGEST_BACKOFF_SECONDS)
        return seconds

    def _later(self, what: str, seconds: float, then: Callable[[], None]) -> None:
        """Do it once, a while after it was asked for the first time."""
        if what in self._timers:
            return

        def due() -> None:
            del self._timers[what]
            then()

        self._timers[what] = asyncio.get_running_loop().call_later(seconds, due)

    # What it tells

    def _note(self, world: World, routers: dict[str, RouterSeen], touched: frozenset[str] | None) -> None:
        """Tell what differs from what was told, and now and then all of it.

        `touched`: the only keys whose ports may have changed; None: any may, as where something has a fault. A host
        of many ports hears of every member of their groups.
        """
        if clock.monotonic() - self._repeated_at >= REPEAT_SECONDS:
            self._repeated_at = clock.monotonic()
            self._reported.clear()
            touched = None
        words: dict[str, Seen] = {}
        for id in world.ports if touched is None else _ports_among(touched):
            if id in world.ports:
                words[f"port/{id}"] = self._port(world.ports[id])
        for id, router in world.routers.items():
            words[f"router/{id}"] = self._router(router, routers.get(id))
        gone = (self._reported.keys() if touched is None else self._reported.keys() & touched) - words.keys()
        for key in gone:
            self._outbox.drop(key)
            del self._reported[key]
        for key, word in words.items():
            if self._reported.get(key) != word:
                self._outbox.put(key, word)
                self._reported[key] = word

    def _port(self, port: WiredPort) -> PortSeen:
        causes = (f"port/{port.id}", f"network/{port.network_id}", *(f"group/{id}" for id in port.group_ids))
        fault = next((self._faults[key] for key in causes if key in self._faults), None) if self._faults else None
        up = fault is None and port.admin_up
        return PortSeen(port_id=port.id, generation=port.generation, up=up, fault=fault)

    def _router(self, router: WiredRouter, seen: RouterSeen | None) -> RouterSeen:
        fault = self._faults.get(f"router/{router.id}") or (seen.fault if seen else None)
        return RouterSeen(
            router_id=router.id,
            generation=router.generation,
            up=fault is None and router.admin_up,
            fault=fault,
            connections=seen.connections if seen else {},
        )

    async def _save(self) -> None:
        while True:
            await self._wake_save.wait()
            self._wake_save.clear()
            try:
                await self._store.save(self._held)
            except OSError as error:
                log.warning("what is held could not be kept on disk", host=self.host, error=str(error))


def _without_routers(world: World) -> dict[str, Piece]:
    return {key: piece for key, piece in world.own.items() if not isinstance(piece, WiredRouter)}


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _ports_among(keys: Iterable[str]) -> list[str]:
    return [id for what, _, id in (key.partition("/") for key in keys) if what == "port"]
