"""The rules of trunks: no tag twice, and what is disabled stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import UNSET

from bus.execute import Aggregate
from handlers.network.router import Outdated
from schema.changes import differing, given
from schema.event import Command
from schema.network.trunk import (
    TRUNK,
    AddSubports,
    CreateTrunk,
    DeleteTrunk,
    RemoveSubports,
    SubportsAdded,
    SubportsRemoved,
    Trunk,
    TrunkCreated,
    TrunkDeleted,
    TrunkEvent,
    TrunkSubport,
    TrunkUpdated,
    UpdateTrunk,
)
from schema.refusal import Conflict, NotFound, Refused

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateTrunk: {ABSENT},
    UpdateTrunk: {THERE},
    AddSubports: {THERE},
    RemoveSubports: {THERE},
    DeleteTrunk: {THERE},
}


def decide(trunk: Trunk, command: Command) -> Sequence[TrunkEvent]:
    if _already_so(trunk, command):
        return []
    if _status(trunk) not in ALLOWED[type(command)]:
        raise _wrong_status(trunk, command)
    match command:
        case CreateTrunk():
            _refuse_second_tag(trunk.id, command.subports)
            return [TrunkCreated(**given(command))]
        case UpdateTrunk():
            return [TrunkUpdated(**differing(trunk, command))]
        case AddSubports():
            _refuse_disabled(trunk)
            fresh = tuple(it for it in command.subports if it not in trunk.subports)
            _refuse_second_tag(trunk.id, (*trunk.subports, *fresh))
            return [SubportsAdded(subports=fresh)]
        case RemoveSubports():
            _refuse_disabled(trunk)
            going = tuple(it.port_id for it in trunk.subports if it.port_id in command.port_ids)
            return [SubportsRemoved(port_ids=going)]
        case DeleteTrunk():
            _refuse_disabled(trunk)
            if command.port_ids is not UNSET and set(command.port_ids) != {it.port_id for it in trunk.subports}:
                raise Outdated(f"Trunk {trunk.id} was changed by somebody else meanwhile; try again.", code="Conflict")
            return [TrunkDeleted()]
    raise TypeError(f"trunks know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"Trunk {id} could not be found.", code="TrunkNotFound")


def disabled(id: str) -> Conflict:
    return Conflict(f"Trunk {id} is currently disabled.", code="TrunkDisabled")


def in_error(id: str) -> Conflict:
    return Conflict(f"Trunk {id} is in error state.", code="TrunkInErrorState")


def subport_not_found(id: str, port_id: str) -> NotFound:
    return NotFound(f"SubPort on trunk {id} with parent port {port_id} could not be found.", code="SubPortNotFound")


def _already_so(trunk: Trunk, command: Command) -> bool:
    match command:
        case CreateTrunk():
            return trunk.living and all(getattr(trunk, name) == it for name, it in given(command).items())
        case DeleteTrunk():
            return trunk.deleted_at is not None
        case RemoveSubports() if not trunk.living:
            return trunk.deleted_at is not None
    if not trunk.living:
        return False
    match command:
        case UpdateTrunk():
            return not differing(trunk, command)
        case AddSubports():
            return set(command.subports) <= set(trunk.subports)
        case RemoveSubports():
            return not any(it.port_id in command.port_ids for it in trunk.subports)
    return False


def _refuse_disabled(trunk: Trunk) -> None:
    if not trunk.admin_state_up:
        raise disabled(trunk.id)


def _refuse_second_tag(id: str, subports: Iterable[TrunkSubport]) -> None:
    tags: set[int] = set()
    for it in subports:
        if it.segmentation_id in tags:
            raise Conflict(
                f"segmentation_type {it.segmentation_type} and segmentation_id {it.segmentation_id} already in use on "
                f"trunk {id}.",
                code="DuplicateSubPort",
            )
        tags.add(it.segmentation_id)


def _wrong_status(trunk: Trunk, command: Command) -> Refused:
    if isinstance(command, CreateTrunk):
        return Conflict(f"The id {trunk.id} is or was another trunk's; ids are not used again.")
    return not_found(trunk.id)


def _status(trunk: Trunk) -> str:
    if trunk.living:
        return THERE
    return GONE if trunk.deleted_at else ABSENT


TRUNKS = Aggregate(TRUNK, decide, ALLOWED)
