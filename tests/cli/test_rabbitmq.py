"""`up --bus rabbitmq`: every role its own process, over a RabbitMQ of its own on loopback."""

import os
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import until

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.xdist_group("rabbitmq")]

PARTS = {"supervisor", "api", "handlers", "projections", "relay", "agent", "rabbitmq", "postgres"}


def test_the_roles_run_apart_build_servers_and_come_back_from_kill_9(person):
    person.up("--bus", "rabbitmq", "--hosts", "2")
    before = person.pids()
    assert set(before) == PARTS
    assert person.types("demo").returncode == 0
    for victim in ("relay", "handlers", "agent", "rabbitmq"):
        os.kill(before[victim], signal.SIGKILL)
    until(lambda: person.pids().keys() == PARTS)
    until(lambda: person.types("status").returncode == 0)
    again = person.types("demo", "--delete")
    assert again.returncode == 0, again.stdout + again.stderr
    assert person.types("verify").returncode == 0
    assert person.types("down").returncode == 0
    assert not any(_alive(pid) for pid in before.values())


def test_from_one_process_to_many_and_back(person):
    person.up("--hosts", "2")
    assert person.types("demo").returncode == 0
    person.up("--bus", "rabbitmq")
    assert set(person.pids()) == PARTS
    assert person.types("demo").returncode == 0
    person.up("--bus", "memory")
    assert set(person.pids()) == {"supervisor", "all", "postgres"}
    assert person.types("verify").returncode == 0


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
