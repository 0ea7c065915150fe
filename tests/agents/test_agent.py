import asyncio

import pytest

from agents.hypervisor.agent import Agent
from agents.hypervisor.deadline import Deadline, boot_id
from agents.hypervisor.plan import Define, Reboot, Remake, Start, Stop
from agents.hypervisor.simulated import SimulatedDriver
from agents.hypervisor.simulated_store import Simulated, SimulatedStore
from agents.link import BrokerLink
from bus import clock
from schema.compute.domain import Domain, ImageRef, Lease, Observed, Reboots, Seed, encode


def domain(id="a", generation=1, power="running", **more):
    return Domain(server_id=id, name=f"name-{id}", generation=generation, power=power, **more)


async def until_true(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def driver():
    return SimulatedDriver("host-1")


async def test_a_server_lives_and_dies(control, driver):
    await control.start_agent(driver)
    await control.tell(domain(seed=Seed(hostname="web")))
    assert (await control.seen("a", "running")).generation == 1
    assert "web login:" in await control.console("a", 2)
    for generation, power in enumerate(("stopped", "running", "paused", "running", "suspended", "running"), start=2):
        await control.tell(domain(generation=generation, power=power))
        await control.seen("a", power, generation=generation)
    await control.tell(domain(generation=8, power="absent"))
    await control.until(lambda: "a" in control.removed)
    assert driver.domains == {}


async def test_many_servers_changed_together_are_one_report(control, driver):
    await control.start_agent(driver)
    await control.until(lambda: control.beats)
    await control.tell(*(domain(str(n)) for n in range(200)))
    await control.until(lambda: len(control.observed) == 200)
    assert len(control.reports) <= 2


async def test_every_nudge_is_answered_even_if_nothing_is_to_do(control, driver):
    await control.start_agent(driver)
    await control.tell(domain())
    await control.seen("a", "running")
    control.observed.clear()
    await control.tell(domain())
    await control.seen("a", "running")
    await control.tell(domain("never-was", 5, "absent"))
    await control.until(lambda: "never-was" in control.removed)


async def test_late_and_doubled_words_change_nothing(control, driver):
    await control.start_agent(driver)
    await control.tell(domain(generation=3, power="stopped"))
    await control.seen("a", "stopped")
    control.observed.clear()
    await control.tell(domain(generation=2, power="running"))
    assert (await control.seen("a", "stopped")).generation == 3
    await control.tell(domain(generation=4, power="absent"))
    await control.until(lambda: "a" in control.removed)
    control.removed.clear()
    await control.tell(domain(generation=3, power="stopped"))
    await control.until(lambda: "a" in control.removed)
    assert driver.domains == {}


async def test_a_reboot_asked_for_twice_is_done_once(control, driver):
    await control.start_agent(driver)
    await control.tell(domain())
    await control.seen("a", "running")
    again = domain(generation=2, reboots=Reboots(soft=1))
    await control.tell(again)
    await control.seen("a", "running", generation=2)
    control.observed.clear()
    await control.tell(again)
    await control.seen("a", "running", generation=2)
    assert (await control.console("a")).count("powered on") == 2


@pytest.mark.parametrize("more", [{}, {"stop_timeout_seconds": 9}], ids=["said again", "overtaken"])
async def test_a_reboot_that_is_overtaken_is_not_done_twice(control, more):
    rebooting, go = asyncio.Event(), asyncio.Event()

    class Slow(SimulatedDriver):
        async def act(self, step):
            if isinstance(step, Reboot):
                rebooting.set()
                await go.wait()
            await super().act(step)

    await control.start_agent(Slow("host-1"))
    await control.tell(domain())
    await control.seen("a", "running")
    await control.tell(domain(generation=2, reboots=Reboots(soft=1)))
    await rebooting.wait()
    generation = 3 if more else 2
    await control.tell(domain(generation=generation, reboots=Reboots(soft=1), **more))
    await control.tell(domain("other"))
    await control.seen("other", "running")
    go.set()
    await control.seen("a", "running", generation=generation)
    assert (await control.console("a")).count("powered on") == 2


async def test_what_happens_behind_our_back_is_told_and_not_undone(control, driver):
    await control.start_agent(driver)
    await control.tell(domain())
    await control.seen("a", "running")
    driver.lose_power("a")
    await control.seen("a", "stopped")
    await control.tell(domain(generation=2))
    await control.seen("a", "running")
    driver.vanish("a")
    assert (await control.seen("a", "absent")).fault is None


async def test_a_fault_is_told_in_words_and_tried_again(control, driver):
    driver.failure = lambda step: "the image is damaged" if isinstance(step, Define) else None
    await control.start_agent(driver, sweep_seconds=0.05)
    await control.tell(domain(generation=7))
    word = await control.until(
        lambda: control.observed.get("a") and control.observed["a"].fault and control.observed["a"]
    )
    assert (word.fault, word.generation, word.power) == ("the image is damaged", 7, "absent")
    driver.failure = None
    assert (await control.seen("a", "running")).fault is None


async def test_a_delete_does_not_wait_for_a_slow_guest(control, driver):
    stopping = asyncio.Event()

    def delay(step):
        if isinstance(step, Stop):
            stopping.set()
            return 3600
        return 0

    driver.delay = delay
    await control.start_agent(driver)
    await control.tell(domain())
    await control.seen("a", "running")
    await control.tell(domain(generation=2, power="stopped"))
    await stopping.wait()
    await control.tell(domain(generation=3, power="absent"))
    await control.until(lambda: "a" in control.removed)


async def test_heavy_steps_are_limited_and_light_ones_do_not_wait_for_them(control, driver):
    starting = set()
    go = asyncio.Event()

    class Slow(SimulatedDriver):
        async def act(self, step):
            if isinstance(step, Start) and step.server_id != "quick":
                starting.add(step.server_id)
                await go.wait()
            await super().act(step)

    slow = Slow("host-1")
    await control.start_agent(slow, concurrency=3)
    await control.tell(domain("quick"))
    await control.seen("quick", "running")
    await control.tell(*(domain(str(n)) for n in range(10)))
    await control.tell(domain("quick", 2, "stopped"))
    await control.seen("quick", "stopped")
    assert len(starting) == 3
    go.set()
    await control.until(lambda: sum(it.power == "running" for it in control.observed.values()) == 10)


async def test_a_manifest_removes_what_it_does_not_know(control, driver):
    control.manifest = (domain("kept"),)
    await control.start_agent(driver)
    await control.tell(domain("stray"), position=5)
    await control.seen("stray", "running")
    await control.tell(domain("kept"), full=True, position=4)
    await control.seen("kept", "running")
    assert "stray" in driver.domains
    await control.tell(domain("kept"), full=True, position=6)
    await control.until(lambda: "stray" in control.removed)
    assert set(driver.domains) == {"kept"}


async def test_a_manifest_that_comes_while_a_server_is_looked_at_is_heeded(control, driver):
    """Soon, and not only when everything is looked at again."""
    await control.start_agent(driver)
    await control.tell(domain(power="paused"))
    await control.seen("a", "paused")
    await control.stop_agent()
    control.observed.clear()

    successor = _Watched(driver)
    control.manifest = (domain(generation=2),)
    await control.start_agent(successor, sweep_seconds=600)
    await asyncio.wait_for(successor.looked_again.wait(), 5)
    successor.answers.set()
    assert (await control.seen("a", "running")).generation == 2


class _Watched(SimulatedDriver):
    """One whose looking at single servers takes until it `answers`; at everything it may look meanwhile."""

    def __init__(self, before: SimulatedDriver) -> None:
        super().__init__(before.host)
        self.domains = before.domains
        self.answers = asyncio.Event()
        self.looked_again = asyncio.Event()
        self._looks = 0

    async def observe(self, server_ids=None):
        seen = await super().observe(server_ids)
        if server_ids is not None:
            await self.answers.wait()
        else:
            self._looks += 1
            if self._looks == 2:
                self.looked_again.set()
        return seen


async def test_an_agent_without_a_lease_touches_nothing(control, driver):
    control.granting = False
    agent = await control.start_agent(driver, lease_seconds=0.3)
    await control.tell(domain())
    await control.seen("a", "absent")
    assert not agent.leased
    control.granting = True
    control.manifest = (domain(),)
    await control.seen("a", "running")


async def test_a_lapsed_lease_stops_work_and_fences_and_its_return_goes_on(control, driver):
    agent = await control.start_agent(driver, lease_seconds=0.3, fence=True)
    await control.tell(domain())
    await control.tell(domain("moved"))
    await control.seen("a", "running")
    await control.seen("moved", "running")
    control.granting = False
    assert await control.until(lambda: driver.domains["a"].seen.fenced and driver.domains["moved"].seen.fenced)
    assert not agent.leased
    control.epoch = 2
    control.manifest, control.manifest_position = (domain(),), 10
    control.granting = True
    await control.until(lambda: "moved" in control.removed)
    await control.until(lambda: not control.observed["a"].fenced and control.observed["a"].power == "running")
    assert agent.epoch == 2


async def test_an_agent_that_starts_has_no_lease_for_free(control, driver):
    """Its guests stand still before it says a word, and go on when they are known to be its own."""
    driver.domains["a"] = Simulated(Observed(server_id="a", power="running", generation=1, position=1))
    driver.deadlines.save(Deadline(boot=boot_id(), until=clock.boot_seconds() - 1, fences=True))
    control.granting = False
    agent = await control.start_agent(driver, fence=True)
    await control.until(lambda: control.beats)
    assert driver.domains["a"].seen.fenced
    control.manifest, control.granting = (domain(),), True
    agent._wake_beat.set()
    await control.until(lambda: driver.domains["a"].seen.power == "running")
    assert driver.deadlines.load().until > clock.boot_seconds()


async def test_what_is_left_of_a_lease_is_left_to_the_next_agent(control, driver):
    driver.domains["a"] = Simulated(Observed(server_id="a", power="running", generation=1, position=1))
    until = clock.boot_seconds() + 0.5
    driver.deadlines.save(Deadline(boot=boot_id(), until=until, fences=True))
    control.granting = False
    await control.start_agent(driver, fence=True, lease_seconds=30.0)
    await control.until(lambda: control.beats)
    assert driver.domains["a"].seen.power == "running"
    await until_true(lambda: driver.domains["a"].seen.fenced)
    assert clock.boot_seconds() >= until


async def test_a_promise_outlives_the_setting_until_it_is_taken_back(control, driver):
    driver.domains["a"] = Simulated(Observed(server_id="a", power="running", generation=1, position=1))
    driver.deadlines.save(Deadline(boot=boot_id(), until=0.0, fences=True))
    control.granting = False
    agent = await control.start_agent(driver)
    await control.until(lambda: control.beats)
    assert driver.domains["a"].seen.fenced
    assert not control.beats[0].facts.fences
    control.manifest, control.granting = (domain(),), True
    agent._wake_beat.set()
    await control.until(lambda: agent.leased)
    assert not driver.deadlines.load().fences


async def test_nothing_is_promised_without_a_watchdog(control, driver):
    stands = False
    agent = await control.start_agent(driver, fence=True, watched=lambda: stands)
    await control.until(lambda: control.beats)
    assert not control.beats[-1].facts.fences
    stands = True
    agent._wake_beat.set()
    await control.until(lambda: control.beats[-1].facts.fences)


async def test_a_lease_of_the_life_before_is_none(control, driver):
    control.granting = False
    before = await control.start_agent(driver)
    await control.until(lambda: control.beats)
    answered = control.beats[-1].beat
    await control.stop_agent()
    agent = await control.start_agent(driver)
    await control.until(lambda: len(control.beats) > 1)
    await control.broker.tell("host-1", encode(Lease(epoch=1, beat=answered)))
    await control.tell(epoch=1)
    await until_true(lambda: agent.epoch == 1)
    assert not agent.leased
    assert before is not agent


async def test_words_of_an_older_epoch_are_not_heard(control, driver):
    control.epoch = 2
    agent = await control.start_agent(driver)
    await control.until(lambda: agent.epoch == 2 and agent.leased)
    await control.tell(domain("old"), epoch=1)
    await control.tell(domain("new"))
    await control.seen("new", "running")
    assert "old" not in control.observed
    assert "old" not in driver.domains


async def test_a_manifest_of_the_lease_before_removes_nothing(control, driver):
    driver.domains["a"] = Simulated(Observed(server_id="a", power="running", generation=1, position=1))
    control.granting = False
    control.manifest = None
    agent = await control.start_agent(driver)
    await control.until(lambda: control.beats)
    await control.tell(domain(), full=True, position=5, epoch=1)  # read before the host was lost …
    control.epoch = 2
    control.granting = True
    await control.tell(epoch=2)  # … and heard before the new lease
    agent._wake_beat.set()
    await control.until(lambda: agent.epoch == 2 and agent.leased)
    agent._wake_beat.set()
    await control.until(lambda: control.beats[-1].epoch == 2)
    assert control.beats[-1].manifest_wanted
    assert set(driver.domains) == {"a"}
    assert not control.removed


async def test_reports_that_did_not_get_through_are_made_again(control, driver):
    link = BrokerLink(await control.broker.link("host-1"))
    broken = True
    tried = asyncio.Event()
    through = link.report

    async def report(message):
        if broken:
            tried.set()
            raise ConnectionError("the bus is away")
        await through(message)

    link.report = report
    await control.broker.listen(control._hear)
    running = asyncio.create_task(Agent("host-1", driver, link).run())
    await control.until(lambda: control.beats)
    await control.tell(domain())
    await tried.wait()
    broken = False
    await control.seen("a", "running")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_domains_outlive_the_agent_and_are_found_again(control, tmp_path):
    await control.start_agent(SimulatedDriver("host-1", store=SimulatedStore(tmp_path)))
    await control.tell(domain(), domain("b", 4, "stopped"))
    await control.seen("a", "running")
    await control.seen("b", "stopped")
    await control.stop_agent()
    control.observed.clear()
    control.manifest = (domain(), domain("b", 4, "stopped"))
    again = SimulatedDriver("host-1", store=SimulatedStore(tmp_path))
    await control.start_agent(again)
    assert (await control.seen("b", "stopped")).generation == 4
    await control.seen("a", "running")
    assert (await control.console("a")).count("powered on") == 1


async def test_a_console_of_nobody_is_a_fault(control, driver):
    await control.start_agent(driver)
    await control.until(lambda: control.beats)
    assert "holds no server x" in await control.console("x")


async def test_a_root_disk_is_made_anew_or_the_guest_is_left_as_it_was(control, driver):
    await control.start_agent(driver)
    await control.tell(domain())
    await control.seen("a", "running")
    driver.failure = lambda step: "no such image" if isinstance(step, Remake) else None
    await control.tell(domain(generation=2, remade=1))
    await control.until(lambda: control.observed["a"].fault is not None)
    assert (control.observed["a"].power, control.observed["a"].remade) == ("running", 0)
    driver.failure = None
    await control.tell(domain(generation=3, remade=2))
    await control.seen("a", "running", generation=3)
    assert control.observed["a"].remade == 2
    assert "the root disk is made anew" in await control.console("a")


async def test_a_guest_is_rescued_and_brought_back(control, driver):
    await control.start_agent(driver)
    await control.tell(domain())
    await control.seen("a", "running")
    await control.tell(domain(generation=2, rescue=ImageRef(id="i", url="file:///i")))
    await control.seen("a", "running", generation=2)
    assert control.observed["a"].rescued
    await control.tell(domain(generation=3))
    await control.seen("a", "running", generation=3)
    assert not control.observed["a"].rescued
