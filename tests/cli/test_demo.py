"""`demo`, and the verbs that read the log it leaves: what a newcomer sees first."""

import os
import re
import signal

import pytest

from tests.cli.conftest import until

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
def demonstrated(person):
    person.up("--hosts", "2")
    done = person.types("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    person.shown = done.stdout
    person.server = re.search(r"Server (\S+) was ordered", done.stdout)[1]
    return person


def test_the_demo_shows_the_server_its_console_and_its_story(demonstrated):
    shown = demonstrated.shown
    assert shown.count("It is ACTIVE") == 2
    assert re.search(r"Floating IP 172\.24\.4\.\d+ leads to demo-1", shown)
    assert "simulated" in shown
    assert re.search(r"\+0\.000 s  server requested .*name=demo-1", shown)
    assert re.search(r"by admin, in req-", shown)
    assert "server started" in shown
    again = demonstrated.types("demo", "--delete")
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(rf"Deleting servers .*{demonstrated.server}", again.stdout)


def test_the_log_tells_the_same_after_everything_was_killed(demonstrated):
    story = demonstrated.types("story", f"server/{demonstrated.server[:8]}").stdout
    assert "server placed" in story
    for pid in demonstrated.pids().values():
        os.kill(pid, signal.SIGKILL)
    assert demonstrated.types("story", f"server/{demonstrated.server}").stdout == story
    assert demonstrated.types("verify").returncode == 0
    assert demonstrated.types("rebuild").returncode == 0
    assert demonstrated.types("up").returncode == 0
    until(lambda: demonstrated.types("status").returncode == 0)
    assert demonstrated.types("verify").returncode == 0


def test_rebuilding_under_a_running_cloud_is_refused(demonstrated):
    refused = demonstrated.types("rebuild")
    assert refused.returncode == 1
    assert "./cumulog down" in refused.stderr
    assert demonstrated.types("rebuild", "--compare").returncode == 0


def test_events_can_be_chosen(demonstrated):
    lines = demonstrated.types("events", "server", "-t", "ServerStarted", "--json").stdout.splitlines()
    assert len(lines) == 2
    assert any(f'"stream":"server/{demonstrated.server}"' in line for line in lines)
    assert len(demonstrated.types("events", "--from", "0", "-n", "3").stdout.splitlines()) == 3


def test_logs_follow_a_request_through_the_roles(demonstrated):
    request = re.search(r"req-[0-9a-f-]{36}", demonstrated.shown)[0]
    assert demonstrated.types("logs", "-n", "5").stdout.count("\n") == 5
    assert demonstrated.types("logs", "nonsense").returncode == 1
    assert all(request in line for line in demonstrated.types("logs", "-r", request).stdout.splitlines())


def test_down_with_its_guests_shuts_them_off_and_up_finds_them_so(demonstrated):
    done = demonstrated.types("down", "--guests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 guests off" in done.stdout
    demonstrated.up()
    last = demonstrated.types("events", f"server/{demonstrated.server}", "-n", "1").stdout
    assert "ServerStopped" in last
