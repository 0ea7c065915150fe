"""Guests on their way from a libvirt host to another, over a passage: nobody needs to reach anything but the relay.

    copy   target: qemu-img convert ─▶ socket ─▶ relay of the source ─▶ qemu-nbd of a disk, read only
    live   source: libvirtd ─▶ control ─┐
                   QEMU ─▶ memory, disks ┴▶ sockets ─▶ relay of the target ─▶ libvirtd, and the QEMU that waits

Sockets lie in a folder that libvirtd knows by one name on every host. What a folder of a guest is, when libvirt has no
domain of it, stands in a file there: `awaiting` it, or `sent` away; with the generation that it was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from agents.hypervisor import disk, libvirt_migration, tpm_memory
from agents.hypervisor.driver import Dial, Passing, StepFailed, Stream
from agents.hypervisor.packages import USER
from agents.hypervisor.relay import channel_secret, copy, first_of, hang_up
from bus.consoles import dial
from schema.compute.domain import Domain, Passage
from schema.compute.question import ConsoleFound

log = structlog.get_logger()

TPM = "tpm.tar"
"""What its TPM remembers, which libvirt keeps elsewhere; there from when it is copied until the guest starts."""
COPIED = {"disk": "qcow2", "ephemeral": "qcow2", "config-drive.iso": "raw", "nvram.fd": "raw", TPM: "raw"}
"""Files of a guest that go with it, and their formats; its swap is blank wherever it starts."""
SENT_WHILE_RUNNING = ("disk", "ephemeral", "swap")
AWAITING, SENT, KEPT = "awaiting", "sent", "kept"
ABORT_SECONDS = 0.2

OnDomain = Callable[[str, Callable[[Any], Any]], Awaitable[Any]]
"""Does something with the libvirt domain, in a thread: (what it is, how)."""


class Sockets:
    """Where the ends of passages are: `folder`, which libvirtd knows as `as_libvirtd`; `control`: libvirtd's own.

    `tpms`: where libvirtd keeps what the TPMs of guests remember, for each a folder named by the server.
    """

    def __init__(self, folder: Path, as_libvirtd: Path, control: Path, tpms: Path) -> None:
        self.folder = folder
        self.control = control
        self.tpms = tpms
        self._as_libvirtd = as_libvirtd

    def path(self, server_id: str, channel: str) -> Path:
        return self.folder / f"{server_id[:13]}.{channel[0]}"

    def known_as(self, server_id: str, channel: str) -> str:
        return str(self._as_libvirtd / self.path(server_id, channel).name)

    def make(self) -> None:
        """The folder is the guests' user's: its QEMU listens there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        give(self.folder)


def give(path: Path) -> None:
    """To whoever guests run as."""
    with contextlib.suppress(KeyError, PermissionError):
        user = pwd.getpwnam(USER)
        os.chown(path, user.pw_uid, user.pw_gid)


# Copying: it is off at the host it comes from


async def opened_for_copy(folder: Path, sockets: Sockets, server_id: str, *, off: bool) -> Passing:
    """What another host may read. Of one that runs nothing: it is only measured."""
    if off:
        await asyncio.to_thread(tpm_memory.pack, sockets.tpms / server_id, folder / TPM)
    files = {name: kind for name, kind in COPIED.items() if (folder / name).exists()}
    swap = ["swap"] if (folder / "swap").exists() else []
    measured = [name for name in (*files, *swap) if name in SENT_WHILE_RUNNING]
    sizes = {name: await disk.virtual_size(folder / name) for name in measured}
    if not off:
        return Passing(folder=str(folder), disks=sizes)
    channels = {name: _exported(folder / name, kind, sockets, server_id) for name, kind in files.items()}
    return Passing(folder=str(folder), disks={name: sizes.get(name, 0) for name in files}, channels=channels)


def _exported(file: Path, kind: str, sockets: Sockets, server_id: str) -> Dial:
    async def open_export() -> Stream:
        sockets.make()
        path = sockets.path(server_id, f"x{file.name}").with_suffix(f".x{file.name[0]}")
        path.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            "qemu-nbd", "--read-only", "--fork", "--format", kind, "--socket", str(path), str(file),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        if await process.wait():
            raise StepFailed(f"qemu-nbd does not serve {file.name} of server {server_id}")
        try:
            return await asyncio.open_unix_connection(path)
        finally:
            path.unlink(missing_ok=True)

    return open_export


async def copied(domain: Domain, folder: Path, sockets: Sockets, on_progress: Callable[[str], None]) -> None:
    """Its disks, made of those on another host. What is there already has been copied whole."""
    way = domain.copy_from
    assert way
    sockets.make()
    for name in way.disks:
        if name not in COPIED or (folder / name).exists():
            continue
        on_progress(f"copying its {name} from host {way.host}")
        fresh = folder / f"{name}.new"
        fresh.unlink(missing_ok=True)
        async with _tunnel(sockets.path(domain.server_id, "n"), way, name) as path:
            await disk.fetch(f"nbd+unix:///?socket={path}", fresh, COPIED[name])
        if name == "disk" and domain.disk_gb:
            await disk.grow(fresh, domain.disk_gb * disk.GIB)
        fresh.replace(folder / name)
        give(folder / name)
    await asyncio.to_thread(tpm_memory.unpack, folder / TPM, sockets.tpms / domain.server_id)


# Live: it runs all the while


async def prepared(domain: Domain, folder: Path) -> None:
    """Blank disks as large as those that come."""
    for name, size in (domain.awaited or {}).items():
        if name in SENT_WHILE_RUNNING:
            await disk.blank(folder / name, size)
            give(folder / name)


def opened_for_arrival(folder: Path, sockets: Sockets, server_id: str) -> Passing:
    """What the host that sends it reaches."""
    sockets.make()

    def to(path: Path) -> Dial:
        return lambda: asyncio.open_unix_connection(path)

    channels = {"control": to(sockets.control)}
    channels |= {name: to(sockets.path(server_id, name)) for name in ("memory", "disks")}
    return Passing(folder=str(folder), channels=channels)


async def sent(
    domain: Domain, folder: Path, sockets: Sockets, on_domain: OnDomain, *, noted_at: Path, shared: bool = False
) -> None:
    """Until it runs on the other host. Cancelled, it is called off; it may be too late for that.

    `noted_at`: where it is noted that it is sent. `shared`: the other host has the same files.
    """
    way = domain.send_to
    assert way
    note(noted_at, domain.generation)  # before: when libvirt has no domain of it any more, it is there
    id = domain.server_id
    sockets.make()
    async with contextlib.AsyncExitStack() as stack:
        for name in ("control", "memory", "disks"):
            await stack.enter_async_context(_tunnel(sockets.path(id, name), way, name))
        ends = {name: sockets.known_as(id, name) for name in ("control", "memory", "disks")}
        going = asyncio.ensure_future(
            on_domain("sending it", lambda it: libvirt_migration.send(it, ends, str(folder), domain, shared=shared))
        )
        try:
            await asyncio.shield(going)
        except asyncio.CancelledError:
            log.info("a migration is called off", server=id)
            await _called_off(going, on_domain)
            raise


async def _called_off(going: asyncio.Future[Any], on_domain: OnDomain) -> None:
    """Until libvirt has heard of it, which it does not at every moment, or it was too late."""
    while not going.done():
        with contextlib.suppress(Exception):
            await on_domain("calling it off", libvirt_migration.abort)
        await asyncio.wait([going], timeout=ABORT_SECONDS)
    if not going.cancelled():
        going.exception()


def note(path: Path, generation: int) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(str(generation))
    fresh.replace(path)


def noted(path: Path) -> int | None:
    """The generation; None: it is not so."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


@asynccontextmanager
async def _tunnel(path: Path, way: Passage, channel: str) -> AsyncIterator[Path]:
    """A socket of this host that leads into a channel of a passage, as often as somebody connects."""
    found = ConsoleFound(address=way.address, port=way.port, fingerprint=way.fingerprint)
    secret = channel_secret(way.secret, channel).hex()
    lines: set[asyncio.Task[None]] = set()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        lines.add(task)
        try:
            far_reader, far_writer = await dial(found, secret)
            try:
                await first_of(copy(reader, far_writer), copy(far_reader, writer))
            finally:
                await hang_up(far_writer)
        except (OSError, EOFError, TimeoutError) as error:
            log.info("a way to another host is cut", host=way.host, channel=channel, error=str(error))
        except asyncio.CancelledError:
            if server.is_serving():
                raise  # else by whoever ends this way, which is how it ends
        finally:
            lines.discard(task)
            await hang_up(writer)

    _remove(path)
    server = await asyncio.start_unix_server(lead, path)
    give(path)
    try:
        yield path
    finally:
        server.close()
        for line in list(lines):
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


# Another size where it is


def keep(folder: Path) -> None:
    """Copies of its disks in their places; they themselves are kept as `.before`. Blocks. The guest is off."""
    for name in ("disk", "ephemeral"):
        now, before, fresh = folder / name, folder / f"{name}.before", folder / f"{name}.new"
        if now.exists() and not before.exists():
            now.replace(before)
        if before.exists() and not now.exists():
            _copy_sparse(before, fresh)
            fresh.replace(now)
            give(now)
    (folder / "swap").unlink(missing_ok=True)


def put_back(folder: Path) -> None:
    """The disks that were kept are its disks again. Blocks. The guest is off."""
    for name in ("disk", "ephemeral"):
        before = folder / f"{name}.before"
        if before.exists():
            before.replace(folder / name)
    (folder / "swap").unlink(missing_ok=True)


def drop_kept(folder: Path) -> None:
    for name in ("disk", "ephemeral"):
        (folder / f"{name}.before").unlink(missing_ok=True)


def _copy_sparse(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    command = shutil.which("cp") or "cp"
    code = os.spawnl(os.P_WAIT, command, "cp", "--reflink=auto", "--sparse=always", str(source), str(target))
    if code:
        raise StepFailed(f"cp could not copy {source.name}: code {code}")
