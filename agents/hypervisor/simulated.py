"""A hypervisor that only pretends: domains are numbers in memory, so that one process can play a thousand hosts.

Its domains may be kept in a store, as a real host's outlive its agent. What a test or a simulation wants to go wrong is
said by `delay` and `failure`; what happens behind the agent's back, by `lose_power`, `crash` and `vanish`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Literal
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from agents.hypervisor import pretended, snapshotting
from agents.hypervisor.deadline import Deadlines, MemoryDeadlines
from agents.hypervisor.driver import Dial, NoAgent, NotRunning, OnChange, OnProgress, Passing, StepFailed, Unsupported
from agents.hypervisor.hardware import dedicated, pretended_cells, pretended_devices
from agents.hypervisor.plan import (
    Adopt,
    AwaitTaps,
    Define,
    DropKept,
    Pause,
    Plug,
    Prepare,
    Reboot,
    Remake,
    Remove,
    Rescue,
    Resize,
    Send,
    Start,
    Step,
    Stop,
    Suspend,
    TakeSnapshot,
    Unpause,
    Unplug,
    Unrescue,
    Unresize,
)
from agents.hypervisor.simulated_store import Simulated, SimulatedStore
from agents.hypervisor.wishes import has_agent
from bus.config import Hardware
from schema.compute.domain import Domain, HostFacts, ImageRef, Observed, PowerSeen
from schema.compute.question import ConsoleKind, Diagnosis, DiskUse, Leftover, MoveMeasured, NicUse

CONSOLE_BYTES = 16 * 1024
"""Kept of one console, at most."""


_HOSTS: WeakValueDictionary[str, SimulatedDriver] = WeakValueDictionary()
"""Those of this process, for what goes from one to another."""


class SimulatedDriver:
    """`Driver` in memory. `delay(step)` seconds pass before a step is done; `failure(step)` says why it fails instead.

    `store`: where its domains are kept; None: they end with the process.
    """

    def __init__(
        self,
        host: str,
        *,
        vcpus: int = 64,
        memory_mb: int = 262_144,
        disk_gb: int = 4_096,
        booted_at: int = 0,
        hardware: Hardware | None = None,
        delay: Callable[[Step], float] | None = None,
        failure: Callable[[Step], str | None] | None = None,
        store: SimulatedStore | None = None,
    ) -> None:
        self.host = host
        self.domains: dict[str, Simulated] = {}
        self.files: list[Leftover] = []
        """Those it pretends that something left behind."""
        self.deadlines: Deadlines = MemoryDeadlines()
        self.images: set[str] = set()
        """Those that it was told to have at hand."""
        self.measured: dict[str, float] = {}
        """What it says its metrics are."""
        self.delay = delay
        self.failure = failure
        hardware = hardware or Hardware()
        threads = hardware.simulated_threads
        cells = pretended_cells(hardware, vcpus, memory_mb)
        self._facts = HostFacts(
            hostname=host,
            hypervisor_type="simulated",
            hypervisor_version=1_000_000,
            arch="x86_64",
            vcpus=vcpus,
            memory_mb=memory_mb,
            disk_gb=disk_gb,
            cpu_info={
                "arch": "x86_64",
                "model": "simulated",
                "vendor": "Cumulog",
                "topology": {"sockets": 1, "cores": vcpus // threads, "threads": threads},
                "features": [],
            },
            booted_at=booted_at,
            cells=cells,
            dedicated_cpus=dedicated(hardware.dedicated_cpus, cells),
            devices=pretended_devices(hardware),
        )
        self._store = store
        self._on_change: OnChange | None = None
        _HOSTS[host] = self

    async def start(self, on_change: OnChange, on_progress: OnProgress) -> None:
        self._on_change = on_change
        if self._store:
            self.domains = self._store.domains(self.host)

    async def close(self) -> None:
        self._on_change = None
        if self._store:
            self._store.save()

    def metrics(self) -> dict[str, float]:
        return self.measured

    async def facts(self) -> HostFacts:
        return self._facts

    async def observe(self, server_ids: Collection[str] | None = None) -> dict[str, Observed]:
        if server_ids is None:
            return {id: domain.seen for id, domain in self.domains.items()}
        return {id: self.domains[id].seen for id in server_ids if id in self.domains}

    async def leftovers(self, hosts: Collection[str] = ()) -> list[Leftover]:
        return self.files

    async def clear(self, names: Collection[str], hosts: Collection[str] = ()) -> None:
        self.files = [it for it in self.files if it.name not in names]

    async def act(self, step: Step) -> None:
        if self.delay:
            seconds = self.delay(step)
            if seconds > 0:
                await asyncio.sleep(seconds)
        if self.failure:
            why = self.failure(step)
            if why:
                raise StepFailed(why)
        if isinstance(step, TakeSnapshot) and step.server_id in self.domains:
            await self._send_copy(step)
        self._do(step)
        self._changed(step.server_id)

    async def _send_copy(self, step: TakeSnapshot) -> None:
        """A disk that is as empty as everything here."""
        wanted = step.domain.snapshot
        assert wanted
        await snapshotting.send(wanted, pretended.disk_image(step.domain.disk_gb), lambda done, whole: None)

    async def console(self, server_id: str, lines: int | None) -> str:
        domain = self.domains.get(server_id)
        if domain is None:
            raise StepFailed(f"host {self.host} holds no server {server_id}")
        if lines is None:
            return domain.console
        return "".join(domain.console.splitlines(keepends=True)[-lines:]) if lines > 0 else ""

    async def fetch_image(self, image: ImageRef) -> None:
        self.images.add(image.id)

    async def find_console(self, server_id: str, kind: ConsoleKind) -> Dial:
        domain = self._awake(server_id)
        if kind == "spice":
            raise Unsupported("a simulated guest has no SPICE")
        name = domain.name or server_id

        def heard(words: str) -> None:
            self._awake(server_id)
            self._write(server_id, words)

        part = pretended.screen(name) if kind == "vnc" else pretended.line(f"{name} login: ", heard)
        return lambda: pretended.play(part)

    async def diagnose(self, server_id: str) -> Diagnosis:
        domain = self._awake(server_id)
        return Diagnosis(
            hypervisor="simulated",
            cpu_nanoseconds=(0,) * domain.vcpus,
            memory_maximum_kb=domain.ram_mb * 1024,
            memory_used_kb=domain.ram_mb * 1024,
            memory={"actual": domain.ram_mb * 1024},
            disks=(DiskUse(device="vda", errors_count=0),),
            nics=tuple(NicUse(tap=tap, mac_address=domain.macs.get(tap, "")) for tap in domain.seen.taps),
        )

    async def open_passage(self, server_id: str, way: Literal["copy", "live"]) -> Passing:
        if server_id not in self.domains:
            raise NotRunning(f"host {self.host} holds no server {server_id}")
        return Passing(disks={"disk": 1024**3})

    async def measure_move(self, server_id: str) -> MoveMeasured:
        total = self._awake(server_id).ram_mb * 1024**2
        return MoveMeasured(memory_total=total, memory_remaining=total)

    async def force_move(self, server_id: str) -> None:
        self._awake(server_id)

    async def set_password(self, server_id: str, user: str, password: str) -> None:
        if not self._awake(server_id).agent:
            raise NoAgent("the image does not say hw_qemu_guest_agent, so its guest has no agent")
        self._write(server_id, f"simulated: {user} has another password")

    async def crash_guest(self, server_id: str) -> None:
        self._awake(server_id)
        self._write(server_id, "simulated: NMI received; a crash dump is pretended")

    def _awake(self, server_id: str) -> Simulated:
        domain = self.domains.get(server_id)
        if domain is None or domain.seen.power not in {"running", "paused"}:
            raise NotRunning(f"server {server_id} does not run on host {self.host}")
        return domain

    # What happens behind the agent's back

    def lose_power(self, server_id: str) -> None:
        """The guest shut itself down, or somebody pulled the plug."""
        self._behind_our_back(server_id, "stopped")

    def comes(self, server_id: str) -> None:
        """Another host has sent it."""
        self._changed(server_id)
        if self._on_change:
            self._on_change(server_id)

    def crash(self, server_id: str) -> None:
        self._behind_our_back(server_id, "crashed")

    def vanish(self, server_id: str) -> None:
        """Somebody removed the domain and its disks."""
        self.domains.pop(server_id, None)
        self._changed(server_id)
        if self._on_change:
            self._on_change(server_id)

    def _behind_our_back(self, server_id: str, power: PowerSeen) -> None:
        self._put(server_id, power=power)
        self._write(server_id, f"simulated: {power}")
        self._changed(server_id)
        if self._on_change:
            self._on_change(server_id)

    def _do(self, step: Step) -> None:
        id = step.server_id
        if isinstance(step, Define):
            if id not in self.domains:
                if step.domain.built and not step.domain.copy_from:
                    raise StepFailed(f"the disks of this server are gone from host {self.host}; rebuild it")
                seen = Observed(server_id=id, power="stopped", position=step.position, taps=_taps(step.domain))
                seen = replace(seen, remade=step.domain.remade, resized=step.domain.resized)
                disk = self._copied(step.domain) if step.domain.copy_from else f"{id} {step.domain.remade}"
                self.domains[id] = _pretended(seen, step.domain, disk)
            return
        if isinstance(step, Prepare):
            if id in self.domains and self.domains[id].seen.power != "absent":
                return  # it has come meanwhile
            seen = Observed(server_id=id, awaiting=True, generation=step.domain.generation)
            self.domains[id] = _pretended(seen, step.domain, "")
            return
        if isinstance(step, Remove):
            self.domains.pop(id, None)
            self.files = [it for it in self.files if it.server_id != id]
            return
        if isinstance(step, AwaitTaps):
            return
        if id not in self.domains:
            raise StepFailed(f"host {self.host} holds no server {id}")
        match step:
            case Remake():
                seen = replace(self.domains[id].seen, power="stopped", fenced=False, interrupted=False)
                seen = replace(seen, remade=step.domain.remade, taps=_taps(step.domain))
                console = self.domains[id].console
                self.domains[id] = _pretended(seen, step.domain, f"{id} {step.domain.remade}")
                self._write(id, f"{console}simulated: the root disk is made anew")
            case Rescue() | Unrescue():
                rescued = isinstance(step, Rescue)
                self._put(
                    id, power="stopped", fenced=False, interrupted=False, taps=_taps(step.domain), rescued=rescued
                )
                self._write(id, f"simulated: it boots from its {'rescue' if rescued else 'own'} disk")
            case Resize():
                before = self.domains[id].disk
                seen = replace(self.domains[id].seen, power="stopped", fenced=False, interrupted=False, kept=True)
                seen = replace(seen, resized=step.domain.resized, taps=_taps(step.domain))
                self.domains[id] = _pretended(seen, step.domain, before)
                self.domains[id].disk_before = before
            case Unresize():
                before = self.domains[id].disk_before
                seen = replace(self.domains[id].seen, power="stopped", fenced=False, interrupted=False, kept=False)
                seen = replace(seen, resized=step.domain.resized, taps=_taps(step.domain))
                self.domains[id] = _pretended(seen, step.domain, before)
            case DropKept():
                self._put(id, kept=False)
                self.domains[id].disk_before = ""
            case Send():
                self._send(step.domain)
            case TakeSnapshot():
                self._put(id, snapshot=step.domain.snapshot.image_id if step.domain.snapshot else "")
            case Start():
                reboots = step.domain.reboots
                if self._put(id, power="running", fenced=False, interrupted=False, reboots=reboots):
                    self._boot(step)
            case Stop():
                if self._put(id, power="stopped", fenced=False):
                    self._write(id, "simulated: the guest shut down")
            case Reboot():
                self._put(id, power="running", fenced=False, interrupted=False, reboots=step.domain.reboots)
                if step.hard:
                    self._put(id, taps=_taps(step.domain))
                self._boot(step)
            case Plug():
                if step.nic.tap not in self.domains[id].seen.taps:
                    self._put(id, taps=(*self.domains[id].seen.taps, step.nic.tap))
                self.domains[id].macs[step.nic.tap] = step.nic.mac_address
            case Unplug():
                self._put(id, taps=tuple(tap for tap in self.domains[id].seen.taps if tap != step.tap))
            case Pause():
                if self.domains[id].seen.power not in {"running", "paused"}:
                    raise StepFailed(f"server {id} does not run, so it cannot be paused")
                self._put(id, power="paused", fenced=step.fence)
            case Unpause():
                self._put(id, power="running", fenced=False)
            case Suspend():
                self._put(id, power="suspended")
            case Adopt():
                self._put(id, generation=step.generation, reboots=step.reboots)

    def _copied(self, domain: Domain) -> str:
        """The disk it has on another host."""
        assert domain.copy_from
        other = _HOSTS.get(domain.copy_from.host)
        there = other.domains.get(domain.server_id) if other else None
        if there is None or there.seen.power not in {"stopped", "crashed"}:
            raise StepFailed(f"host {domain.copy_from.host} does not hand out the disks of {domain.server_id}")
        return there.disk

    def _send(self, domain: Domain) -> None:
        id = domain.server_id
        assert domain.send_to
        other = _HOSTS.get(domain.send_to.host)
        if other is None or id not in other.domains or not other.domains[id].seen.awaiting:
            raise StepFailed(f"host {domain.send_to.host} does not wait for server {id}")
        mine = self.domains[id]
        other.domains[id] = msgspec.structs.replace(mine, seen=replace(mine.seen, position=0))
        mine.seen = Observed(server_id=id, sent=True, generation=domain.generation)
        other.comes(id)

    def _put(self, id: str, **changes: object) -> bool:
        domain = self.domains[id]
        before = domain.seen
        domain.seen = replace(before, **changes)
        return domain.seen.power != before.power

    def _boot(self, step: Start | Reboot) -> None:
        domain = step.domain
        hostname = domain.seed.hostname if domain.seed else domain.name
        seed = f"{len(domain.seed.user_data)} bytes of user-data not run" if domain.seed else "no seed"
        self._write(
            domain.server_id,
            f"simulated: powered on with {domain.vcpus} vCPU, {domain.ram_mb} MB\n"
            f"simulated: this guest is only pretended, so {seed}\n"
            f"{hostname or domain.name} login: ",
        )

    def _write(self, id: str, text: str) -> None:
        domain = self.domains[id]
        domain.console = f"{domain.console}{text}\n"[-CONSOLE_BYTES:]

    def _changed(self, server_id: str) -> None:
        if self._store:
            self._store.changed(self.host, server_id)


def _pretended(seen: Observed, domain: Domain, disk: str) -> Simulated:
    return Simulated(
        seen,
        domain.name,
        vcpus=domain.vcpus,
        ram_mb=domain.ram_mb,
        agent=has_agent(domain.properties),
        macs={nic.tap: nic.mac_address for nic in domain.networks},
        disk=disk,
    )


def _taps(domain: Domain) -> tuple[str, ...]:
    return tuple(nic.tap for nic in domain.networks)
