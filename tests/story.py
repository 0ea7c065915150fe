"""Stories: given what happened, when somebody wishes this, then that happens (or it is refused).

    flavors = Story(FLAVORS)
    flavors.given(created).when(DeleteFlavor()).then(FlavorDeleted())
    flavors.given().when(DeleteFlavor()).refused("could not be found", NotFound)

`then` wishes the same once more and demands that nothing happens: a repeated command is the same command.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus.execute import Aggregate
from schema.event import Command, Event
from schema.refusal import Refused

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)


class Story:
    def __init__(self, aggregate: Aggregate, id: str = "it") -> None:
        self.aggregate = aggregate
        self.id = id

    def given(self, *events: Event) -> Given:
        """What has happened so far, in order; nothing, for a thing unborn."""
        return Given(self.aggregate, self.aggregate.kind.unborn(self.id), BEGINNING).after(*events)


class Given:
    def __init__(self, aggregate: Aggregate, state: Any, at: datetime) -> None:
        self.aggregate = aggregate
        self.state = state
        self.at = at

    def after(self, *events: Event) -> Given:
        """The same, some events later."""
        state, at = self.state, self.at
        for event in events:
            at += timedelta(seconds=1)
            state = self.aggregate.kind.fold(state, event, at)
        return Given(self.aggregate, state, at)

    def when(self, command: Command) -> When:
        return When(self, command)


class When:
    def __init__(self, given: Given, command: Command) -> None:
        self.given = given
        self.command = command

    def then(self, *expected: Event) -> Given:
        """Exactly these events happen, and wishing it again brings none. Gives what is so afterwards."""
        decide = self.given.aggregate.decide
        events = list(decide(self.given.state, self.command))
        assert events == list(expected)
        outcome = self.given.after(*events)
        assert list(decide(outcome.state, self.command)) == [], "a repeated command must change nothing"
        return outcome

    def refused(self, text: str, refusal: type[Refused] = Refused) -> None:
        """It is refused with a text that has this in it."""
        with pytest.raises(refusal) as caught:
            self.given.aggregate.decide(self.given.state, self.command)
        assert text in caught.value.message
