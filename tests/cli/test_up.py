"""`up`, `down` and `status`: whatever was killed, the cloud comes back as it was, and nobody's file is lost."""

import os
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import until

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.xdist_group("clouds")]

PARTS = {"supervisor", "all", "postgres"}


def test_up_twice_is_up_once_and_down_twice_is_down_once(person):
    assert "The cloud is up" in person.up()
    before = person.pids()
    assert set(before) == PARTS
    person.up()
    assert person.pids() == before
    assert person.types("down").returncode == 0
    assert person.types("status").returncode == 3
    again = person.types("down")
    assert again.returncode == 0
    assert "Nothing" in again.stdout


@pytest.mark.parametrize("victim", sorted(PARTS))
def test_what_is_killed_comes_back_by_itself(person, victim):
    person.up()
    before = person.pids()
    os.kill(before[victim], signal.SIGKILL)
    until(lambda: (now := person.pids()).keys() == PARTS and now[victim] != before[victim])
    until(lambda: person.types("status").returncode == 0)
    assert {name: pid for name, pid in person.pids().items() if name != victim} == {
        name: pid for name, pid in before.items() if name != victim
    }


def test_up_restores_all_after_everything_was_killed_at_once(person):
    person.up("--hosts", "3")
    password = (person.home / "admin-password").read_text()
    for pid in person.pids().values():
        os.kill(pid, signal.SIGKILL)
    assert person.types("up").returncode == 0
    assert set(person.pids()) == PARTS
    assert (person.home / "admin-password").read_text() == password
    assert "3 hosts" in person.types("status").stdout


def test_a_taken_port_is_named_with_what_to_do(person):
    import socket

    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", int(person.listen.rpartition(":")[2])))
        squatter.listen()
        done = person.types("up", "--listen", person.listen, "--hypervisor", "none")
    assert done.returncode == 1
    assert person.listen in done.stderr
    assert "--listen" in done.stderr


def test_an_ordinary_user_gets_a_cloud(person):
    person.becomes("nobody")
    assert "The cloud is up" in person.up()
    assert set(person.pids()) == PARTS
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in person.pids().values()} == {person.home.stat().st_uid}


def test_a_home_that_root_would_hide_from_postgresql_is_refused_by_name(person):
    person.home.parent.chmod(0o700)
    done = person.types("up", "--listen", person.listen, "--hypervisor", "none")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "CUMULOG_HOME" in done.stderr


def test_settings_that_have_changed_restart_the_cloud_and_only_they(person):
    person.up()
    before = person.pids()
    (person.home / "cumulog.toml").write_text('region = "Elsewhere"\n')
    assert "have changed" in person.up()
    after = person.pids()
    assert after["all"] != before["all"]
    person.up()
    assert person.pids() == after


def test_an_up_that_failed_leaves_the_choices_as_they_were(person):
    person.up("--hosts", "2")
    assert person.types("up", "--hypervisor", "libvirt", "--listen", "192.0.2.1:1").returncode == 1
    assert person.types("up").returncode == 0
    assert "simulated, 2 hosts" in person.types("status").stdout
