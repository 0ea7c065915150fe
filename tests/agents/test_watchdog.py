"""The watchdog: real guests stand still when the lease is over and no agent lives, and go on where they were."""

import asyncio
import base64
import hashlib
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import msgspec
import pytest

from agents.hypervisor import watchdog
from agents.hypervisor.deadline import Deadline, FileDeadlines, boot_id, is_over, seconds_left
from agents.hypervisor.frozen import Frozen
from agents.hypervisor.libvirt import LibvirtDriver
from agents.hypervisor.remembered import NAMESPACE
from bus import clock
from schema.compute.domain import Domain, ImageRef, Seed

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 3.0
COUNTS = "#!/bin/sh\n(i=0; while sleep 0.2; do i=$((i+1)); echo tick $i; done) > /dev/console 2>&1 &\n"


def test_a_lease_ends_once_and_with_the_boot():
    deadline = Deadline(boot="this", until=100.0, fences=True)
    assert (seconds_left(deadline, "this", 97.0), is_over(deadline, "this", 97.0)) == (3.0, False)
    assert is_over(deadline, "this", 100.0)
    assert is_over(deadline, "another", 1.0)
    assert not is_over(Deadline(boot="this", until=100.0), "this", 200.0)


def test_a_deadline_is_found_again_and_what_is_none_is_over(tmp_path):
    kept = FileDeadlines(tmp_path, processes=tmp_path / "qemu", guests=tmp_path / "guests")
    assert kept.load() == Deadline()
    kept.save(Deadline(boot="this", until=100.0, fences=True))
    found = FileDeadlines(tmp_path, processes=tmp_path, guests=tmp_path).load()
    assert (found.boot, found.until, found.fences, found.processes) == ("this", 100.0, True, str(tmp_path / "qemu"))
    (tmp_path / "lease.json").write_text('{"until"')
    assert kept.load() == Deadline()


def test_a_watchdog_stands_until_it_is_killed(tmp_path):
    assert not watchdog.stands(tmp_path)
    dog = begin(tmp_path)
    try:
        until(lambda: watchdog.stands(tmp_path))
    finally:
        dog.kill()
        dog.wait()
    assert not watchdog.stands(tmp_path)


@pytest.fixture
def sleeper():
    """Makes processes that pretend to be guests: their ids are on their command lines."""
    made = []

    def make(id):
        made.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", id]))
        return made[-1]

    yield make
    for process in made:
        process.kill()
        process.wait()


def test_what_runs_is_frozen_and_thawed_or_ended(tmp_path, sleeper):
    qemu, frozen = tmp_path / "qemu", Frozen(tmp_path)
    qemu.mkdir()
    ids = {what: str(uuid.uuid4()) for what in ("runs", "goes", "paused", "foreign", "elsewhere")}
    processes = {what: sleeper(id) for what, id in ids.items()}
    for what, id in ids.items():
        status = "paused" if what == "paused" else "running"
        cloud = "" if what == "foreign" else NAMESPACE
        guests = tmp_path / ("others" if what == "elsewhere" else "guests")
        text = f"<domstatus state='{status}' reason='x' pid='{processes[what].pid}'>{cloud} {guests}/{id}/disk"
        (qemu / f"{id}.xml").write_text(text)

    assert set(frozen.freeze(qemu, str(tmp_path / "guests"))) == {ids["runs"], ids["goes"]}
    until(lambda: {what for what, it in processes.items() if state(it.pid) == "T"} == {"runs", "goes"})
    assert frozen.freeze(qemu, str(tmp_path / "guests")) == []
    assert frozen.holds(ids["runs"])
    frozen.thaw(ids["runs"])
    assert not frozen.holds(ids["runs"])
    until(lambda: state(processes["runs"].pid) != "T")
    frozen.end(ids["goes"])
    assert processes["goes"].wait(10) == -signal.SIGKILL


def test_a_process_that_only_has_the_number_of_another_is_left_alone(tmp_path, sleeper):
    id = str(uuid.uuid4())
    process = sleeper("another")
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen" / id).write_text(f"{process.pid} 1")
    Frozen(tmp_path).end(id)
    assert process.poll() is None
    assert not Frozen(tmp_path).holds(id)


def test_a_promise_is_kept_before_its_time_where_nobody_will_be_there_then(tmp_path, sleeper):
    id = str(uuid.uuid4())
    process = sleeper(id)
    folder = tmp_path / "hosts" / "host-1"
    qemu = tmp_path / "qemu"
    qemu.mkdir()
    text = f"<domstatus state='running' reason='x' pid='{process.pid}'>{NAMESPACE} {folder}/guests/{id}/disk"
    (qemu / f"{id}.xml").write_text(text)
    kept = FileDeadlines(folder, processes=qemu, guests=folder / "guests")
    soon = Deadline(boot=boot_id(), until=clock.boot_seconds() + 3600, fences=False)
    kept.save(soon)
    assert watchdog.fence(tmp_path) == {}
    kept.save(msgspec.structs.replace(soon, fences=True))
    assert watchdog.look(tmp_path) == {}
    assert watchdog.fence(tmp_path) == {"host-1": [id]}
    until(lambda: state(process.pid) == "T")


@pytest.fixture
def dog(hypervisor_folder):
    dog = begin(hypervisor_folder)
    until(lambda: watchdog.stands(hypervisor_folder))
    yield dog
    dog.kill()
    dog.wait()


@pytest.fixture
def driver(libvirtd, hypervisor_folder):
    def make():
        folder = hypervisor_folder / "hypervisor"
        return LibvirtDriver("host-1", libvirtd.uri, folder, revive=libvirtd.start, sockets=libvirtd.sockets)

    return make


@pytest.fixture
def order(guest_image):
    content = guest_image.read_bytes()
    checksum = hashlib.sha512(content).hexdigest()
    image = ImageRef(id=str(uuid.uuid4()), url=guest_image.as_uri(), checksum=checksum, size_bytes=len(content))

    def make():
        seed = Seed(hostname="web-1", user_data=base64.b64encode(COUNTS.encode()).decode())
        return Domain(
            server_id=str(uuid.uuid4()),
            name="web 1",
            generation=1,
            power="running",
            ram_mb=160,
            disk_gb=1,
            image=image,
            seed=seed,
            config_drive=True,
        )

    return make


@pytest.mark.parametrize("survives", [True, False], ids=["libvirtd lives", "libvirtd is killed"])
@pytest.mark.live
@pytest.mark.slow
async def test_guests_of_a_dead_agent_stand_still_and_go_on_or_go(
    control, driver, order, libvirtd, hypervisor_folder, dog, survives
):
    options = {
        "lease_seconds": LEASE_SECONDS,
        "fence": True,
        "watched": lambda: watchdog.stands(hypervisor_folder),
    }
    stays, goes = order(), order()
    control.manifest = (stays, goes)
    await control.start_agent(driver(), **options)
    for it in (stays, goes):
        await control.seen(it.server_id, "running", 120)
    assert control.beats[-1].facts.fences
    console = hypervisor_folder / "hypervisor" / "guests" / stays.server_id / "console.log"
    await until_true(lambda: ticks(console) > 3, 120)
    assert states(libvirtd, stays, goes).isdisjoint("T")

    # The agent is gone from one moment to the next.
    control.granting = False
    last = FileDeadlines(hypervisor_folder / "hypervisor", processes=Path(), guests=Path()).load().until
    await control.stop_agent()
    assert last - LEASE_SECONDS < clock.boot_seconds() < last
    await until_true(lambda: states(libvirtd, stays, goes) == {"T"}, 10)
    late = clock.boot_seconds() - last
    assert 0 <= late < watchdog.GRACE_SECONDS + 3 * watchdog.LOOK_SECONDS, f"{late:.1f} s after the lease"
    counted = ticks(console)
    if not survives:
        os.kill(libvirtd.pid, signal.SIGKILL)

    # The next one finds them as it would have left them, and neither goes on before it is known whose it is.
    control.observed.clear()
    control.beats.clear()
    await control.start_agent(driver(), **options)
    for it in (stays, goes):
        assert (await control.seen(it.server_id, "paused", 30)).fenced
    assert ticks(console) == counted
    control.epoch, control.position = 2, control.position + 1
    control.manifest, control.manifest_position = (stays,), 1_000
    control.granting = True
    await control.until(lambda: goes.server_id in control.removed, 30)
    await control.seen(stays.server_id, "running", 30)
    await until_true(lambda: ticks(console) > counted + 2, 30)
    assert not (hypervisor_folder / "hypervisor" / "guests" / goes.server_id).exists()
    assert list((hypervisor_folder / "hypervisor" / "frozen").iterdir()) == []

    # And is a guest as any other.
    await control.tell(Domain(server_id=stays.server_id, name="web 1", generation=2, power="absent", built=True))
    await control.until(lambda: stays.server_id in control.removed, 30)


def begin(home):
    environment = os.environ | {"CUMULOG_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "api.cli", "serve", "watchdog"]
    return subprocess.Popen(command, env=environment, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ticks(console):
    """How far the guest has counted."""
    return max(map(int, re.findall(r"tick (\d+)\r?\n", console.read_text(errors="replace"))), default=0)


def states(libvirtd, *domains):
    """Of their processes: T is stopped."""
    found = set()
    for domain in domains:
        found.add(state(int((libvirtd.folder / "run" / "qemu" / f"{domain.server_id}.pid").read_text())))
    return found


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(condition, seconds=10):
    asyncio.run(until_true(condition, seconds))


async def until_true(condition, seconds):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
