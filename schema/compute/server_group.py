"""A server group: servers that should be on one host, or on different ones.

    (absent) ──ServerGroupCreated──▶ there ──ServerGroupDeleted──▶ gone          there: members come and go

Where its members are stands here too, and is decided here: however many are placed at once, no two of an anti-affinity
group come to share a host.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import field
from msgspec.structs import replace

from schema.event import Command, Event, Kind, Said, State


class GroupPolicy(StrEnum):
    AFFINITY = "affinity"
    ANTI_AFFINITY = "anti-affinity"
    SOFT_AFFINITY = "soft-affinity"
    SOFT_ANTI_AFFINITY = "soft-anti-affinity"


class ServerGroup(State):
    name: str = ""
    project_id: str = ""
    user_id: str = ""
    policy: GroupPolicy = GroupPolicy.ANTI_AFFINITY
    max_per_host: int = 1
    """Anti-affinity: how many members one host may have."""
    ruled: bool = False
    """Somebody said how many."""
    members: dict[str, str] = field(default_factory=dict)
    """Server id → its host; empty while it has none."""

    def on(self, host: str, but: str = "") -> int:
        """How many members are on that host, one of them left aside."""
        return sum(it == host for id, it in self.members.items() if id != but)


class _NewServerGroup(Said):
    name: str
    project_id: str
    user_id: str
    policy: GroupPolicy
    max_per_host: int = 1
    ruled: bool = False


class ServerGroupCreated(Event, _NewServerGroup):
    """It is there."""


class ServerJoinedGroup(Event):
    server_id: str


class GroupMemberPlaced(Event):
    server_id: str
    host: str
    """Empty: it is on none any more."""


class ServerLeftGroup(Event):
    server_id: str


class ServerGroupDeleted(Event):
    pass


ServerGroupEvent = ServerGroupCreated | ServerJoinedGroup | GroupMemberPlaced | ServerLeftGroup | ServerGroupDeleted


class CreateServerGroup(Command, _NewServerGroup):
    """Make it."""


class JoinServerGroup(Command):
    server_id: str
    limit: int = 10


class PlaceGroupMember(Command):
    """Goes with the placement of the server (or, with no host, with the end of it)."""

    server_id: str
    host: str = ""
    back: bool = False
    """It is where it was before, which no policy forbids."""


class LeaveServerGroup(Command):
    server_id: str


class DeleteServerGroup(Command):
    pass


def evolve(group: ServerGroup, event: ServerGroupEvent, at: datetime) -> ServerGroup:
    match event:
        case ServerGroupCreated():
            return replace(
                group,
                name=event.name,
                project_id=event.project_id,
                user_id=event.user_id,
                policy=event.policy,
                max_per_host=event.max_per_host,
                ruled=event.ruled,
            )
        case ServerJoinedGroup():
            return replace(group, members=group.members | {event.server_id: ""})
        case GroupMemberPlaced():
            return replace(group, members=group.members | {event.server_id: event.host})
        case ServerLeftGroup():
            return replace(group, members={id: host for id, host in group.members.items() if id != event.server_id})
        case ServerGroupDeleted():
            return replace(group, deleted_at=at)


SERVER_GROUP = Kind("server-group", ServerGroup, ServerGroupEvent, evolve)
