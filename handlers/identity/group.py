"""The rules of groups."""

from __future__ import annotations

from bus.execute import Aggregate
from handlers.identity.resource import Plain
from schema.identity.group import GROUP, CreateGroup, DeleteGroup, GroupCreated, GroupDeleted, GroupUpdated, UpdateGroup

PLAIN = Plain("group", (CreateGroup, GroupCreated), (UpdateGroup, GroupUpdated), (DeleteGroup, GroupDeleted))
GROUPS = Aggregate(GROUP, PLAIN.decide, PLAIN.allowed)
