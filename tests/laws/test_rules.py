"""Rules: every kind has some, every command has a row, and a command repeated after it was granted writes nothing."""

from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.compute.flavor import FlavorDeleted
from schema.placement.provider import PROVIDER, ProviderRenamed, RenameProvider
from schema.refusal import Refused
from tests.laws.discovery import all_aggregates, all_commands, all_kinds
from tests.laws.samples import MOMENT, values

pytestmark = pytest.mark.law

NOT_REPEATABLE: dict[str, str] = {}
"""Command → why doing it again is doing something more. Its door takes an idempotency key, or a generation."""


def test_every_kind_has_rules():
    ruled = {aggregate.kind.name for aggregate in all_aggregates()}
    assert {kind.name for kind in all_kinds()} == ruled


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: command.__name__)
def test_every_command_has_a_row_in_one_table(command):
    tables = [aggregate.kind.name for aggregate in all_aggregates() if command in aggregate.allowed]
    assert len(tables) == 1, f"{command.__name__} is in the tables of {tables or 'nobody'}"


@pytest.mark.parametrize("aggregate", all_aggregates(), ids=lambda aggregate: aggregate.kind.name)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_command_in_any_state_is_granted_or_refused_and_once_granted_is_so(aggregate, data):
    _granted_once(aggregate, data)


def test_rules_that_break_the_law_are_caught():
    class Broken:
        kind = PROVIDER
        allowed: ClassVar = {RenameProvider: {"there"}}

        def __init__(self, decide):
            self.decide = decide

    def caught(decide):
        @settings(max_examples=20, database=None)
        @given(data=st.data())
        def check(data):
            _granted_once(Broken(decide), data)

        with pytest.raises((AssertionError, ZeroDivisionError)):
            check()

    caught(lambda state, command: [ProviderRenamed(name=command.name)])
    caught(lambda state, command: [] if state.name == command.name else 1 / 0)
    caught(lambda state, command: [] if state.name else [FlavorDeleted()])


def _granted_once(aggregate, data):
    commands = sorted(aggregate.allowed, key=lambda command: command.__name__)
    kind, state = aggregate.kind, aggregate.kind.unborn("it")
    for number in range(data.draw(st.integers(1, 7))):
        command = data.draw(values(data.draw(st.sampled_from(commands))))
        try:
            events = list(aggregate.decide(state, command))
        except Refused:
            continue
        assert all(isinstance(event, kind.events) for event in events)
        for event in events:
            state = kind.fold(state, event, MOMENT + timedelta(seconds=number))
        if type(command).__name__ not in NOT_REPEATABLE and not getattr(command, "counted", False):
            # A write that counts moves the generation each time, as Placement's do: decision 0048.
            assert _again(aggregate, state, command) == []


def _again(aggregate, state, command):
    """What the same command does once more. A refusal is as good as nothing: it writes nothing either."""
    try:
        return list(aggregate.decide(state, command))
    except Refused:
        return []
