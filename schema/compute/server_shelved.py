"""What becomes of a server that is put on a shelf, and taken from it."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET
from msgspec.structs import replace

from schema.compute.server_state import Server, at_rest, placed_at, towards
from schema.compute.shelf import (
    ServerOffloaded,
    ServerShelved,
    ServerUnshelved,
    Shelf,
    ShelfEvent,
    ShelveRequested,
    UnshelveRequested,
)
from schema.compute.snapshot import Snapshot
from schema.compute.task import PowerState, Task, VmState


def shelved(server: Server, event: ShelfEvent, at: datetime) -> Server:
    match event:
        case ShelveRequested():
            snapshot = Snapshot(image_id=event.image_id)
            shelf = Shelf(image_id=event.image_id, offload_seconds=event.offload_seconds)
            return towards(replace(server, snapshot=snapshot, shelf=shelf), Task.SHELVING, event.request_id, at)
        case ServerShelved() if server.shelf is not None:
            shelf = replace(server.shelf, since=at)
            off = replace(server, snapshot=None, shelf=shelf, power_state=PowerState.SHUTDOWN, fault=None)
            return at_rest(off, VmState.SHELVED)
        case ServerOffloaded():
            return at_rest(placed_at(server, None, "", "", None), VmState.SHELVED_OFFLOADED)
        case UnshelveRequested() if server.shelf is not None:
            order = server.order if event.zone is UNSET else replace(server.order, zone=event.zone)
            wanted = replace(server, order=order, shelf=replace(server.shelf, host=event.host), failed_hosts=())
            return towards(wanted, Task.UNSHELVING, event.request_id, at)
        case ServerUnshelved():
            runs = replace(server, shelf=None, power_state=PowerState.RUNNING, fault=None, unbidden=False)
            return at_rest(runs, VmState.ACTIVE)
    return server
