"""The rules of server groups; first of all, that no placement breaks a group's policy."""

from __future__ import annotations

from bus.execute import Aggregate
from schema.compute.server_group import (
    SERVER_GROUP,
    CreateServerGroup,
    DeleteServerGroup,
    GroupMemberPlaced,
    GroupPolicy,
    JoinServerGroup,
    LeaveServerGroup,
    PlaceGroupMember,
    ServerGroup,
    ServerGroupCreated,
    ServerGroupDeleted,
    ServerGroupEvent,
    ServerJoinedGroup,
    ServerLeftGroup,
)
from schema.event import Command
from schema.refusal import Conflict, Invalid, NotFound, OverQuota

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateServerGroup: {ABSENT},
    JoinServerGroup: {THERE},
    PlaceGroupMember: {THERE},
    LeaveServerGroup: {THERE},
    DeleteServerGroup: {THERE},
}


class BreaksPolicy(Conflict):
    """The group's policy forbids this host, now that another member is where it is. Another host may do."""


def decide(group: ServerGroup, command: Command) -> list[ServerGroupEvent]:
    if _already_so(group, command):
        return []
    if _status(group) not in ALLOWED[type(command)]:
        raise _wrong_status(group, command)
    match command:
        case CreateServerGroup():
            return [
                ServerGroupCreated(
                    name=command.name,
                    project_id=command.project_id,
                    user_id=command.user_id,
                    policy=command.policy,
                    max_per_host=command.max_per_host,
                    ruled=command.ruled,
                )
            ]
        case JoinServerGroup():
            if len(group.members) >= command.limit:
                raise OverQuota(f"Quota exceeded, too many servers in group {group.id}: it may have {command.limit}.")
            return [ServerJoinedGroup(server_id=command.server_id)]
        case PlaceGroupMember():
            _keep_policy(group, command)
            return [GroupMemberPlaced(server_id=command.server_id, host=command.host)]
        case LeaveServerGroup():
            return [ServerLeftGroup(server_id=command.server_id)]
        case DeleteServerGroup():
            return [ServerGroupDeleted()]
    raise TypeError(f"server groups know no {type(command).__name__}")


def _already_so(group: ServerGroup, command: Command) -> bool:
    match command:
        case CreateServerGroup():
            return group.living
        case JoinServerGroup():
            return group.living and command.server_id in group.members
        case PlaceGroupMember():
            # A group that is gone, or that the server left, no longer says where it may be.
            return not group.living or group.members.get(command.server_id, command.host) == command.host
        case LeaveServerGroup():
            return command.server_id not in group.members or not group.living
        case DeleteServerGroup():
            return group.deleted_at is not None
    return False


def _keep_policy(group: ServerGroup, command: PlaceGroupMember) -> None:
    if not command.host or command.back:
        return
    together = group.on(command.host, but=command.server_id)
    if group.policy is GroupPolicy.ANTI_AFFINITY and together >= group.max_per_host:
        raise BreaksPolicy(f"Server group {group.id} has {together} on host {command.host} already, as many as it may.")
    elsewhere = {host for id, host in group.members.items() if host and id != command.server_id} - {command.host}
    if group.policy is GroupPolicy.AFFINITY and elsewhere:
        raise BreaksPolicy(f"Server group {group.id} is on host {elsewhere.pop()}, so {command.host} will not do.")


def _wrong_status(group: ServerGroup, command: Command) -> Conflict | Invalid | NotFound:
    if isinstance(command, CreateServerGroup):
        return Conflict(f"The id {group.id} was another server group's; ids are not used again.")
    if isinstance(command, JoinServerGroup):
        return Invalid(f"Server group {group.id} could not be found.")
    return NotFound(f"Instance group {group.id} could not be found.", code="InstanceGroupNotFound")


def _status(group: ServerGroup) -> str:
    if group.living:
        return THERE
    return GONE if group.deleted_at else ABSENT


SERVER_GROUPS = Aggregate(SERVER_GROUP, decide, ALLOWED)
