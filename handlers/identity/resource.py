"""The rules most of Identity's things share: made once, changed in part, ended once; immutable ones stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.execute import AlreadyTaken
from schema.changes import differing
from schema.event import Command, Event, State
from schema.refusal import Conflict, Forbidden, NotFound

NEW, LIVING, GONE = "new", "living", "gone"


def status(state: State) -> str:
    """Where a thing stands in its life."""
    return LIVING if state.living else NEW if state.created_at is None else GONE


class Plain:
    """`decide` for a thing that is created, updated and deleted. `what`: its name in refusals."""

    def __init__(
        self,
        what: str,
        created: tuple[type[Command], type[Event]],
        updated: tuple[type[Command], type[Event]],
        deleted: tuple[type[Command], type[Event]],
        *,
        reborn: bool = False,
    ) -> None:
        self.what = what
        self.create, self.created = created
        self.update, self.updated = updated
        self.delete, self.deleted = deleted
        self.allowed: dict[type[Command], set[str]] = {
            self.create: {NEW, GONE} if reborn else {NEW},
            self.update: {LIVING},
            self.delete: {LIVING},
        }

    def decide(self, state: Any, command: Command) -> Sequence[Event]:
        """Raises Conflict (another one is there), NotFound (none is), Forbidden (it is immutable)."""
        if isinstance(command, self.create):
            return self._create(state, command)
        if isinstance(command, self.delete) and status(state) == GONE:
            return []
        self.find(state)
        if isinstance(command, self.update):
            changes = differing(state, command)
            if changes and immutable(state) and not _only_unlocks(changes):
                raise Forbidden(f"Cannot update immutable resource: {self.what} {state.id} must not be changed.")
            return [self.updated(**changes)] if changes else []
        if isinstance(command, self.delete):
            if immutable(state):
                raise Forbidden(f"Cannot delete immutable resource: {self.what} {state.id} must not be deleted.")
            return [self.deleted()]
        raise TypeError(command)

    def find(self, state: State) -> None:
        """Raises NotFound unless the thing is there."""
        if not state.living:
            raise not_found(self.what, state.id)

    def _create(self, state: State, command: Command) -> Sequence[Event]:
        wanted = {name: getattr(command, name) for name in command.__struct_fields__}
        if state.living:
            if all(getattr(state, name) == value for name, value in wanted.items()):
                return []
            raise duplicate(self.what, "ID", state.id)
        if status(state) not in self.allowed[self.create]:
            raise Conflict(f"The ID {state.id} was that of a {self.what} that is gone; use another.")
        return [self.created(**wanted)]


def not_found(what: str, id: str) -> NotFound:
    """As Keystone words it."""
    return NotFound(f"Could not find {what}: {id}.")


def duplicate(what: str, field: str, value: str) -> Conflict:
    """As Keystone words it."""
    return Conflict(f"Conflict occurred attempting to store {what} - Duplicate entry found with {field} {value}.")


def reworded(what: str, taken: AlreadyTaken) -> Conflict:
    """A reservation that somebody else holds, as Keystone words it."""
    house, _, name = taken.key.rpartition("/")
    where = f" at domain ID {house}" if house else ""
    return Conflict(f"Conflict occurred attempting to store {what} - Duplicate entry found with name {name}{where}.")


def immutable(state: Any) -> bool:
    """Whether its options say that it must not change."""
    return bool(getattr(state, "options", {}).get("immutable"))


def _only_unlocks(changes: dict[str, Any]) -> bool:
    return set(changes) == {"options"} and not changes["options"].get("immutable", True)
