"""Real guests between two libvirt hosts, and of another size where they are."""

import asyncio
import base64
import hashlib
import os
import uuid
from contextlib import asynccontextmanager

import libvirt
import msgspec
import pytest

from agents.hypervisor.host_abilities import FIRMWARE, VARIABLES
from agents.hypervisor.libvirt import LibvirtDriver
from agents.hypervisor.libvirtd import PrivateLibvirtd
from schema.compute.domain import Domain, ImageRef, Passage, Seed
from schema.compute.question import MeasureMove, MoveMeasured, OpenPassage, PassageOpened
from schema.compute.topology import GuestCell, Topology

from .control import Control
from .test_libvirt import BOOT_SECONDS, domain_of, says

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
async def pair(libvirtd, hypervisor_folder):
    async with two_hosts(libvirtd, hypervisor_folder) as hosts:
        yield hosts


@pytest.fixture
async def sharing(libvirtd, hypervisor_folder):
    """The same, with the guests' files in a folder that both see."""
    async with two_hosts(libvirtd, hypervisor_folder, shared=hypervisor_folder / "shared") as hosts:
        yield hosts


@asynccontextmanager
async def two_hosts(libvirtd, hypervisor_folder, shared=None):
    """Of one machine, each with a libvirtd of its own."""
    other = PrivateLibvirtd(hypervisor_folder / "libvirtd-2")
    other.start()
    hosts = []
    for name, daemon in (("host-1", libvirtd), ("host-2", other)):
        control = Control(name)
        folder = hypervisor_folder / f"of-{name}"
        driver = LibvirtDriver(name, daemon.uri, folder, revive=daemon.start, sockets=daemon.sockets, shared=shared)
        await control.start_agent(driver)
        hosts.append(control)
    yield hosts
    for control in hosts:
        await control.close()
    connection = libvirt.open(other.uri)
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    connection.close()
    other.stop()


@pytest.fixture
def wanted(guest_image):
    content = guest_image.read_bytes()
    checksum = hashlib.sha512(content).hexdigest()
    image = ImageRef(id=str(uuid.uuid4()), url=guest_image.as_uri(), checksum=checksum, size_bytes=len(content))
    script = b"#!/bin/sh\nn=0\nwhile true; do n=$((n+1)); echo count $n; sleep 1; done\n"
    seed = Seed(hostname="web-1", user_data=base64.b64encode(script).decode())
    return Domain(
        server_id=str(uuid.uuid4()),
        name="web 1",
        generation=1,
        power="running",
        ram_mb=160,
        disk_gb=1,
        swap_mb=16,
        image=image,
        seed=seed,
        config_drive=True,
    )


def newer(domain, generation, **changes):
    return msgspec.structs.replace(domain, generation=generation, built=True, image=None, **changes)


async def opened(control, id, way, secret=""):
    answer = await control.ask(OpenPassage(server_id=id, way=way, secret=secret))
    assert isinstance(answer, PassageOpened), answer
    return Passage(
        host=control.host,
        address=answer.address,
        port=answer.port,
        fingerprint=answer.fingerprint,
        secret=secret,
        folder=answer.folder,
        disks=answer.disks,
    )


def count(text):
    return int(text.rpartition("count ")[2].split()[0])


async def test_a_guest_goes_to_another_host_while_it_runs(pair, wanted):
    one, two = pair
    id = wanted.server_id
    await one.tell(wanted)
    await one.seen(id, "running", BOOT_SECONDS)
    before = count(await says(one, id, "count 3"))
    measured = await opened(one, id, "copy")
    assert measured.disks == {"disk": 1024**3, "swap": 16 * 1024**2}
    await two.tell(newer(wanted, 2, awaited=measured.disks))
    await two.until(lambda: id in two.observed and two.observed[id].awaiting, 30)
    assert two.observed[id].power == "absent"
    way = await opened(two, id, "live", os.urandom(32).hex())
    await one.tell(newer(wanted, 2, send_to=way))
    await two.seen(id, "running", 120, generation=2)
    await one.until(lambda: one.observed[id].sent and one.observed[id].generation == 2, 30)
    assert one.observed[id].power == "absent"
    after = count(await says(two, id, "count "))
    assert after > before  # it went on counting: it is the same run
    await two.tell(newer(wanted, 3))
    await one.tell(newer(wanted, 3, power="absent"))
    await one.until(lambda: id in one.removed, 30)
    await two.seen(id, "running", 30, generation=3)

    # Off, it goes back, with what it has written.
    await two.tell(newer(wanted, 4, power="stopped", stop_timeout_seconds=0))
    await two.seen(id, "stopped", 60, generation=4)
    way = await opened(two, id, "copy", os.urandom(32).hex())
    assert set(way.disks) == {"disk", "config-drive.iso"}
    await one.tell(newer(wanted, 5, copy_from=way, disk_gb=2))
    seen = await one.seen(id, "running", 120, generation=5)
    assert seen.fault is None
    await says(one, id, "login:")
    assert (await opened(one, id, "copy")).disks["disk"] == 2 * 1024**3


async def test_the_memory_of_firmware_and_tpm_goes_with_a_guest(pair, wanted, hypervisor_folder):
    one, two = pair
    id = wanted.server_id
    nvram = {it: hypervisor_folder / f"of-{it.host}" / "guests" / id / "nvram.fd" for it in pair}
    uefi = {"hw_machine_type": "q35", "hw_firmware_type": "uefi", "hw:tpm_version": "2.0"}
    wanted = msgspec.structs.replace(wanted, properties=uefi, swap_mb=0)
    await one.tell(wanted)
    await one.seen(id, "running", BOOT_SECONDS)
    await says(one, id, "BdsDxe: starting Boot")  # by then it has noted from what it boots
    await two.tell(newer(wanted, 2, awaited=(await opened(one, id, "copy")).disks))
    await two.until(lambda: id in two.observed and two.observed[id].awaiting, 30)
    await one.tell(newer(wanted, 2, send_to=await opened(two, id, "live", os.urandom(32).hex())))
    await two.seen(id, "running", 120, generation=2)
    await one.until(lambda: one.observed[id].sent, 30)
    remembered = nvram[one].read_bytes()
    assert remembered != (FIRMWARE / VARIABLES).read_bytes()
    assert nvram[two].read_bytes() == remembered
    await one.tell(newer(wanted, 3, power="absent"))
    await one.until(lambda: id in one.removed, 30)

    await two.tell(newer(wanted, 4, power="stopped", stop_timeout_seconds=0))
    await two.seen(id, "stopped", 60, generation=4)
    remembered, of_tpm = nvram[two].read_bytes(), _of_tpm(hypervisor_folder / "libvirtd-2", id)
    way = await opened(two, id, "copy", os.urandom(32).hex())
    assert {"nvram.fd", "tpm.tar"} < set(way.disks)
    await one.tell(newer(wanted, 5, power="stopped", copy_from=way))
    assert (await one.seen(id, "stopped", 120, generation=5)).fault is None
    assert nvram[one].read_bytes() == remembered
    assert _of_tpm(hypervisor_folder / "libvirtd", id) == of_tpm
    await one.tell(newer(wanted, 6))
    assert (await one.seen(id, "running", 60, generation=6)).fault is None
    assert not (nvram[one].parent / "tpm.tar").exists()


def _of_tpm(libvirtd, id):
    [memory] = (libvirtd / "lib" / "swtpm" / id).glob("**/*.permall")
    return memory.read_bytes()


def on_cpu(number):
    cell = GuestCell(id=0, host_cell=0, cpus=(0,), memory_mb=256, pins={0: number})
    return Topology(cells=(cell,), cpu_policy="dedicated", numa=False)


async def test_its_pins_and_its_tpm_go_with_a_guest_that_runs(pair, wanted, libvirtd, hypervisor_folder):
    one, two = pair
    id = wanted.server_id
    firmware = {"hw_firmware_type": "uefi", "hw_machine_type": "q35"}
    with_tpm = msgspec.structs.replace(
        wanted, ram_mb=256, properties=firmware | {"hw:tpm_version": "2.0"}, topology=on_cpu(0)
    )
    await one.tell(with_tpm)
    await one.seen(id, "running", BOOT_SECONDS)
    await says(one, id, "count ", 2 * BOOT_SECONDS)
    assert domain_of(libvirtd, id).vcpuPinInfo()[0][:2] == (True, False)
    measured = await opened(one, id, "copy")
    await two.tell(newer(with_tpm, 2, awaited=measured.disks, topology=on_cpu(1)))
    await two.until(lambda: id in two.observed and two.observed[id].awaiting, 30)
    way = await opened(two, id, "live", os.urandom(32).hex())
    await one.tell(newer(with_tpm, 2, send_to=way, topology=on_cpu(1)))
    await two.seen(id, "running", 120, generation=2)
    there = PrivateLibvirtd(hypervisor_folder / "libvirtd-2")
    assert domain_of(there, id).vcpuPinInfo()[0][:2] == (False, True)
    await one.until(lambda: one.observed[id].sent, 30)
    await one.tell(newer(with_tpm, 3, power="absent"))
    await one.until(lambda: id in one.removed, 30)

    # Off, what its firmware and its TPM remember can go along, too.
    await two.tell(newer(with_tpm, 4, power="stopped", stop_timeout_seconds=0))
    await two.seen(id, "stopped", 60, generation=4)
    way = await opened(two, id, "copy", os.urandom(32).hex())
    assert {"nvram.fd", "tpm.tar"} < set(way.disks)


async def test_one_that_cannot_go_or_shall_not_stays_running(pair, wanted, libvirtd):
    one, two = pair
    id = wanted.server_id
    await one.tell(wanted)
    await one.seen(id, "running", BOOT_SECONDS)
    nowhere = Passage(host="host-2", address="127.0.0.1", port=9, fingerprint="00", secret="00" * 32)
    await one.tell(newer(wanted, 2, send_to=nowhere))
    await one.until(lambda: one.observed[id].fault, 60)
    assert one.observed[id].power == "running"
    measured = await opened(one, id, "copy")
    await two.tell(newer(wanted, 3, awaited=measured.disks))
    await two.until(lambda: id in two.observed and two.observed[id].awaiting, 30)
    way = await opened(two, id, "live", os.urandom(32).hex())
    domain_of(libvirtd, id).migrateSetMaxSpeed(1)
    await one.tell(newer(wanted, 3, send_to=way))
    async with asyncio.timeout(60):
        while not isinstance(await one.ask(MeasureMove(server_id=id)), MoveMeasured):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await one.tell(newer(wanted, 4))
    seen = await one.until(
        lambda: (it := one.observed[id]).generation == 4 and it.power == "running" and not it.progress and it, 60
    )
    assert seen.fault is None
    await two.tell(newer(wanted, 4, power="absent"))
    await two.until(lambda: id in two.removed, 30)
    await says(one, id, "count 2")


async def test_a_guest_becomes_of_another_size_where_it_is_and_goes_back(pair, wanted):
    one, _ = pair
    id = wanted.server_id
    await one.tell(wanted)
    await one.seen(id, "running", BOOT_SECONDS)
    await one.tell(newer(wanted, 2, resized=1, kept=True, ram_mb=200, disk_gb=2))
    seen = await one.seen(id, "running", 60, generation=2)
    assert (seen.resized, seen.kept, seen.fault) == (1, True, None)
    assert (await opened(one, id, "copy")).disks["disk"] == 2 * 1024**3
    await one.tell(newer(wanted, 3))
    seen = await one.seen(id, "running", 60, generation=3)
    assert (seen.resized, seen.kept, seen.fault) == (0, False, None)
    assert (await opened(one, id, "copy")).disks["disk"] == 1024**3
    await one.tell(newer(wanted, 4, resized=1, kept=True, ram_mb=200, disk_gb=2))
    await one.seen(id, "running", 60, generation=4)
    await one.tell(newer(wanted, 5, resized=1, ram_mb=200, disk_gb=2))
    seen = await one.seen(id, "running", 60, generation=5)
    assert (seen.resized, seen.kept) == (1, False)
    await says(one, id, "login:")


async def test_hosts_that_share_their_storage_move_a_guest_without_its_disks(sharing, wanted, hypervisor_folder):
    one, two = sharing
    id = wanted.server_id
    disk = hypervisor_folder / "shared" / "guests" / id / "disk"
    await one.tell(wanted)
    await one.seen(id, "running", BOOT_SECONDS)
    before, inode = count(await says(one, id, "count 3")), disk.stat().st_ino
    measured = await opened(one, id, "copy")
    await two.tell(newer(wanted, 2, awaited=measured.disks))
    await two.until(lambda: id in two.observed and two.observed[id].awaiting, 30)
    way = await opened(two, id, "live", os.urandom(32).hex())
    await one.tell(newer(wanted, 2, send_to=way))
    await two.seen(id, "running", 120, generation=2)
    await one.until(lambda: one.observed[id].sent and one.observed[id].generation == 2, 30)
    await two.tell(newer(wanted, 3))
    await one.tell(newer(wanted, 3, power="absent"))
    await one.until(lambda: id in one.removed, 30)
    assert count(await says(two, id, f"count {before + 2}")) > before
    assert disk.stat().st_ino == inode

    # Off, it becomes larger on the other host, and goes back to what it was.
    await two.tell(newer(wanted, 4, power="stopped", stop_timeout_seconds=0))
    await two.seen(id, "stopped", 60, generation=4)
    way = await opened(two, id, "copy", os.urandom(32).hex())
    one.removed.clear()
    await one.tell(newer(wanted, 5, copy_from=way, disk_gb=2, kept=True))
    seen = await one.seen(id, "running", 120, generation=5)
    assert (seen.fault, seen.kept) == (None, True)
    assert disk.stat().st_ino != inode
    assert (await opened(one, id, "copy")).disks["disk"] == 2 * 1024**3
    await one.tell(newer(wanted, 6, power="absent"))
    await one.until(lambda: id in one.removed, 30)
    assert disk.stat().st_ino == inode
    await two.tell(newer(wanted, 7))
    await two.seen(id, "running", 60, generation=7)
    await two.tell(newer(wanted, 8, power="absent"))
    await two.until(lambda: id in two.removed, 30)
    assert not disk.parent.exists()
