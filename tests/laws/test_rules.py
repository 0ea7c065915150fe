"""Rules: every kind has some, every command has a row, and a command repeated after it was granted writes nothing.

One that counts, as Placement's writes do (decision 0048), may move the generation once more, and nothing else.
"""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schema.compute.flavor import FlavorDeleted
from schema.placement.provider import (
    PROVIDER,
    ProviderAggregatesSet,
    ProviderRenamed,
    RenameProvider,
    SetProviderAggregates,
)
from schema.refusal import Refused
from tests.laws.discovery import all_aggregates, all_commands, all_kinds
from tests.laws.samples import MOMENT, values

pytestmark = pytest.mark.law

NOT_REPEATABLE: dict[str, str] = {
    "ChangeQuotaHold": "it is made anew of what becomes of a server, in every append: nothing, the second time",
}
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

        def __init__(self, command, decide):
            self.allowed: dict[type, set[str]] = {command: {"there"}}
            self.decide = decide

    def checked(command, decide):
        @settings(max_examples=20, database=None)
        @given(data=st.data())
        def check(data):
            _granted_once(Broken(command, decide), data)

        check()

    def caught(decide, command=RenameProvider):
        with pytest.raises((AssertionError, ZeroDivisionError)):
            checked(command, decide)

    caught(lambda state, command: [ProviderRenamed(name=command.name)])
    caught(lambda state, command: [] if state.name == command.name else 1 / 0)
    caught(lambda state, command: [] if state.name else [FlavorDeleted()])

    def told(state, command):
        return ProviderAggregatesSet(aggregates=command.aggregates, counted=command.counted)

    def renamed(state, command):
        return [ProviderRenamed(name=state.name + "+")] if command.counted else []

    def uncounted(state, command):
        return [] if not command.counted and state.aggregates == command.aggregates else [told(state, command)]

    checked(SetProviderAggregates, uncounted)
    caught(lambda state, command: [told(state, command)], SetProviderAggregates)
    caught(lambda state, command: [*uncounted(state, command), *renamed(state, command)], SetProviderAggregates)
    caught(renamed, SetProviderAggregates)


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
        if type(command).__name__ in NOT_REPEATABLE:
            continue
        again = _again(aggregate, state, command)
        if getattr(command, "counted", False):
            _only_counts(kind, state, again)
        else:
            assert again == []


def _only_counts(kind, state, events):
    """They move the generation, and change nothing else."""
    after = state
    for event in events:
        after = kind.fold(after, event, MOMENT + timedelta(days=1))
    if events:
        assert after.generation > state.generation
        assert _content(after) == _content(state)


def _content(state):
    """What it is but for how often and when it was changed."""
    return replace(state, generation=0, updated_at=None)


def _again(aggregate, state, command):
    """What the same command does once more. A refusal is as good as nothing: it writes nothing either."""
    try:
        return list(aggregate.decide(state, command))
    except Refused:
        return []
