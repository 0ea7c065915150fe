"""What the word of a host about a server of its own comes to, and what becomes of a task that is given up."""

from __future__ import annotations

from handlers.compute.action import OUTCOMES
from handlers.compute.snapshot import copied
from schema.compute.move import Phase
from schema.compute.server import STAYS_OFF
from schema.compute.server_command import ObserveServer
from schema.compute.server_event import ActionFailed, PowerObserved, ServerEvent, ServerRebuilt, StopRequested
from schema.compute.server_parts import Fault
from schema.compute.server_state import Server
from schema.compute.shelf import ServerUnshelved
from schema.compute.snapshot import SNAPSHOTTING
from schema.compute.soft_delete import ServerSoftDeleted
from schema.compute.task import PowerState, Task, VmState

_DOWN = frozenset({PowerState.NOSTATE, PowerState.SHUTDOWN, PowerState.CRASHED})


def decide_observed(server: Server, command: ObserveServer) -> list[ServerEvent]:
    """The host has carried out the newest wish, or failed to: what the guest was found like tells which.

    A build that failed is not settled here: its claim must be released along with it (`FailBuild`).
    """
    found, task = command.power_state, server.task
    if task is None:
        return _out_of_the_blue(server, found)
    if server.move is not None and server.move.phase is Phase.ARRIVING and command.fault is None:
        return _followed(server, found)
    if task is Task.REBUILD_DISK:
        return _rebuilt(server, command)
    if task in SNAPSHOTTING:
        events = copied(server, command)
        return [*events, *_followed(server, found)] if events and server.shelf is None else events
    if task is Task.SOFT_DELETING and command.fault is not None:
        # Whatever its guest does, it is its owner's no more.
        return [ServerSoftDeleted(), *([] if found in _DOWN else [PowerObserved(power_state=found)])]
    if task not in OUTCOMES or (task is Task.SPAWNING and command.fault is not None):
        return []
    if task is Task.SPAWNING and command.unwired:
        return _followed(server, found)
    wanted, outcome = OUTCOMES[task]
    if task is Task.SPAWNING and server.shelf is not None:
        outcome = ServerUnshelved()
    if command.fault is None and (found is wanted or {found, wanted} <= _DOWN):
        return [outcome]
    if task is Task.SPAWNING:
        return [] if found is PowerState.NOSTATE else [outcome, PowerObserved(power_state=found)]
    if command.fault is not None:
        return [given_up(server, task, Fault(message=command.fault)), *_followed(server, found)]
    surprise = Fault(message=f"the guest was found {found.name.lower()} when it was done")
    return [ActionFailed(task=task, fault=surprise), *_followed(server, found)]


def given_up(server: Server, task: Task, fault: Fault) -> ActionFailed:
    """One that is back where it was, but does not run there as it did, has no state of before to show."""
    return ActionFailed(task=task, fault=fault, in_error=task is Task.RESIZE_REVERTING and server.move is None)


def _rebuilt(server: Server, command: ObserveServer) -> list[ServerEvent]:
    """Until the new disk is there, a fault leaves the old server. Afterwards it is the new one, whatever it does."""
    fault = [ActionFailed(task=Task.REBUILD_DISK, fault=Fault(message=command.fault))] if command.fault else []
    if command.remade < server.rebuilds:
        return [*fault, *_followed(server, command.power_state)] if fault else []
    after = PowerState.SHUTDOWN if server.vm_state is VmState.STOPPED else PowerState.RUNNING
    same = after is command.power_state or {after, command.power_state} <= _DOWN
    return [ServerRebuilt(), *fault, *([] if same else [PowerObserved(power_state=command.power_state)])]


def _out_of_the_blue(server: Server, found: PowerState) -> list[ServerEvent]:
    """Follow the guest, but for one that runs where it was to be off: that is stopped again."""
    followed = _followed(server, found)
    off = server.vm_state in STAYS_OFF or (server.vm_state is VmState.STOPPED and not server.unbidden)
    if followed and off and found is PowerState.RUNNING:
        return [*followed, StopRequested()]
    return followed


def _followed(server: Server, found: PowerState) -> list[ServerEvent]:
    same = server.power_state is found or (server.power_state in _DOWN and found in _DOWN)
    return [] if same else [PowerObserved(power_state=found)]
