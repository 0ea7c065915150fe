"""What is done with a server, on a real guest: what it wrote, its address and its memory are what was promised.

The tests are one story of one guest on two hosts, in order; each leaves it running, and says where.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from agents.hypervisor import libvirt_backup
from agents.hypervisor.libvirtd import PrivateLibvirtd
from tests.network.real_cloud import HOSTS, IMAGE, Guest, RealCloud, run, standing, tcp, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning"),
]

BOOTED_SECONDS = 120.0
AGENT = {"hw_qemu_guest_agent": "yes", "os_require_quiesce": "yes", "os_admin_user": "cumulog"}
SERVED = "timeout 9 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"
NEEDS_RECOVERY = 0x4
"""In what ext4 says of itself: it is written to now, or was when its power was cut."""


@pytest.fixture(scope="module")
def cloud(free_port: Callable[[], int]) -> Iterator[RealCloud]:
    with standing(free_port(), CUMULOG_RECLAIM_INSTANCE_INTERVAL="3600") as cloud:
        yield cloud


@pytest.fixture(scope="module")
def keeper(cloud: RealCloud) -> Guest:
    """On the second host, of an image that promises QEMU's agent."""
    image = next(iter(cloud.api.image.images(name=IMAGE)))
    cloud.api.image.update_image(image, **AGENT)
    cloud.group("open", {"protocol": "icmp"}, tcp(22))
    net = cloud.net("net", "10.77.0.0/24")
    guest = cloud.boot("keeper", HOSTS[1], [{"uuid": net.network_id}], security_groups=[{"name": "open"}])
    guest.active().published().ready().reached()
    guest.run("echo I was here | sudo tee /witness; sync")
    return guest


def test_an_image_of_a_guest_that_runs_is_of_quiet_file_systems(cloud: RealCloud, keeper: Guest) -> None:
    booted = boot_of(keeper)
    image = kept(cloud, cloud.api.compute.create_server_image(keeper.id, "live").id)
    assert boot_of(keeper) == booted
    [folder] = files(cloud, keeper)
    assert not {it.name for it in folder.iterdir()} & {"copy", "quiet"}
    copy = cloud.person.home / "live.qcow2"
    cloud.api.image.download_image(image, output=str(copy))
    assert needs_recovery(folder / "disk"), "it is not written to, so that this proves nothing"
    assert not needs_recovery(copy)
    keeper.run("echo it goes on | sudo tee /later; sync")


def test_who_is_paused_or_suspended_goes_on_where_it_was(cloud: RealCloud, keeper: Guest) -> None:
    booted = boot_of(keeper)
    api = cloud.api.compute
    for there, back, status in (
        (api.pause_server, api.unpause_server, "PAUSED"),
        (api.suspend_server, api.resume_server, "SUSPENDED"),
    ):
        there(keeper.id)
        is_now(keeper, status)
        assert cloud.outside("ping", "-c", "1", "-W", "1", keeper.floating_ip).returncode != 0
        back(keeper.id)
        is_now(keeper, "ACTIVE").reached()
        assert boot_of(keeper) == booted


def test_its_agent_sets_a_password_and_its_kernel_hears_of_a_crash(cloud: RealCloud, keeper: Guest) -> None:
    cloud.api.compute.change_server_password(keeper.id, "a new one")
    assert keeper.run("echo 'a new one' | su cumulog -c 'id -un'").endswith("cumulog")
    assert keeper.try_run("echo 'another one' | su cumulog -c 'id -un'").returncode != 0
    cloud.api.compute.trigger_server_crash_dump(keeper.id)
    until(lambda: "NMI received" in keeper.console, 20, "no interrupt arrived")


def test_a_shelf_keeps_what_it_wrote(cloud: RealCloud, keeper: Guest) -> None:
    cloud.api.compute.shelve_server(keeper.id)
    is_now(keeper, "SHELVED_OFFLOADED")
    until(lambda: not files(cloud, keeper), 30, "its host keeps something of it")
    cloud.api.compute.unshelve_server(keeper.id, host=HOSTS[0])
    is_now(keeper, "ACTIVE").reached(BOOTED_SECONDS)
    assert keeper.run("cat /witness /later") == "I was here\nit goes on"
    settled(cloud, keeper, HOSTS[0])
    assert list(cloud.api.image.images(name="keeper-shelved")) == []


def test_who_was_deleted_is_brought_back(cloud: RealCloud, keeper: Guest) -> None:
    """And runs; that its disk is what it was is seen from its rescue, which comes next."""
    cloud.api.compute.delete_server(keeper.id)
    is_now(keeper, "SOFT_DELETED")
    until(lambda: not keepers(keeper), 60, "it runs on")
    cloud.api.compute.restore_server(keeper.id)
    is_now(keeper, "ACTIVE")
    settled(cloud, keeper, HOSTS[0])


def test_who_is_rescued_finds_its_disk_beside_another(cloud: RealCloud, keeper: Guest) -> None:
    rescue = next(iter(cloud.api.image.images(name=IMAGE)))
    cloud.api.compute.rescue_server(keeper.id, image_ref=rescue.id)
    is_now(keeper, "RESCUE").reached(BOOTED_SECONDS)
    assert keeper.run("cat /witness || echo none") == "none"
    assert keeper.run("sudo mount /dev/vdb2 /mnt && cat /mnt/upper/witness") == "I was here"
    keeper.run("echo saved | sudo tee /mnt/upper/later; sudo umount /mnt")
    assert keeper.id in keeper.run(SERVED)
    cloud.api.compute.unrescue_server(keeper.id)
    is_now(keeper, "ACTIVE").reached(BOOTED_SECONDS)
    assert keeper.run("cat /witness /later; ls /sys/block | grep -c vd") == "I was here\nsaved\n1"


def test_of_backups_the_newest_are_kept(cloud: RealCloud, keeper: Guest) -> None:
    for name in ("first", "second"):
        cloud.api.compute.backup_server(keeper.id, name=name, backup_type="daily", rotation=1)
        [image] = cloud.api.image.images(name=name)
        assert kept(cloud, image.id).properties["backup_type"] == "daily"
    until(lambda: not list(cloud.api.image.images(name="first")), 30, "the older one is kept")


def test_it_moves_while_it_is_off_and_stays(cloud: RealCloud, keeper: Guest) -> None:
    cloud.api.compute.migrate_server(keeper.id, host=HOSTS[1])
    is_now(keeper, "VERIFY_RESIZE").reached(BOOTED_SECONDS)
    assert keeper.run("cat /witness /later") == "I was here\nsaved"
    cloud.api.compute.confirm_server_resize(keeper.id)
    is_now(keeper, "ACTIVE")
    settled(cloud, keeper, HOSTS[1])


def test_a_disk_made_anew_is_of_its_image(cloud: RealCloud, keeper: Guest) -> None:
    """And the image, that of the guest as it ran, boots."""
    booted, ip = boot_of(keeper), keeper.ip
    [image] = cloud.api.image.images(name="live")
    cloud.api.compute.rebuild_server(keeper.id, image=image.id)
    is_now(keeper, "ACTIVE").reached(BOOTED_SECONDS)
    assert keeper.active().ip == ip
    assert boot_of(keeper) != booted
    assert keeper.run("cat /witness; cat /later 2> /dev/null || echo nothing later") == "I was here\nnothing later"
    assert keeper.id in keeper.run(SERVED)
    keeper.run("echo lost with its host | sudo tee /later; sync")


def test_a_host_that_hangs_comes_back_and_leaves_one_guest(cloud: RealCloud, keeper: Guest) -> None:
    """Its agents have ended, its libvirtd is dead, its cables are cut; its guest stands still until it is back."""
    remaining, lost = HOSTS
    settled(cloud, keeper, lost)
    [(_, hung)] = keepers(keeper)
    libvirtd = PrivateLibvirtd(cloud.person.home / "hosts" / lost / "libvirtd").pid
    assert libvirtd
    up = ("--hypervisor", "libvirt", "--hosts")
    cloud.person.up(*up, "1")
    os.kill(libvirtd, signal.SIGKILL)
    os.kill(hung, signal.SIGSTOP)
    for cable in ("f2", "x2"):
        run(cloud.fabric.outside, "ip", "link", "set", cable, "down")

    cloud.openstack("compute", "service", "set", "--down", lost, "nova-compute")
    assert "1 of 1 servers" in cloud.types("host", "evacuate", lost)
    keeper.reached(BOOTED_SECONDS)
    booted = boot_of(keeper)
    assert keeper.run("cat /witness; cat /later 2> /dev/null || echo nothing later") == "I was here\nnothing later"
    assert keeper.id in keeper.run(SERVED)
    assert cloud.api.compute.get_server(keeper.id).compute_host == remaining

    frozen_by_one_that_died(cloud, keeper, remaining)
    os.kill(hung, signal.SIGCONT)
    cloud.person.up(*up, "2")
    assert keeper.run("echo awake | sudo tee /later; sync") == "awake"
    cloud.openstack("compute", "service", "set", "--up", lost, "nova-compute")
    settled(cloud, keeper, remaining)
    assert boot_of(keeper) == booted
    assert "say the same" in cloud.types("drift")


def boot_of(guest: Guest) -> str:
    """Another one each time it is powered on."""
    return guest.run("cat /proc/sys/kernel/random/boot_id")


def is_now(guest: Guest, status: str) -> Guest:
    """Once it is, and nothing more is being done."""

    def settled() -> bool:
        server = guest.cloud.api.compute.get_server(guest.id)
        assert server.status != "ERROR", server.fault
        return server.status == status and server.task_state is None

    until(settled, BOOTED_SECONDS, f"it is not {status}")
    return guest


def kept(cloud: RealCloud, image_id: str) -> Any:
    """The image, once it has its data."""
    until(lambda: cloud.api.image.get_image(image_id).status == "active", 60, "the image has no data")
    return cloud.api.image.get_image(image_id)


def files(cloud: RealCloud, guest: Guest) -> list[Path]:
    """What the hosts have of it."""
    return list((cloud.person.home / "hosts").glob(f"*/guests/{guest.id}"))


def keepers(guest: Guest) -> list[tuple[str, int]]:
    """Who runs it: (host, process) of each QEMU that has its name on its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"qemu-system-x86_64") and any(guest.id.encode() in word for word in words):
            host = next(it for it in HOSTS if any(f"/hosts/{it}/guests/".encode() in word for word in words))
            found.append((host, int(path.parent.name)))
    return found


def settled(cloud: RealCloud, guest: Guest, host: str) -> None:
    """Once it runs there, and nothing of it is anywhere else."""
    assert cloud.api.compute.get_server(guest.id).compute_host == host
    until(lambda: [it for it, _ in keepers(guest)] == [host], 60, "it does not run once")
    until(lambda: [it.parent.parent.name for it in files(cloud, guest)] == [host], 30, "another host keeps files of it")


def frozen_by_one_that_died(cloud: RealCloud, guest: Guest, host: str) -> None:
    """Its file systems quiet, as a process leaves them that is killed while it copies its disk."""
    connection = libvirt.open(PrivateLibvirtd(cloud.person.home / "hosts" / host / "libvirtd").uri)
    try:
        connection.lookupByUUIDString(guest.id).fsFreeze()
    finally:
        connection.close()
    [folder] = [it for it in files(cloud, guest) if it.parent.parent.name == host]
    (folder / libvirt_backup.QUIET).touch()


def needs_recovery(disk: Path) -> bool:
    """Of the file system that the guest writes to, on its second partition; the disk may be in use."""
    with tempfile.NamedTemporaryFile(dir=disk.parent) as raw:
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", str(disk), raw.name], check=True)
        raw.seek(446 + 16 + 8)
        (start,) = struct.unpack("<I", raw.read(4))
        raw.seek(start * 512 + 1024)
        block = raw.read(1024)
    assert block[0x38:0x3A] == b"\x53\xef", "it is no ext4"
    return bool(struct.unpack("<I", block[0x60:0x64])[0] & NEEDS_RECOVERY)
