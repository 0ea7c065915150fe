"""A host is lost and nobody touches anything: its guest stands still, runs on another host, and never on two."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.cli import processes
from tests.network.real_cloud import HOSTS, Guest, RealCloud, standing, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning"),
]

RECOVERED_SECONDS = 120.0
FENCED = {
    "CUMULOG_FENCE": "true",
    "CUMULOG_FENCE_SECONDS": "5",
    "CUMULOG_LEASE_SECONDS": "5",
    "CUMULOG_RECOVERY": "evacuate",
    "CUMULOG_RECOVERY_SECONDS": "0",
}
UP = ("--hypervisor", "libvirt", "--hosts")


@pytest.fixture(scope="module")
def cloud(free_port: Callable[[], int]) -> Iterator[RealCloud]:
    with standing(free_port(), **FENCED) as cloud:
        yield cloud


def test_a_server_of_a_lost_host_runs_elsewhere_and_never_twice(cloud: RealCloud) -> None:
    remaining, lost = HOSTS
    guest = cloud.boot("lonely", lost, "none")
    until(lambda: guest.status == "ACTIVE", RECOVERED_SECONDS, "it is not built")
    assert awake(guest) == [lost]

    kill(cloud, "supervisor", "all")
    until(lambda: {"supervisor", "all", "watchdog"} <= cloud.person.pids().keys(), 60, "they are not started again")

    cloud.person.up(*UP, "1")
    until(lambda: awake(guest) == [], 30, "it runs on, and its host has no lease")
    assert [host for host, _ in qemus(guest)] == [lost]
    until(lambda: awake(guest) == [remaining], RECOVERED_SECONDS, "it does not run elsewhere")
    until(lambda: guest.status == "ACTIVE", 60, "it is still on its way")
    assert cloud.api.compute.get_server(guest.id).compute_host == remaining

    cloud.person.up(*UP, "2")
    until(lambda: [host for host, _ in qemus(guest)] == [remaining], 60, "its host has not let it go")
    assert awake(guest) == [remaining]
    until(lambda: "say the same" in cloud.person.types("drift").stdout, 30, "they do not say the same")
    assert not list((cloud.person.home / "hosts" / lost / "frozen").iterdir())


def test_a_cloud_that_is_stopped_keeps_its_word(cloud: RealCloud) -> None:
    """Its guests stand still, as nobody would pause them when the time comes; and go on with it."""
    [server] = cloud.api.compute.servers()
    guest = Guest(cloud, server.id, HOSTS[0])
    assert "stand still" in cloud.types("down")
    assert awake(guest) == []
    assert len(qemus(guest)) == 1
    cloud.person.up(*UP, "2")
    until(lambda: len(awake(guest)) == 1, 60, "it does not go on")
    cloud.delete(guest)


def kill(cloud: RealCloud, *names: str) -> None:
    """By signal 9, at once."""
    found = [processes.find(cloud.person.home / "run", name) for name in names]
    for process in found:
        assert process
        os.kill(process.pid, signal.SIGKILL)


def awake(guest: Guest) -> list[str]:
    """The hosts on which it has its CPUs: one at most, whenever one looks."""
    hosts = [host for host, pid in qemus(guest) if state(pid) not in "TZX"]
    assert len(hosts) <= 1, f"it runs on {hosts}"
    return hosts


def qemus(guest: Guest) -> list[tuple[str, int]]:
    """(Host, process) of each QEMU of it."""
    found = []
    for host in HOSTS:
        file = guest.cloud.person.home / "hosts" / host / "libvirtd" / "run" / "qemu" / f"{guest.id}.pid"
        if file.exists() and state(int(file.read_text() or 0)) not in "ZX":
            found.append((host, int(file.read_text())))
    return found


def state(pid: int) -> str:
    """As the kernel has it: T is stopped, X is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
