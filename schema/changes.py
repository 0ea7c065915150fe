"""Partial changes: events and commands whose fields are UNSET where nothing is said about them."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from schema.event import Command, Event, State

S = TypeVar("S", bound=State)


def given(changes: Event | Command) -> dict[str, Any]:
    """The fields something is said about."""
    return {name: value for name in changes.__struct_fields__ if (value := getattr(changes, name)) is not UNSET}


def differing(state: State, changes: Command) -> dict[str, Any]:
    """The fields a command would really change. `extra` and `options` count entry by entry."""
    found: dict[str, Any] = {}
    for name, value in given(changes).items():
        before = getattr(state, name)
        if name in {"extra", "options"}:
            value = {key: item for key, item in value.items() if before.get(key) != item}  # noqa: PLW2901
            if value:
                found[name] = value
        elif before != value:
            found[name] = value
    return found


def applied(state: S, event: Event) -> S:
    """The state with an event's changes made. In `extra` and `options` entries are merged; None takes one away."""
    changes = given(event)
    for name in ("extra", "options"):
        if name in changes:
            merged = {**getattr(state, name), **changes[name]}
            changes[name] = {key: item for key, item in merged.items() if item is not None}
    return msgspec.structs.replace(state, **changes)
