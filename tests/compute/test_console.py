"""The promises of consoles: opened once, in time, by whoever has the token."""

from datetime import timedelta

import pytest

from bus import clock
from handlers.compute.console import CONSOLES
from schema.compute.console import (
    ConsoleExpired,
    ConsoleGranted,
    ConsoleOpened,
    ExpireConsole,
    GrantConsole,
    OpenConsole,
    console_id,
)
from schema.refusal import NotFound
from tests.story import Story

console = Story(CONSOLES, console_id("a token"))
NOW = clock.now()
facts = {"server_id": "s1", "kind": "vnc", "console_type": "novnc", "expires_at": NOW + timedelta(minutes=10)}
granted = ConsoleGranted(**facts)


def test_a_console_is_granted():
    assert console.given().when(GrantConsole(**facts)).then(granted).state.living


def test_it_is_opened_once():
    opened = console.given(granted).when(OpenConsole(request_id="r1", now=NOW)).then(ConsoleOpened(request_id="r1"))
    assert not opened.state.living
    other = OpenConsole(request_id="r2", now=NOW)
    console.given(granted, ConsoleOpened(request_id="r1")).when(other).refused("Token not found", NotFound)


@pytest.mark.parametrize("late", [timedelta(), timedelta(seconds=1)])
def test_it_is_opened_in_time(late):
    command = OpenConsole(request_id="r1", now=facts["expires_at"] + late)
    console.given(granted).when(command).refused("Token not found", NotFound)


def test_it_expires_when_its_time_is_over():
    console.given(granted).when(ExpireConsole(now=NOW)).then()
    console.given(granted).when(ExpireConsole(now=facts["expires_at"])).then(ConsoleExpired())
    console.given(granted, ConsoleExpired()).when(OpenConsole(request_id="r", now=NOW)).refused("not found", NotFound)


def test_the_log_cannot_open_it():
    assert "a token" not in console_id("a token")
    assert console_id("a token") != console_id("another token")
