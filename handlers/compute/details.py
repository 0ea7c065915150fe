"""What is said of a server, and no host hears of: its name and the like, its metadata, its tags, its lock."""

from __future__ import annotations

from typing import Any

from schema.compute.server import changes
from schema.compute.server_command import (
    AddServerTag,
    ChangeServerDetails,
    LockServer,
    RemoveServerTag,
    ReplaceServerMetadata,
    ReplaceServerTags,
    SetServerMetadata,
    UnlockServer,
)
from schema.compute.server_event import (
    ServerDetailsChanged,
    ServerEvent,
    ServerLocked,
    ServerMetadataSet,
    ServerTagsSet,
    ServerUnlocked,
)
from schema.compute.server_state import Server
from schema.refusal import Conflict, Invalid, OverQuota

DetailsCommand = (
    ChangeServerDetails
    | SetServerMetadata
    | ReplaceServerMetadata
    | AddServerTag
    | RemoveServerTag
    | ReplaceServerTags
    | LockServer
    | UnlockServer
)


def decide_details(server: Server, command: DetailsCommand) -> ServerEvent:
    """Of a living server. Raises Invalid, Conflict, OverQuota."""
    match command:
        case ChangeServerDetails():
            return _changed(server, command)
        case SetServerMetadata() | ReplaceServerMetadata():
            return _metadata_set(server, command)
        case AddServerTag():
            if len(server.tags) >= command.limit:
                raise Invalid(f"A server may have {command.limit} tags at most; {server.id} has as many.")
            return ServerTagsSet(tags=(*server.tags, command.tag))
        case RemoveServerTag():
            return ServerTagsSet(tags=tuple(tag for tag in server.tags if tag != command.tag))
        case ReplaceServerTags():
            return ServerTagsSet(tags=command.tags)
        case LockServer():
            return ServerLocked(by=command.by, reason=command.reason)
        case UnlockServer():
            return ServerUnlocked()


def details_already_so(server: Server, command: DetailsCommand) -> bool:
    match command:
        case ChangeServerDetails():
            return not _different(server, command)
        case SetServerMetadata() | ReplaceServerMetadata():
            return not _metadata_changes(server, command)
        case AddServerTag():
            return command.tag in server.tags
        case RemoveServerTag():
            return command.tag not in server.tags
        case ReplaceServerTags():
            return set(server.tags) == set(command.tags)
        case LockServer():
            return (server.locked_by, server.locked_reason) == (command.by, command.reason)
        case UnlockServer():
            return server.locked_by is None


def _different(server: Server, command: ChangeServerDetails) -> dict[str, Any]:
    return {name: value for name, value in changes(command).items() if getattr(server, name) != value}


def _changed(server: Server, command: ChangeServerDetails) -> ServerDetailsChanged:
    """Raises Conflict: a server is pinned to where it is, or to nowhere."""
    different = _different(server, command)
    zone = different.get("pinned_zone")
    if zone and server.pinned_zone:
        raise Conflict(
            f"Server {server.id} is pinned to the availability zone {server.pinned_zone} and cannot be pinned to "
            f"{zone}; unpin it first."
        )
    if zone and zone != server.zone:
        here = f"is in the availability zone {server.zone}" if server.zone else "is in no availability zone yet"
        raise Conflict(f"Server {server.id} {here} and cannot be pinned to {zone}.")
    return ServerDetailsChanged(**different)


def _metadata_changes(server: Server, command: SetServerMetadata | ReplaceServerMetadata) -> dict[str, str | None]:
    wanted: dict[str, str | None] = dict(command.metadata)
    if isinstance(command, ReplaceServerMetadata):
        wanted = dict.fromkeys(server.metadata) | wanted
    return {key: value for key, value in wanted.items() if server.metadata.get(key) != value}


def _metadata_set(server: Server, command: SetServerMetadata | ReplaceServerMetadata) -> ServerMetadataSet:
    changed = _metadata_changes(server, command)
    after = {key for key, value in (server.metadata | changed).items() if value is not None}
    if isinstance(command, SetServerMetadata) and len(after) > command.limit:
        raise OverQuota(f"Maximum number of metadata items exceeds {command.limit}")
    return ServerMetadataSet(metadata=changed)
