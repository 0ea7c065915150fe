"""Real guests: QEMU through libvirt. This is what carries steps out; each kind of step has a module of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

import libvirt

from agents.hypervisor import (
    console,
    libvirt_cards,
    libvirt_domain,
    libvirt_guest,
    libvirt_host,
    libvirt_housekeeping,
    libvirt_leftovers,
    libvirt_looking,
    libvirt_making,
    libvirt_migration,
    libvirt_power,
    libvirt_remaking,
    libvirt_resizing,
    libvirt_snapshot,
    moving,
)
from agents.hypervisor.deadline import Deadlines, FileDeadlines
from agents.hypervisor.driver import Dial, NotRunning, OnChange, OnProgress, Passing, StepFailed, Stream
from agents.hypervisor.libvirt_connection import Connection
from agents.hypervisor.libvirt_guests import Guests, is_uuid
from agents.hypervisor.line import line_stream
from agents.hypervisor.meter import Meter
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
from agents.hypervisor.tap_watch import TapWatch
from agents.network.namespace import Namespace
from bus.config import Hardware
from schema.compute.domain import Domain, HostFacts, ImageRef, Observed
from schema.compute.question import ConsoleKind, Diagnosis, Leftover, MoveMeasured

_SYSTEM_SOCKETS = moving.Sockets(
    Path("/run/libvirt/p"),
    Path("/run/libvirt/p"),
    Path("/run/libvirt/libvirt-sock"),
    Path("/var/lib/libvirt/swtpm"),
)


class LibvirtDriver:
    """`Driver` over one libvirt. `revive`: starts it again when it is gone, if it is ours.

    `namespace`: the network namespace its guests' taps are in; None: the machine's own. `share`: of how many hosts that
    divide the machine's memory and disk among them this is one, the `turn`th.
    """

    def __init__(
        self,
        host: str,
        uri: str,
        folder: Path,
        *,
        kvm: bool = False,
        revive: Callable[[], object] | None = None,
        namespace: str | None = None,
        share: int = 1,
        turn: int = 0,
        hardware: Hardware | None = None,
        sockets: moving.Sockets | None = None,
        shared: Path | None = None,
    ) -> None:
        self.host = host
        self._turn = turn
        self._hardware = hardware or Hardware()
        self._meter = Meter()
        self._share = share
        self._libvirt = Connection(uri, revive)
        boot = libvirt_host.boot_of(namespace)
        own = self._hardware.dedicated_cpus
        self._guests = Guests(
            host,
            folder,
            self._libvirt,
            sockets or _SYSTEM_SOCKETS,
            kvm=kvm,
            boot=boot,
            dedicated_cpus=own,
            shared=shared,
        )
        self.images = self._guests.images
        processes = self._guests.sockets.control.parent / "qemu"
        self.deadlines: Deadlines = FileDeadlines(folder, processes=processes, guests=self._guests.folder)
        self._inside = Namespace(namespace)
        self._taps = TapWatch(self._inside)
        self._facts: HostFacts | None = None
        self._tidying: asyncio.Task[None] | None = None

    async def start(self, on_change: OnChange, on_progress: OnProgress) -> None:
        self._guests.on_progress = on_progress
        self._guests.make_folders()

        def returned() -> None:
            for path in self._guests.folder.iterdir():
                on_change(path.name)

        await self._libvirt.open(on_change, returned)
        await self._taps.start(on_change)
        await libvirt_snapshot.tidy(self._guests)
        tidying = libvirt_housekeeping.keep_tidy(self._guests)
        self._tidying = asyncio.create_task(tidying, name=f"{self.host} keeps tidy")

    async def close(self) -> None:
        if self._tidying:
            self._tidying.cancel()
        self._taps.close()
        await self._libvirt.close()
        self._inside.close()

    def metrics(self) -> dict[str, float]:
        return self._meter.read()

    async def facts(self) -> HostFacts:
        if self._facts is None:
            look = functools.partial(
                libvirt_host.look_at_host,
                folder=self._guests.home,
                own=self._hardware,
                kvm=self._guests.kvm,
                share=self._share,
                turn=self._turn,
            )
            self._facts = await self._libvirt.call(look, "looking at the host")
        return self._facts

    async def observe(self, server_ids: Collection[str] | None = None) -> dict[str, Observed]:
        ids = None if server_ids is None else [id for id in server_ids if is_uuid(id)]
        look = functools.partial(libvirt_looking.look, guests=self._guests, ids=ids)
        return await self._taps.judge(await self._libvirt.call(look, "looking at domains"))

    async def leftovers(self, hosts: Collection[str] = ()) -> list[Leftover]:
        look = functools.partial(libvirt_leftovers.find, guests=self._guests, hosts=hosts)
        found: list[Leftover] = await self._libvirt.call(look, "looking for files that are left over")
        return found

    async def clear(self, names: Collection[str], hosts: Collection[str] = ()) -> None:
        clear = functools.partial(libvirt_leftovers.clear, guests=self._guests, names=names, hosts=hosts)
        await self._libvirt.call(clear, "removing files that are left over")

    async def act(self, step: Step) -> None:
        if not is_uuid(step.server_id):
            raise StepFailed(f"a server's id is a UUID, and {step.server_id} is none")
        if isinstance(step, Remove):
            self._guests.frozen.end(step.server_id)
        elif isinstance(step, Pause) and step.fence and self._guests.frozen.holds(step.server_id):
            return
        elif self._guests.frozen.holds(step.server_id):
            await self._thaw(step.server_id)
        try:
            await self._act(step)
        except libvirt.libvirtError:
            raise StepFailed(f"host {self.host} holds no server {step.server_id}") from None

    async def _thaw(self, id: str) -> None:
        """It has turned out to be this host's own: it goes on, and so does what was done with it."""
        self._guests.frozen.thaw(id)
        await libvirt_snapshot.tidy(self._guests, id)

    async def _act(self, step: Step) -> None:
        """A libvirtError says that there is no such domain."""
        guests, id = self._guests, step.server_id
        on_it = functools.partial(guests.on, id)
        match step:
            case Define():
                await libvirt_making.define(guests, step.domain, step.position)
            case Remake():
                await libvirt_remaking.remake(guests, step.domain)
            case Rescue():
                await libvirt_remaking.rescue(guests, step.domain)
            case Unrescue():
                await libvirt_remaking.unrescue(guests, step.domain)
            case TakeSnapshot():
                await libvirt_snapshot.send_copy(guests, step.domain)
            case Resize():
                await libvirt_resizing.resize(guests, step.domain)
            case Unresize():
                await libvirt_resizing.unresize(guests, step.domain)
            case DropKept():
                await libvirt_resizing.drop_kept(guests, id)
            case Prepare():
                await libvirt_making.prepare(guests, step.domain)
            case Send():
                await self._send(step.domain, on_it)
            case Start():
                await libvirt_power.start(guests, step.domain)
            case Stop():
                await libvirt_power.stop(guests, id, step.timeout_seconds)
            case Reboot():
                await libvirt_power.reboot(guests, step)
            case Pause():
                await on_it("pausing it", lambda domain: libvirt_domain.pause(domain, fence=step.fence))
            case Unpause():
                await on_it("unpausing it", libvirt_domain.unpause)
            case Suspend():
                await on_it("suspending it", libvirt_domain.suspend)
            case Remove():
                await libvirt_making.remove(guests, id)
            case AwaitTaps():
                await libvirt_cards.await_taps(guests, self._inside, step)
            case Plug():
                await on_it("plugging in a card", lambda domain: libvirt_domain.plug(domain, step))
            case Unplug():
                await libvirt_cards.unplug(guests, id, step.tap)
            case Adopt():
                await libvirt_making.adopt(guests, step)

    async def _send(self, domain: Domain, on_it: moving.OnDomain) -> None:
        guests, id = self._guests, domain.server_id
        shared = domain.send_to is not None and guests.shares(id, domain.send_to.host)
        noted_at = guests.note(id, moving.SENT)
        await moving.sent(domain, guests.of(id), guests.sockets, on_it, noted_at=noted_at, shared=shared)

    async def console(self, server_id: str, lines: int | None) -> str:
        path = self._guests.of(server_id) / "console.log"
        return await asyncio.to_thread(console.end_of_console, path, lines)

    async def fetch_image(self, image: ImageRef) -> None:
        await self.images.get(image, lambda done, whole: None)

    async def find_console(self, server_id: str, kind: ConsoleKind) -> Dial:
        ask = functools.partial(self._guests.ask, server_id)

        async def dial() -> Stream:
            if kind == "serial":
                return await line_stream(await ask(libvirt_guest.open_line))
            return await libvirt_guest.screen_stream(await ask(lambda it: libvirt_guest.open_screen(it, kind)))

        await ask(lambda domain: libvirt_guest.has_console(domain, kind))
        return dial

    async def diagnose(self, server_id: str) -> Diagnosis:
        diagnosis: Diagnosis = await self._guests.ask(server_id, libvirt_guest.diagnose)
        return diagnosis

    async def set_password(self, server_id: str, user: str, password: str) -> None:
        await self._guests.ask(server_id, lambda domain: libvirt_guest.set_password(domain, user, password))

    async def crash_guest(self, server_id: str) -> None:
        await self._guests.ask(server_id, libvirt_guest.crash)

    async def open_passage(self, server_id: str, way: Literal["copy", "live"]) -> Passing:
        folder, sockets = self._guests.of(server_id), self._guests.sockets
        if not self._guests.holds(server_id):
            raise NotRunning(f"host {self.host} holds no server {server_id}")
        if way == "live":
            return moving.opened_for_arrival(folder, sockets, server_id)
        off: bool = await self._guests.ask(server_id, lambda domain: not domain.isActive())
        return await moving.opened_for_copy(folder, sockets, server_id, off=off)

    async def measure_move(self, server_id: str) -> MoveMeasured:
        measured: MoveMeasured = await self._guests.ask(server_id, libvirt_migration.measure)
        return measured

    async def force_move(self, server_id: str) -> None:
        await self._guests.ask(server_id, libvirt_migration.force)
