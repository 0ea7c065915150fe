"""Real guests: QEMU through libvirt.

    <folder>/guests/<server id>/   disk  base (→ image)  ephemeral  swap  config-drive.iso  console.log
    <folder>/images/               what disks are laid over
    libvirt                        the domain, named and numbered by server id, with what Cumulog remembers in its XML

Files are made before the domain and removed before it, so that whatever a crash leaves is still seen, and cleaned up.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import libvirt
import msgspec
import structlog

from agents.hypervisor import (
    config_drive,
    console,
    disk,
    hardware,
    libvirt_domain,
    libvirt_guest,
    libvirt_migration,
    moving,
    snapshotting,
)
from agents.hypervisor.boot_time import booted_at
from agents.hypervisor.domain_xml import Disk, Remembered, domain_xml, quiesce
from agents.hypervisor.driver import Dial, NotRunning, OnChange, OnProgress, Passing, StepFailed, Stream
from agents.hypervisor.image_cache import ImageCache
from agents.hypervisor.kvm import kvm_works
from agents.hypervisor.libvirt_connection import Connection
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
from agents.hypervisor.traits import traits
from agents.network.namespace import Namespace, identity
from bus import clock
from bus.config import Hardware, Settings
from schema.compute.domain import Domain, HostFacts, Nic, Observed
from schema.compute.question import ConsoleKind, Diagnosis, MoveMeasured
from schema.compute.topology import HostDevice

log = structlog.get_logger()

ASK_AGAIN_SECONDS = 5.0
"""A guest that is still booting misses the power button: it is pressed again this often."""
LOOK_SECONDS = 0.2
TAP_SECONDS = 60.0
"""How long the network agent may take to make a guest's taps."""
TAP_LOOK_SECONDS = 0.05
UNPLUG_SECONDS = 60.0
"""How long a running guest may take to let go of a card: one that still boots does not hear of it."""
TRIM_SECONDS = 5.0
CLEAN_SECONDS = 3600.0
"""Between two looks for images that nobody uses."""

_SYSTEM_SOCKETS = moving.Sockets(Path("/run/libvirt/p"), Path("/run/libvirt/p"), Path("/run/libvirt/libvirt-sock"))
_NOTHING = Observed(server_id="")

_EVERYTHING = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


async def open_driver(settings: Settings, host: str, namespace: str | None = None, turn: int = 0) -> LibvirtDriver:
    """The driver for one host of this machine, the `turn`th.

    `namespace`: the network namespace that is the host; its guests are in it, so libvirtd is one of our own that runs
    in it. None: the host is the machine, with the system's libvirt where it has one.
    """
    from agents.hypervisor.libvirtd import PrivateLibvirtd

    folder = host_folder(settings, host) if namespace else settings.home / "hypervisor"
    image = settings.home / "guest" / "cumulog-guest.qcow2"
    works = await asyncio.to_thread(kvm_works, settings.home / "hypervisor", image if image.exists() else None)
    system = namespace is None and await asyncio.to_thread(system_libvirt_works, settings.libvirt_uri)
    own = None if system else PrivateLibvirtd(folder / "libvirtd", kvm=works, namespace=namespace)
    return LibvirtDriver(
        host,
        own.uri if own else settings.libvirt_uri,
        folder,
        kvm=works,
        revive=own.start if own else None,
        namespace=namespace,
        share=settings.hosts if namespace else 1,
        turn=turn,
        hardware=settings.hardware,
        sockets=own.sockets if own else None,
    )


def host_folder(settings: Settings, host: str) -> Path:
    """Where a host that is a namespace of this machine keeps its guests, images and libvirtd."""
    return settings.home / "hosts" / host


def system_libvirt_works(uri: str) -> bool:
    """Whether the machine runs a libvirt that takes us. Blocks."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        libvirt.open(uri).close()
    except libvirt.libvirtError:
        return False
    return True


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
    ) -> None:
        self.host = host
        self._turn = turn
        self._hardware = hardware or Hardware()
        self._meter = Meter()
        self._share = share
        self._sockets = sockets or _SYSTEM_SOCKETS
        self.images = ImageCache(folder / "images")
        self._folder = folder
        self._guests = folder / "guests"
        self._kvm = kvm
        self._libvirt = Connection(uri, revive)
        self._inside = Namespace(namespace)
        self._taps = TapWatch(self._inside)
        self._boot = _boot_of(namespace)
        self._facts: HostFacts | None = None
        self._on_progress: OnProgress = lambda id, words: None
        self._trimming: asyncio.Task[None] | None = None

    async def start(self, on_change: OnChange, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        for folder in (self._folder, self._guests, self.images.folder):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)

        def returned() -> None:
            for path in self._guests.iterdir():
                on_change(path.name)

        await self._libvirt.open(on_change, returned)
        await self._taps.start(on_change)
        self._trimming = asyncio.create_task(self._trim_for_ever(), name=f"{self.host} trims consoles")

    async def close(self) -> None:
        if self._trimming:
            self._trimming.cancel()
        self._taps.close()
        await self._libvirt.close()
        self._inside.close()

    def metrics(self) -> dict[str, float]:
        return self._meter.read()

    async def facts(self) -> HostFacts:
        if self._facts is None:
            self._facts = await self._libvirt.call(self._look_at_host, "looking at the host")
        return self._facts

    async def observe(self, server_ids: Collection[str] | None = None) -> dict[str, Observed]:
        ids = None if server_ids is None else [id for id in server_ids if _is_uuid(id)]
        seen = await self._libvirt.call(lambda connection: self._observe(connection, ids), "looking at domains")
        return await self._taps.judge(seen)

    async def act(self, step: Step) -> None:
        id = step.server_id
        if not _is_uuid(id):
            raise StepFailed(f"a server's id is a UUID, and {id} is none")
        try:
            match step:
                case Define():
                    await self._define(step.domain, step.position)
                case Remake():
                    await self._remake(step.domain)
                case Rescue():
                    await self._rescue(step.domain)
                case Unrescue():
                    await self._unrescue(step.domain)
                case TakeSnapshot():
                    await self._send_copy(step.domain)
                case Resize():
                    await self._resize(step.domain)
                case Unresize():
                    await self._unresize(step.domain)
                case DropKept():
                    await asyncio.to_thread(moving.drop_kept, self._guest(id))
                    await self._on(id, "noting its size", lambda it: libvirt_domain.remember(it, kept=False))
                case Prepare():
                    await self._prepare(step.domain)
                case Send():
                    await moving.sent(step.domain, self._guest(id), self._sockets, lambda *it: self._on(id, *it))
                case Start():
                    await self._on(id, "starting it", lambda domain: self._power_on(domain, step.domain))
                case Stop():
                    await self._stop(id, step.timeout_seconds)
                case Reboot():
                    await self._reboot(step)
                case Pause():
                    await self._on(id, "pausing it", lambda domain: libvirt_domain.pause(domain, fence=step.fence))
                case Unpause():
                    await self._on(id, "unpausing it", libvirt_domain.unpause)
                case Suspend():
                    await self._on(id, "suspending it", libvirt_domain.suspend)
                case Remove():
                    await self._libvirt.call(lambda connection: self._remove(connection, id), "removing it")
                case AwaitTaps():
                    await self._await_taps(step)
                case Plug():
                    await self._on(id, "plugging in a card", lambda domain: libvirt_domain.plug(domain, step))
                case Unplug():
                    await self._unplug(id, step.tap)
                case Adopt():
                    await self._adopt(step)
        except libvirt.libvirtError:
            raise StepFailed(f"host {self.host} holds no server {id}") from None

    async def console(self, server_id: str, lines: int | None) -> str:
        path = self._guest(server_id) / "console.log"
        return await asyncio.to_thread(console.end_of_console, path, lines)

    async def find_console(self, server_id: str, kind: ConsoleKind) -> Dial:
        async def dial() -> Stream:
            if kind == "serial":
                return await line_stream(await self._guest_of(server_id, libvirt_guest.open_line))
            opened = await self._guest_of(server_id, lambda domain: libvirt_guest.open_screen(domain, kind))
            return await libvirt_guest.screen_stream(opened)

        await self._guest_of(server_id, lambda domain: libvirt_guest.has_console(domain, kind))
        return dial

    async def diagnose(self, server_id: str) -> Diagnosis:
        diagnosis: Diagnosis = await self._guest_of(server_id, libvirt_guest.diagnose)
        return diagnosis

    async def set_password(self, server_id: str, user: str, password: str) -> None:
        await self._guest_of(server_id, lambda domain: libvirt_guest.set_password(domain, user, password))

    async def crash_guest(self, server_id: str) -> None:
        await self._guest_of(server_id, libvirt_guest.crash)

    async def open_passage(self, server_id: str, way: Literal["copy", "live"]) -> Passing:
        folder = self._guest(server_id)
        if not folder.exists():
            raise NotRunning(f"host {self.host} holds no server {server_id}")
        if way == "live":
            return moving.opened_for_arrival(folder, self._sockets, server_id)
        off: bool = await self._guest_of(server_id, lambda domain: not domain.isActive())
        return await moving.opened_for_copy(folder, self._sockets, server_id, off=off)

    async def measure_move(self, server_id: str) -> MoveMeasured:
        measured: MoveMeasured = await self._guest_of(server_id, libvirt_migration.measure)
        return measured

    async def force_move(self, server_id: str) -> None:
        await self._guest_of(server_id, libvirt_migration.force)

    async def _guest_of(self, id: str, function: Callable[[Any], Any]) -> Any:
        """Something that takes a guest. Raises NotRunning if there is none."""
        try:
            return await self._on(id, "looking into the guest", function)
        except libvirt.libvirtError:
            raise NotRunning(f"host {self.host} holds no server {id}") from None

    # Making and removing

    async def _define(self, domain: Domain, position: int) -> None:
        folder = self._guest(domain.server_id)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
        root = folder / "disk"
        if domain.copy_from is not None:
            await moving.copied(domain, folder, self._sockets, lambda words: self._on_progress(domain.server_id, words))
        if domain.image and not root.exists():
            if domain.built:
                raise StepFailed(f"the root disk of this server is gone from host {self.host}; rebuild it")
            base = await self.images.get(domain.image, lambda done, whole: self._downloading(domain, done, whole))
            _point(folder / "base", base)
            await disk.overlay(root, base, domain.image.disk_format, domain.disk_gb * disk.GIB)
        elif domain.built and not root.exists():
            raise StepFailed(f"the disks of this server are gone from host {self.host}; rebuild it")
        elif not root.exists():
            await disk.blank(root, max(domain.disk_gb, 1) * disk.GIB)
        await self._furnish(domain)
        await self._libvirt.call(lambda connection: self._define_again(connection, domain, position), "defining it")

    async def _remake(self, domain: Domain) -> None:
        folder = self._guest(domain.server_id)
        fresh, base_of_fresh = folder / "fresh", folder / "base.fresh"
        if domain.image is None:
            raise StepFailed("it has no image to make its root disk anew from")
        try:
            fresh.unlink(missing_ok=True)
            base = await self.images.get(domain.image, lambda done, whole: self._downloading(domain, done, whole))
            _point(base_of_fresh, base)
            await disk.overlay(fresh, base, domain.image.disk_format, domain.disk_gb * disk.GIB)
            await self._on(domain.server_id, "stopping it", libvirt_domain.power_off)
        except BaseException:
            fresh.unlink(missing_ok=True)
            base_of_fresh.unlink(missing_ok=True)
            raise
        fresh.replace(folder / "disk")
        base_of_fresh.replace(folder / "base")
        for name in ("config-drive.iso", *(() if domain.keep_ephemeral else ("ephemeral", "swap"))):
            (folder / name).unlink(missing_ok=True)
        await self._furnish(domain)
        made = {"remade": domain.remade, "fenced": False}
        await self._libvirt.call(lambda it: self._define_again(it, domain, **made), "defining it")

    async def _rescue(self, domain: Domain) -> None:
        folder = self._guest(domain.server_id)
        image = domain.rescue
        if image is None:
            raise StepFailed("it has no image to be rescued with")
        try:
            (folder / "rescue").unlink(missing_ok=True)
            base = await self.images.get(image, lambda done, whole: self._downloading(domain, done, whole))
            _point(folder / "base.rescue", base)
            await disk.overlay(folder / "rescue", base, image.disk_format, 0)
            await self._on(domain.server_id, "stopping it", libvirt_domain.power_off)
        except BaseException:
            _drop_rescue(folder)
            raise
        await self._libvirt.call(lambda it: self._define_again(it, domain, rescued=True, fenced=False), "defining it")

    async def _unrescue(self, domain: Domain) -> None:
        folder = self._guest(domain.server_id)
        await self._on(domain.server_id, "stopping it", libvirt_domain.power_off)
        await self._libvirt.call(lambda it: self._define_again(it, domain, rescued=False, fenced=False), "defining it")
        _drop_rescue(folder)

    async def _send_copy(self, domain: Domain) -> None:
        id, wanted, copy = domain.server_id, domain.snapshot, self._guest(domain.server_id) / "copy"
        if wanted is None:
            raise StepFailed("there is no image to copy its root disk into")

        def on_bytes(doing: str) -> Callable[[int, int], None]:
            return lambda done, whole: self._on_progress(id, f"{doing}: {done / 1e6:.0f} of {whole / 1e6:.0f} MB")

        async def on_domain(doing: str, function: Callable[[Any], Any]) -> Any:
            return await self._on(id, doing, function)

        try:
            root, quiet = self._guest(id) / "disk", quiesce(domain.properties)
            await snapshotting.copy_disk(root, copy, on_domain, on_bytes("copying its disk"), quiesce=quiet)
            await snapshotting.send(wanted, copy, on_bytes("sending its image"))
        finally:
            copy.unlink(missing_ok=True)
        await self._on(id, "noting its image", lambda it: libvirt_domain.remember(it, snapshot=wanted.image_id))

    async def _resize(self, domain: Domain) -> None:
        folder, id = self._guest(domain.server_id), domain.server_id
        await self._on(id, "stopping it", libvirt_domain.power_off)
        try:
            await asyncio.to_thread(moving.keep, folder)
            if domain.disk_gb:
                await disk.grow(folder / "disk", domain.disk_gb * disk.GIB)
            if domain.ephemeral_gb and (folder / "ephemeral").exists():
                await disk.grow(folder / "ephemeral", domain.ephemeral_gb * disk.GIB)
            await self._furnish(domain)
        except BaseException:
            await asyncio.to_thread(moving.put_back, folder)
            raise
        made = {"resized": domain.resized, "kept": True, "fenced": False}
        await self._libvirt.call(lambda it: self._define_again(it, domain, **made), "defining it")

    async def _unresize(self, domain: Domain) -> None:
        folder, id = self._guest(domain.server_id), domain.server_id
        await self._on(id, "stopping it", libvirt_domain.power_off)
        await asyncio.to_thread(moving.put_back, folder)
        await self._furnish(domain)
        made = {"resized": domain.resized, "kept": False, "fenced": False}
        await self._libvirt.call(lambda it: self._define_again(it, domain, **made), "defining it")

    async def _prepare(self, domain: Domain) -> None:
        folder = self._guest(domain.server_id)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
        await moving.prepared(domain, folder)
        await self._furnish(domain)
        moving.note(folder, moving.AWAITING, domain.generation)

    async def _adopt(self, step: Adopt) -> None:
        folder = self._guest(step.server_id)
        try:
            await self._on(
                step.server_id,
                "noting its generation",
                lambda domain: libvirt_domain.adopt(domain, step, self._boot),
            )
        except libvirt.libvirtError:
            if moving.noted(folder, moving.SENT) is None:
                raise
            moving.note(folder, moving.SENT, step.generation)
        else:
            (folder / moving.AWAITING).unlink(missing_ok=True)
            (folder / moving.SENT).unlink(missing_ok=True)

    async def _furnish(self, domain: Domain) -> None:
        """Whatever it has beside its root disk, if that is not there yet."""
        folder = self._guest(domain.server_id)
        if domain.ephemeral_gb:
            await disk.blank(folder / "ephemeral", domain.ephemeral_gb * disk.GIB)
        if domain.swap_mb:
            await disk.blank(folder / "swap", domain.swap_mb * 1024 * 1024)
        drive = folder / "config-drive.iso"
        if domain.config_drive and not drive.exists():
            await asyncio.to_thread(config_drive.write, domain, drive)
            drive.chmod(0o600)

    def _define_again(self, connection: Any, domain: Domain, position: int = 0, **changes: Any) -> None:
        """Write the definition, keeping what is remembered of it but for those changes."""
        known = libvirt_domain.lookup(connection, domain.server_id)
        memory = libvirt_domain.remembered(known) if known else Remembered(position=position, remade=domain.remade)
        if not known:
            memory = msgspec.structs.replace(memory, resized=domain.resized)
        memory = msgspec.structs.replace(memory, **changes)
        folder = self._guest(domain.server_id)
        names = (*(("rescue",) if memory.rescued else ()), "disk", "ephemeral", "swap")
        disks = [Disk(path=folder / name) for name in names if (folder / name).exists()]
        drive = folder / "config-drive.iso"
        if drive.exists():
            disks.append(Disk(path=drive, format="raw", readonly=True, serial="config-drive"))
        xml = domain_xml(domain, kvm=self._kvm, disks=disks, console_log=folder / "console.log", memory=memory)
        connection.defineXML(xml)

    def _remove(self, connection: Any, id: str) -> None:
        domain = libvirt_domain.lookup(connection, id)
        if domain:
            libvirt_domain.power_off(domain)
        shutil.rmtree(self._guest(id), ignore_errors=True)
        if domain:
            domain.undefineFlags(_EVERYTHING)

    def _downloading(self, domain: Domain, done: int, whole: int) -> None:
        of = f" of {whole / 1e6:.0f}" if whole else ""
        self._on_progress(domain.server_id, f"downloading its image: {done / 1e6:.0f}{of} MB")

    # Power

    async def _on(self, id: str, doing: str, function: Callable[[Any], Any]) -> Any:
        """Do something with a domain, in a thread. A libvirtError says that there is none."""
        return await self._libvirt.call(lambda connection: function(connection.lookupByUUIDString(id)), doing)

    def _power_on(self, domain: Any, wanted: Domain) -> None:
        if not domain.isActive():
            libvirt_domain.remember(domain, boot=self._boot, fenced=False)
            domain.create()
        if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            domain.resume()
        libvirt_domain.remember(domain, soft=wanted.reboots.soft, hard=wanted.reboots.hard)

    async def _stop(self, id: str, timeout_seconds: float) -> None:
        if timeout_seconds > 0:
            await self._shut_down(id, timeout_seconds)
        await self._on(id, "stopping it", libvirt_domain.power_off)

    async def _shut_down(self, id: str, timeout_seconds: float) -> None:
        """Press the power button, now and then again, until the guest is off or the time is over."""
        deadline = clock.monotonic() + timeout_seconds
        press = 0.0
        while await self._on(id, "looking at it", libvirt_domain.listens):
            now = clock.monotonic()
            if now > deadline:
                log.info("the guest does not shut down; its power is cut", server=id, seconds=timeout_seconds)
                return
            if now >= press:
                await self._on(id, "asking it to shut down", libvirt_domain.press_power_button)
                press = now + ASK_AGAIN_SECONDS
            self._on_progress(id, "waiting for the guest to shut down")
            await asyncio.sleep(LOOK_SECONDS)

    async def _reboot(self, step: Reboot) -> None:
        id = step.server_id
        if not step.hard and step.domain.stop_timeout_seconds:
            await self._shut_down(id, step.domain.stop_timeout_seconds)
        await self._on(id, "stopping it", libvirt_domain.power_off)
        if step.hard:
            await self._libvirt.call(lambda connection: self._define_again(connection, step.domain), "defining it")
        await self._on(id, "starting it", lambda domain: self._power_on(domain, step.domain))

    # Cards

    async def _await_taps(self, step: AwaitTaps) -> None:
        """Until the network agent has made them all. It makes a port's rules before its tap."""
        deadline = clock.monotonic() + TAP_SECONDS
        while lacking := await self._lacking(step.nics):
            if clock.monotonic() > deadline:
                ports = ", ".join(f"{nic.port_id} ({nic.tap})" for nic in lacking)
                raise StepFailed(
                    f"the network agent of host {self.host} has not wired port {ports} within {TAP_SECONDS:.0f} s; "
                    "does it run, and what does it say of the port?"
                )
            self._on_progress(step.server_id, f"waiting for the network: {', '.join(nic.tap for nic in lacking)}")
            await asyncio.sleep(TAP_LOOK_SECONDS)

    async def _lacking(self, nics: Collection[Nic]) -> list[Nic]:
        there = {name for _, name in await self._inside.run(socket.if_nameindex)}
        return [nic for nic in nics if nic.tap not in there]

    async def _unplug(self, id: str, tap: str) -> None:
        """Ask the guest to let go of it, now and then again, until it has."""
        deadline = clock.monotonic() + UNPLUG_SECONDS
        press = 0.0
        while tap in await self._on(id, "looking at its cards", libvirt_domain.taps):
            now = clock.monotonic()
            if now > deadline:
                raise StepFailed(f"the guest has not let go of the card {tap} within {UNPLUG_SECONDS:.0f} s")
            if now >= press:
                await self._on(id, "unplugging a card", lambda domain: libvirt_domain.unplug(domain, tap))
                press = now + ASK_AGAIN_SECONDS
            self._on_progress(id, f"waiting for the guest to let go of the card {tap}")
            await asyncio.sleep(LOOK_SECONDS)

    # Looking

    def _observe(self, connection: Any, ids: Collection[str] | None) -> dict[str, Observed]:
        if ids is None:
            folders = {path.name for path in self._guests.iterdir() if _is_uuid(path.name)}
            domains = {domain.UUIDString(): domain for domain in connection.listAllDomains()}
        else:
            folders = {id for id in ids if self._guest(id).exists()}
            domains = {}
            domains = {id: domain for id in ids if (domain := libvirt_domain.lookup(connection, id))}
        found = {id: _without_domain(id, self._guest(id)) for id in folders}
        for id, domain in domains.items():
            if found.get(id, _NOTHING).awaiting and not domain.isPersistent():
                continue  # it is coming
            try:
                seen = self._look_at(id, domain)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                continue
            if seen:
                found[id] = seen
        return found

    def _look_at(self, id: str, domain: Any) -> Observed | None:
        """None if it is not Cumulog's."""
        try:
            memory = libvirt_domain.remembered(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return None
            raise
        power = libvirt_domain.power(domain)
        return Observed(
            server_id=id,
            power=power,
            generation=memory.generation,
            reboots=memory.reboots,
            position=memory.position,
            fenced=memory.fenced and power == "paused",
            interrupted=power in {"stopped", "crashed"} and memory.boot not in {"", self._boot},
            taps=libvirt_domain.taps(domain),
            remade=memory.remade,
            rescued=memory.rescued,
            snapshot=memory.snapshot,
            resized=memory.resized,
            kept=memory.kept,
        )

    def _look_at_host(self, connection: Any) -> HostFacts:
        model, _, cpus, _, nodes, sockets, cores, threads = connection.getInfo()
        capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314  libvirt's own words
        cpu = capabilities.find("host/cpu")
        cells = hardware.cells(capabilities, self._share)
        features = [] if cpu is None else [it.get("name", "") for it in cpu.findall("feature")]
        return HostFacts(
            hostname=platform.node(),
            hypervisor_type="KVM" if self._kvm else "QEMU",
            hypervisor_version=connection.getVersion(),
            arch=model,
            vcpus=cpus,
            # Not what libvirt says: it counts the memory of NUMA nodes, which grows and shrinks inside of some clouds.
            memory_mb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024**2 // self._share,
            disk_gb=shutil.disk_usage(self._folder).total // disk.GIB // self._share,
            cpu_info={
                "arch": model,
                "model": (cpu.findtext("model") if cpu is not None else None) or model,
                "vendor": (cpu.findtext("vendor") if cpu is not None else None) or "unknown",
                "topology": {"sockets": sockets * nodes, "cores": cores, "threads": threads},
                "features": features,
            },
            traits=traits(features, threads=threads),
            booted_at=booted_at(),
            cells=cells,
            dedicated_cpus=hardware.dedicated(self._hardware.dedicated_cpus, cells, self._turn, self._share),
            devices=self._look_at_devices(connection),
        )

    def _look_at_devices(self, connection: Any) -> tuple[HostDevice, ...]:
        """The PCI devices that guests may have; hosts that are one machine part them as they do its CPUs."""
        if not self._hardware.devices:
            return ()
        found = connection.listAllDevices(libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV)
        return hardware.devices(self._hardware.devices, [it.XMLDesc() for it in found])[self._turn :: self._share]

    # Consoles

    async def _trim_for_ever(self) -> None:
        cleaned = clock.monotonic()
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            await asyncio.to_thread(self._trim)
            if clock.monotonic() - cleaned > CLEAN_SECONDS:
                cleaned = clock.monotonic()
                in_use = {path.readlink() for path in self._guests.glob("*/base*")}
                await asyncio.to_thread(self.images.clean, in_use)

    def _trim(self) -> None:
        for path in self._guests.glob("*/console.log"):
            console.trim(path)

    def _guest(self, id: str) -> Path:
        return self._guests / id


def _without_domain(id: str, folder: Path) -> Observed:
    """What a guest's folder is that libvirt has no domain of."""
    awaiting, sent = moving.noted(folder, moving.AWAITING), moving.noted(folder, moving.SENT)
    generation = awaiting if awaiting is not None else sent or 0
    return Observed(
        server_id=id, generation=generation, awaiting=awaiting is not None, sent=sent is not None and awaiting is None
    )


def _boot_of(host: str | None) -> str:
    """Changes when the host starts anew: the machine, or the namespace of it that is the host."""
    machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{machine}/{identity(host)}" if host else machine


def _point(link: Path, to: Path) -> None:
    """Note what the disk is laid over, for as long as it is."""
    link.unlink(missing_ok=True)
    link.symlink_to(to)


def _drop_rescue(folder: Path) -> None:
    for name in ("rescue", "base.rescue"):
        (folder / name).unlink(missing_ok=True)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
