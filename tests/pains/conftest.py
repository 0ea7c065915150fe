"""A stage for whoever wants to see a server suffer."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.saga.playing import Outcome, settled, staged
from tests.saga.plays import ID, Do, create
from tests.saga.stage import Stage


@pytest.fixture(autouse=True)
def of_the_dead() -> Iterator[None]:
    """Processes that are killed say nothing of what they did not get to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def broken_off(*before: Do, do: Do, by: Callable[[Stage], Any], mishap: Any = None) -> Iterator[tuple[int, Outcome]]:
    """The action `do`, with `by(stage)` at each of its steps in turn: the step's number, and what came of it."""
    steps, number = 1, 0
    while number < steps:

        async def story(stage: Stage, number: int = number) -> list[str]:
            await stage.ready()
            for it in before:
                await stage.insist(it)
                await stage.rests(ID)
            if mishap is not None:
                await mishap(stage)
            stage.moment = (number, lambda: by(stage))
            stage.playing = True
            await stage.insist(do)
            await stage.rests(ID)
            await stage.alone()
            await stage.rests(ID)
            stage.playing = False
            return await settled(stage)

        outcome = staged(story)
        steps = max(steps, len(outcome.happened)) if number == 0 else steps
        yield number, outcome
        number += 1


__all__ = ["ID", "broken_off", "create"]
