"""The rules of users."""

from __future__ import annotations

from collections.abc import Sequence

from bus.execute import Aggregate
from handlers.identity.resource import LIVING, Plain
from schema.event import Command, Event
from schema.identity.user import (
    USER,
    CreateUser,
    DeleteUser,
    JoinGroup,
    LeaveGroup,
    SetPassword,
    UpdateUser,
    User,
    UserCreated,
    UserDeleted,
    UserJoinedGroup,
    UserLeftGroup,
    UserPasswordSet,
    UserUpdated,
)
from schema.refusal import Conflict

GROUPS_OF_A_USER = 1000

PLAIN = Plain("user", (CreateUser, UserCreated), (UpdateUser, UserUpdated), (DeleteUser, UserDeleted))

ALLOWED: dict[type[Command], set[str]] = {
    **PLAIN.allowed,
    SetPassword: {LIVING},
    JoinGroup: {LIVING},
    LeaveGroup: {LIVING},
}


def decide(user: User, command: Command) -> Sequence[Event]:
    match command:
        case SetPassword():
            PLAIN.find(user)
            return [] if user.password_id == command.password_id else [UserPasswordSet(password_id=command.password_id)]
        case JoinGroup():
            PLAIN.find(user)
            if command.group_id in user.groups:
                return []
            if len(user.groups) >= GROUPS_OF_A_USER:
                raise Conflict(f"User {user.id} is in {GROUPS_OF_A_USER} groups already.")
            return [UserJoinedGroup(group_id=command.group_id)]
        case LeaveGroup():
            PLAIN.find(user)
            return [UserLeftGroup(group_id=command.group_id)] if command.group_id in user.groups else []
    return PLAIN.decide(user, command)


USERS = Aggregate(USER, decide, ALLOWED)
