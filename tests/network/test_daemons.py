"""Processes in namespaces: started once, known again, ended, and never taken for another."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.network import daemons, namespace
from agents.network.daemons import CannotStart, Daemon
from tests.network.dhcp_place import Place

pytestmark = pytest.mark.live


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place()
    yield made
    made.remove(tmp_path)


def sleeper(place: Place, folder: Path, lines: int = 1) -> Daemon:
    """Something that runs for long, and says on its command line whose it is."""
    (folder / "mine").touch()
    command = ("tail", "-n", str(lines), "-f", f"{folder}/mine")
    return Daemon(
        command=command, namespace=place.host, pid_file=f"{folder}/pid", mark=f"{folder}/mine", log=f"{folder}/log"
    )


def pid(folder: Path) -> int:
    return int((folder / "pid").read_text())


def is_inside(number: int, name: str) -> bool:
    path = Path(f"/proc/{number}/ns/net")
    return path.exists() and path.stat().st_ino == (namespace.FOLDER / name).stat().st_ino


def kill(number: int) -> None:
    """It has ended, and nobody has asked how."""
    os.kill(number, signal.SIGKILL)
    os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


async def test_it_is_started_once_and_inside(place, tmp_path):
    daemon = sleeper(place, tmp_path)
    assert await daemons.ensure(daemon) is True
    assert await daemons.ensure(daemon) is False
    assert is_inside(pid(tmp_path), place.host)
    await daemons.stop(daemon)
    assert not daemons.running(daemon)
    await daemons.stop(daemon)


async def test_without_its_pid_file_it_is_found_again(place, tmp_path):
    daemon = sleeper(place, tmp_path)
    await daemons.ensure(daemon)
    first = pid(tmp_path)
    (tmp_path / "pid").unlink()
    assert await daemons.ensure(daemon) is False
    assert pid(tmp_path) == first


async def test_another_command_is_another_process(place, tmp_path):
    await daemons.ensure(sleeper(place, tmp_path))
    first = pid(tmp_path)
    changed = sleeper(place, tmp_path, lines=2)
    assert not daemons.running(changed)
    assert await daemons.ensure(changed) is True
    assert pid(tmp_path) != first
    assert not is_inside(first, place.host)


async def test_one_that_died_is_started_again(place, tmp_path):
    daemon = sleeper(place, tmp_path)
    await daemons.ensure(daemon)
    first = pid(tmp_path)
    kill(first)
    assert not daemons.running(daemon)
    assert await daemons.ensure(daemon) is True
    assert pid(tmp_path) != first


async def test_a_process_that_came_by_the_number_is_left_alone(place, tmp_path, stranger):
    (tmp_path / "pid").write_text(f"{stranger.pid}\n")
    daemon = sleeper(place, tmp_path)
    assert not daemons.running(daemon)
    assert not daemons.tell(daemon, signal.SIGTERM)
    await daemons.stop(daemon)
    assert stranger.poll() is None


async def test_what_cannot_start_says_why(place, tmp_path):
    command = ("dnsmasq", "--conf-file=/nowhere/at/all", f"--pid-file={tmp_path}/pid")
    with pytest.raises(CannotStart, match="/nowhere/at/all"):
        await daemons.ensure(Daemon(command=command, namespace=place.host, pid_file=f"{tmp_path}/pid", forks=True))


def test_the_ended_child_of_somebody_else_is_left_to_who_waits_for_it(place, tmp_path):
    with subprocess.Popen(["true"]) as other:
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # ended, and not waited for
        asyncio.run(daemons.ensure(sleeper(place, tmp_path)))
        assert os.waitpid(other.pid, os.WNOHANG)[0] == other.pid
        other.returncode = 0
