"""Images and the shelf with a real guest: what it wrote is there, on another host and in another server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Person
from tests.network.real_cloud import HOSTS, Guest, RealCloud, tcp, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning"),
]

SCRIPT = '#!/bin/sh\necho "it says: $(cat /witness)"\n'


@pytest.fixture
def cloud(free_port: Callable[[], int]) -> Iterator[RealCloud]:
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    folder.chmod(0o711)
    cloud = RealCloud(Person(folder / "home", free_port()))
    try:
        cloud.up()
        cloud.import_key()
        yield cloud
        cloud.types("down", "--guests")
    finally:
        cloud.person.types("down")
        cloud.fabric.remove()
        shutil.rmtree(folder)


def files(cloud: RealCloud, guest: Guest) -> list[Path]:
    """What the hosts have of it."""
    return list((cloud.person.home / "hosts").glob(f"*/guests/{guest.id}"))


def test_what_a_guest_wrote_is_kept(cloud: RealCloud) -> None:
    cloud.group("open", {"protocol": "icmp"}, tcp(22))
    net = cloud.net("net", "10.77.0.0/24")
    guest = cloud.boot("keeper", HOSTS[0], [{"uuid": net.network_id}], security_groups=[{"name": "open"}])
    guest.active().published().ready().reached()
    booted = guest.run("cat /proc/sys/kernel/random/boot_id")
    guest.run("echo I was here | sudo tee /witness; sync")

    cloud.openstack("server", "image", "create", "--name", "live", "--wait", "keeper")
    assert guest.run("cat /proc/sys/kernel/random/boot_id") == booted
    [folder] = files(cloud, guest)
    assert not (folder / "copy").exists()

    cloud.openstack("server", "shelve", "--offload", "--wait", "keeper")
    assert guest.status == "SHELVED_OFFLOADED"
    until(lambda: not files(cloud, guest), 30, "its host keeps something of it")
    cloud.openstack("server", "unshelve", "--host", HOSTS[1], "--wait", "keeper")
    guest.reached(120)
    assert guest.run("cat /witness") == "I was here"
    [folder] = files(cloud, guest)
    assert folder.is_relative_to(cloud.person.home / "hosts" / HOSTS[1])
    assert list(cloud.api.image.images(name="keeper-shelved")) == []
    cloud.delete(guest)

    [image] = cloud.api.image.images(name="live")
    assert (image.status, image.size > 0) == ("active", True)
    twin = cloud.boot("twin", HOSTS[0], "none", script=SCRIPT, config_drive=True, image=image)
    until(lambda: twin.status == "ACTIVE", 120, "it is still building")
    twin.ready()
    assert "it says: I was here" in twin.console
