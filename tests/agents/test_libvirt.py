"""Real guests. One story each, since a boot costs some ten seconds where there is no KVM."""

import asyncio
import base64
import hashlib
import os
import re
import signal
import time
import uuid

import libvirt
import pytest

from agents.hypervisor import console as console_module
from agents.hypervisor.libvirt import LibvirtDriver
from agents.hypervisor.libvirt_housekeeping import trim
from schema.compute.domain import Domain, ImageRef, Reboots, Seed
from schema.compute.server_parts import GuestFile

pytestmark = [pytest.mark.live, pytest.mark.slow]

FILES = (GuestFile(path="/srv/deep/note", contents=base64.b64encode(b"brought along").decode()),)
BOOT_SECONDS = 120
"""Enough for a machine that is busy with other tests; alone it is eight."""


@pytest.fixture
def image(guest_image):
    content = guest_image.read_bytes()
    checksum = hashlib.sha512(content).hexdigest()
    return ImageRef(id=str(uuid.uuid4()), url=guest_image.as_uri(), checksum=checksum, size_bytes=len(content))


@pytest.fixture
def driver(libvirtd, hypervisor_folder):
    def make():
        return LibvirtDriver("host-1", libvirtd.uri, hypervisor_folder / "hypervisor", revive=libvirtd.start)

    return make


@pytest.fixture
def order(image):
    """Makes the wishes for one server, each newer than the one before."""

    def make(script, **more):
        id = str(uuid.uuid4())
        seed = Seed(hostname="web-1", user_data=base64.b64encode(script.encode()).decode(), files=FILES)
        generation = 0

        def wish(power="running", **changes):
            nonlocal generation
            generation += 1
            first = {"image": image, "seed": seed, "config_drive": True} if generation == 1 else {"built": True}
            shape = {"ram_mb": 160, "disk_gb": 1} | more | first | changes
            return Domain(server_id=id, name="web 1", generation=generation, power=power, **shape)

        return id, wish

    return make


async def says(control, id, words, timeout_seconds=BOOT_SECONDS):
    """Until the guest's console has these words."""
    text = ""
    async with asyncio.timeout(timeout_seconds):
        while words not in text:
            text = await control.console(id)
            await asyncio.sleep(0.2)
    return text


def domain_of(libvirtd, id):
    return libvirt.open(libvirtd.uri).lookupByUUIDString(id)


async def test_a_guest_lives_its_whole_life(control, driver, order, libvirtd, hypervisor_folder, monkeypatch):
    await control.start_agent(driver())
    id, wish = order("#!/bin/sh\necho my name is $(hostname), $(cat /srv/deep/note) and I have run\nexit 7\n")
    other, wish_other = order("#!/bin/sh\necho bye\npoweroff\n")
    await control.tell(wish(), wish_other())
    assert (await control.seen(id, "running", 60)).fault is None

    text = await says(control, id, "login:")
    assert "my name is web-1, brought along and I have run" in text
    assert "user-data finished, exit 7" in text
    assert (await control.console(id, 1)).strip().endswith("login:")

    # The other one has shut itself down meanwhile, or does so now.
    await control.seen(other, "stopped", BOOT_SECONDS)

    for power in ("paused", "running", "suspended", "running"):
        await control.tell(wish(power))
        await control.seen(id, power, 60)
    with monkeypatch.context() as small:
        small.setattr(console_module, "LIMIT_BYTES", 100)
        small.setattr(console_module, "KEPT_BYTES", 10)
        console_module.trim(hypervisor_folder / "hypervisor" / "guests" / id / "console.log")
    await control.tell(wish("stopped", stop_timeout_seconds=BOOT_SECONDS))
    await control.seen(id, "stopped", BOOT_SECONDS)
    text = await control.console(id)
    assert "shutting down" in text
    assert "SYSLINUX" not in text
    assert "\0" not in text

    await control.tell(wish())
    await control.seen(id, "running", 30)
    number = domain_of(libvirtd, id).ID()
    await control.tell(wish(reboots=Reboots(hard=1)))
    await control.until(lambda: control.observed[id].reboots.hard == 1, 30)
    assert domain_of(libvirtd, id).ID() != number

    domain_of(libvirtd, id).destroy()
    started = time.monotonic()
    await control.seen(id, "stopped", 5)
    assert time.monotonic() - started < 1

    await control.tell(wish("absent"), wish_other("absent"))
    await control.until(lambda: {id, other} <= control.removed, 30)
    assert list((hypervisor_folder / "hypervisor" / "guests").iterdir()) == []
    assert libvirt.open(libvirtd.uri).listAllDomains() == []


async def test_guests_outlive_agent_and_libvirtd(control, driver, order, libvirtd):
    await control.start_agent(driver())
    id, wish = order("")
    running = wish()
    await control.tell(running)
    await control.seen(id, "running", 60)
    number = domain_of(libvirtd, id).ID()

    os.kill(libvirtd.pid, signal.SIGKILL)
    await control.tell(wish("paused"))
    await control.seen(id, "paused", 30)

    await control.stop_agent()
    libvirtd.stop()
    control.observed.clear()
    control.manifest = (wish("running"),)
    libvirtd.start()
    await control.start_agent(driver())
    await control.seen(id, "running", 30)
    assert domain_of(libvirtd, id).ID() == number

    control.manifest = ()
    await control.tell(full=True)
    await control.until(lambda: id in control.removed, 30)


async def test_what_cannot_be_built_says_why_and_leaves_nothing(control, driver, order, image, hypervisor_folder):
    await control.start_agent(driver())
    id, wish = order("")

    async def fault(domain):
        await control.tell(domain)
        word = await control.until(
            lambda: (it := control.observed.get(id)) and it.generation == domain.generation and it.fault and it, 60
        )
        return word.fault

    damaged = ImageRef(id="damaged", url=image.url, checksum="0" * 128)
    assert "damaged: its sha512 is not" in await fault(wish(image=damaged, built=False))
    gone = ImageRef(id="gone", url="http://127.0.0.1:1/image")
    assert "image gone could not be downloaded" in await fault(wish(image=gone, built=False))
    assert "rebuild it" in await fault(wish(image=image, built=True))
    await control.tell(wish("absent"))
    await control.until(lambda: id in control.removed, 30)
    assert list((hypervisor_folder / "hypervisor" / "guests").iterdir()) == []


async def test_a_console_log_stays_small(driver, order, hypervisor_folder, monkeypatch):
    monkeypatch.setattr(console_module, "LIMIT_BYTES", 1000)
    monkeypatch.setattr(console_module, "KEPT_BYTES", 500)
    driver = driver()
    folder = hypervisor_folder / "hypervisor" / "guests" / str(uuid.uuid4())
    folder.mkdir(parents=True)
    console = folder / "console.log"
    console.write_text("".join(f"line {n}\n" for n in range(500)))
    trim(folder.parent)
    assert console.stat().st_size == 500
    assert (await driver.console(folder.name, 2)) == "line 498\nline 499\n"
    console.unlink()
    folder.rmdir()


async def test_a_root_disk_is_made_anew(control, driver, order, image, libvirtd, hypervisor_folder):
    await control.start_agent(driver())
    id, wish = order("#!/bin/sh\necho the first life\n")
    await control.tell(wish(ephemeral_gb=1))
    await control.seen(id, "running", 60)
    folder = hypervisor_folder / "hypervisor" / "guests" / id
    disk, ephemeral = (folder / "disk").stat().st_ino, (folder / "ephemeral").stat().st_ino
    number = domain_of(libvirtd, id).ID()

    # What cannot be fetched harms nothing: the guest runs on, on the disk it has.
    lost = ImageRef(id=str(uuid.uuid4()), url="file:///nowhere/at/all")
    await control.tell(wish(ephemeral_gb=1, image=lost, remade=1))
    await control.until(lambda: control.observed[id].fault is not None, 30)
    assert domain_of(libvirtd, id).ID() == number
    assert (folder / "disk").stat().st_ino == disk

    seed = Seed(hostname="web-2", user_data=base64.b64encode(b"#!/bin/sh\necho another life\n").decode())
    more = {"ephemeral_gb": 1, "image": image, "seed": seed, "config_drive": True, "keep_ephemeral": True}
    await control.tell(wish(remade=2, **more))
    await control.until(lambda: control.observed[id].remade == 2, 60)
    assert (folder / "disk").stat().st_ino != disk
    assert (folder / "ephemeral").stat().st_ino == ephemeral
    await says(control, id, "another life")

    await control.tell(wish("absent"))
    await control.until(lambda: id in control.removed, 30)


async def test_a_guest_is_rescued_and_brought_back(control, driver, order, image, libvirtd, hypervisor_folder):
    await control.start_agent(driver())
    id, wish = order("#!/bin/sh\n")
    await control.tell(wish())
    await control.seen(id, "running", 60)
    folder = hypervisor_folder / "hypervisor" / "guests" / id

    def disks():
        return re.findall(rf"{id}/(rescue|disk)'", domain_of(libvirtd, id).XMLDesc())

    await control.tell(wish(rescue=image))
    await control.until(lambda: control.observed[id].rescued and control.observed[id].power == "running", 60)
    assert disks() == ["rescue", "disk"]
    await control.tell(wish(rescue=image, reboots=Reboots(hard=1)))
    await control.until(lambda: control.observed[id].reboots.hard == 1, 60)
    assert disks() == ["rescue", "disk"]

    await control.tell(wish(reboots=Reboots(hard=1)))
    await control.until(lambda: not control.observed[id].rescued and control.observed[id].power == "running", 60)
    assert disks() == ["disk"]
    assert not (folder / "rescue").exists()

    for stands in ({"hw_rescue_bus": "scsi"}, {"hw_rescue_device": "cdrom"}):
        await control.tell(wish(rescue=image, properties=stands, reboots=Reboots(hard=1)))
        await control.until(lambda: control.observed[id].rescued and control.observed[id].power == "running", 60)
        assert disks() == ["disk", "rescue"]
        await control.tell(wish(reboots=Reboots(hard=1)))
        await control.until(lambda: not control.observed[id].rescued and control.observed[id].power == "running", 60)
        assert disks() == ["disk"]
    await control.tell(wish("absent"))
    await control.until(lambda: id in control.removed, 30)
