"""What a host that died in the middle left behind is found on a real one, and goes; what is of use stays."""

import uuid

import pytest

from agents.hypervisor import libvirt_leftovers
from agents.hypervisor.answering import Answering
from agents.hypervisor.libvirt import LibvirtDriver
from agents.hypervisor.plan import Define, Remove
from schema.compute.domain import Domain
from schema.compute.question import ClearLeftovers, Done, ListGuests

pytestmark = [pytest.mark.live, pytest.mark.slow]


def domain():
    return Domain(server_id=str(uuid.uuid4()), name="web 1", generation=1, power="stopped", disk_gb=1)


@pytest.fixture
async def driver(libvirtd, hypervisor_folder):
    driver = LibvirtDriver("h", libvirtd.uri, hypervisor_folder / "left", sockets=libvirtd.sockets)
    await driver.start(lambda id: None, lambda id, words: None)
    yield driver
    await driver.close()


def made(path, *, folder=False):
    """As a process leaves it that died."""
    path.mkdir(parents=True) if folder else path.write_bytes(b"x" * 5000)
    return str(path)


async def test_files_that_are_of_no_guest_are_told_of_and_go(driver, libvirtd, hypervisor_folder, monkeypatch):
    one, gone = domain(), str(uuid.uuid4())
    await driver.act(Define(one))
    guests, tpms = hypervisor_folder / "left" / "guests", libvirtd.folder / "lib" / "swtpm"
    half_made = {made(guests / one.server_id / name) for name in ("fresh", "copy", "disk.new", "rescue")}
    tpm = made(tpms / gone, folder=True)
    stray = made(guests / "notes.txt")
    answering = Answering(driver)

    async def told():
        return {it.name: it for it in (await answering.answer(ListGuests())).leftovers}

    assert await told() == {}  # they may be in the making
    monkeypatch.setattr(libvirt_leftovers, "YOUNG_SECONDS", -1.0)
    found = await told()
    assert set(found) == {*half_made, tpm, stray}
    assert {name for name, it in found.items() if it.held} == half_made
    assert (found[tpm].server_id, found[stray].server_id) == (gone, "")
    assert found[stray].size_bytes >= 5000

    used = str(guests / one.server_id / "disk")
    assert await answering.answer(ClearLeftovers(names=(*found, used))) == Done()
    assert set(await told()) == {stray}
    assert [it.name for it in (guests / one.server_id).iterdir()] == ["disk"]
    assert (await driver.observe())[one.server_id].power == "stopped"

    await driver.act(Remove(one.server_id))
    assert [it.name for it in guests.iterdir()] == ["notes.txt"]


async def test_a_guest_that_never_came_leaves_nothing_of_its_tpm(driver, libvirtd):
    """Its TPM's memory was copied here, and its agent died before there was a domain."""
    id = str(uuid.uuid4())
    path = libvirtd.folder / "lib" / "swtpm" / id
    made(path, folder=True)
    await driver.act(Remove(id))
    assert not path.exists()


async def test_what_only_a_host_holds_that_is_no_more_is_left_over(libvirtd, hypervisor_folder, monkeypatch):
    """On shared storage the last one to let go removes a guest's folder: one that never will must not keep it."""
    monkeypatch.setattr(libvirt_leftovers, "YOUNG_SECONDS", -1.0)
    shared = hypervisor_folder / "shared"
    driver = LibvirtDriver("h1", libvirtd.uri, hypervisor_folder / "own", sockets=libvirtd.sockets, shared=shared)
    await driver.start(lambda id: None, lambda id, words: None)
    one, theirs, gone, nobodys = domain(), str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())
    await driver.act(Define(one))
    for id, holder in ((theirs, "h2"), (gone, "h3"), (nobodys, "")):
        made(shared / "guests" / id, folder=True)
        if holder:
            made(shared / "guests" / id / f"held.{holder}")
    there = ("h1", "h2")
    assert await driver.leftovers() == []  # another one looks
    found = {it.server_id: it.name for it in await driver.leftovers(there)}
    assert set(found) == {gone, nobodys}
    await driver.clear(found.values(), there)
    assert {it.name for it in (shared / "guests").iterdir()} == {one.server_id, theirs}
    await driver.act(Remove(one.server_id))
    await driver.close()
