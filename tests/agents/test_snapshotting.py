"""The promises of copies: sent once, tried anew, and nothing is left of one that came to nothing."""

import asyncio

import pytest

from agents.hypervisor import snapshotting
from agents.hypervisor.driver import StepFailed
from agents.hypervisor.libvirt_backup import backup_xml
from agents.hypervisor.plan import Adopt, Pause, Stop, TakeSnapshot, impatient, plan
from agents.hypervisor.remembered import Remembered, remembered
from agents.hypervisor.simulated import SimulatedDriver
from agents.hypervisor.snapshotting import send
from agents.hypervisor.wishes import quiesce
from schema.compute.domain import Observed, Snapshot

from .control import Control
from .image_service import image_service
from .test_agent import domain

WANTED = Snapshot(image_id="i", url="http://127.0.0.1:1/i")


@pytest.fixture
async def service():
    async with image_service() as it:
        yield it


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(snapshotting, "RETRY_SECONDS", 0.01)


def sent(done, whole):
    pass


def test_a_copy_is_taken_once_and_last():
    wanted = domain(generation=2, power="stopped", snapshot=WANTED)
    running = Observed(server_id="a", power="running", generation=1)
    steps = plan({"a": wanted}, {"a": running})
    assert [type(it) for it in steps] == [Stop, TakeSnapshot, Adopt]
    taken = Observed(server_id="a", power="stopped", generation=1, snapshot="i")
    assert [type(it) for it in plan({"a": wanted}, {"a": taken})] == [Adopt]
    another = domain(generation=3, power="paused", snapshot=Snapshot(image_id="j", url=""))
    steps = plan({"a": another}, {"a": Observed(server_id="a", power="running", generation=2, snapshot="i")})
    assert [type(it) for it in steps] == [Pause, TakeSnapshot, Adopt]


def test_one_that_nobody_waits_for_is_broken_off():
    wanted = domain(snapshot=WANTED)
    assert impatient(wanted, domain(generation=2))
    assert not impatient(wanted, domain(generation=2, snapshot=WANTED))
    assert not impatient(domain(), wanted)


async def test_the_data_is_sent_whole(service, tmp_path):
    path = tmp_path / "copy"
    path.write_bytes(b"x" * (3 << 20))
    said = []
    await send(service.wanted("i"), path, lambda done, whole: said.append((done, whole)))
    assert service.images == {"i": path.read_bytes()}
    assert said[-1] == (3 << 20, 3 << 20)


@pytest.mark.parametrize("trouble", ["503", "409", "broken line"])
async def test_what_passes_is_tried_anew(service, trouble):
    if trouble.isdigit():
        service.statuses = [int(trouble)] * 2
    else:
        service.breaks = 2
    await send(service.wanted("i"), b"data", sent)
    assert (service.images, service.asked) == ({"i": b"data"}, 3)


async def test_what_does_not_pass_is_a_fault(service):
    service.statuses = [404]
    with pytest.raises(StepFailed, match=r"image i could not be sent: 404.*said so"):
        await send(service.wanted("i"), b"data", sent)
    assert service.asked == 1
    with pytest.raises(StepFailed, match="image i could not be sent"):
        await send(WANTED, b"data", sent)


async def test_an_agent_sends_it_and_says_so(service):
    control, driver = Control(), SimulatedDriver("host-1")
    try:
        await control.start_agent(driver)
        await control.tell(domain())
        await control.seen("a", "running")
        wanted = domain(generation=2, snapshot=service.wanted("i"))
        await control.tell(wanted)
        assert (await control.seen("a", "running", generation=2)).snapshot == "i"
        assert service.images["i"].startswith(b"QFI\xfb")
        await control.tell(wanted)
        service.statuses = [410]
        await control.tell(domain(generation=3, snapshot=service.wanted("j")))
        await control.until(lambda: control.observed["a"].fault)
        assert "image j could not be sent: 410" in control.observed["a"].fault
        assert (control.observed["a"].generation, control.observed["a"].power) == (3, "running")
        assert service.asked == 2
    finally:
        await control.close()


async def test_an_agent_that_dies_begins_anew(service):
    control, driver = Control(), SimulatedDriver("host-1")
    wanted = domain(generation=2, snapshot=service.wanted("i"))
    try:
        await control.start_agent(driver)
        await control.tell(domain())
        await control.seen("a", "running")
        under_way = asyncio.Event()
        driver.delay = lambda step: (under_way.set(), 60.0)[1] if isinstance(step, TakeSnapshot) else 0.0
        await control.tell(wanted)
        await under_way.wait()
        await control.stop_agent()
        driver.delay = None
        control.manifest = (wanted,)
        await control.start_agent(driver)
        assert (await control.seen("a", "running", generation=2)).snapshot == "i"
        assert service.asked == 1
    finally:
        await control.close()


def test_what_was_copied_is_remembered_with_the_domain():
    memory = Remembered(snapshot="i")
    assert remembered(memory.xml()) == memory


@pytest.mark.parametrize(
    "properties, word",
    [
        ({}, "no"),
        ({"hw_qemu_guest_agent": "yes"}, "try"),
        ({"hw_qemu_guest_agent": "yes", "os_require_quiesce": "true"}, "must"),
    ],
)
def test_the_image_says_whether_file_systems_are_made_quiet(properties, word):
    assert quiesce(properties) == word


def test_the_root_disk_and_no_other_is_copied(tmp_path):
    live = f"""<domain><devices>
      <disk><source file="{tmp_path}/disk"/><target dev="vda"/></disk>
      <disk><source file="{tmp_path}/swap"/><target dev="vdb"/></disk>
      <disk device="cdrom"><target dev="hda"/></disk></devices></domain>"""
    xml = backup_xml(live, tmp_path / "disk", tmp_path / "copy")
    assert xml == (
        '<domainbackup mode="push"><disks>'
        f'<disk name="vda" backup="yes" type="file"><target file="{tmp_path}/copy" /><driver type="qcow2" /></disk>'
        '<disk name="vdb" backup="no" /><disk name="hda" backup="no" />'
        "</disks></domainbackup>"
    )
    with pytest.raises(StepFailed, match="another root disk"):
        backup_xml(live, tmp_path / "else", tmp_path / "copy")
