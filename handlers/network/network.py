"""The rules of networks: what subnets they have, whom they are shared with, and that one with subnets stays."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from msgspec import UNSET

from bus.execute import Aggregate, AlreadyTaken
from handlers.network.router import Outdated
from schema.changes import differing, given
from schema.event import Command
from schema.network.network import (
    NETWORK,
    AddNetworkSegment,
    AddNetworkSubnet,
    ChangeNetworkSegment,
    CreateNetwork,
    DeleteNetwork,
    Network,
    NetworkCreated,
    NetworkDeleted,
    NetworkEvent,
    NetworkSegmentAdded,
    NetworkSegmentChanged,
    NetworkSegmentRemoved,
    NetworkShared,
    NetworkSubnetAdded,
    NetworkSubnetChanged,
    NetworkSubnetRemoved,
    NetworkUnshared,
    NetworkUpdated,
    NoteSubnetChange,
    RemoveNetworkSegment,
    RemoveNetworkSubnet,
    Segment,
    ShareNetwork,
    UnshareNetwork,
    UpdateNetwork,
    UseNetwork,
    carried,
)
from schema.refusal import Conflict, Invalid, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateNetwork: {ABSENT},
    UpdateNetwork: {THERE},
    AddNetworkSubnet: {THERE},
    RemoveNetworkSubnet: {THERE},
    NoteSubnetChange: {THERE},
    UseNetwork: {THERE},
    AddNetworkSegment: {THERE},
    ChangeNetworkSegment: {THERE},
    RemoveNetworkSegment: {THERE},
    ShareNetwork: {THERE},
    UnshareNetwork: {THERE},
    DeleteNetwork: {THERE},
}


def decide(network: Network, command: Command) -> list[NetworkEvent]:
    if _already_so(network, command):
        return []
    status = _status(network)
    if status not in ALLOWED[type(command)]:
        if isinstance(command, CreateNetwork):
            raise Conflict(f"Network {network.id} is {status} already.", code="Conflict")
        raise not_found(network.id)
    match command:
        case CreateNetwork():
            _refuse_doubled(command.segments)
            return [NetworkCreated(**given(command))]
        case UpdateNetwork():
            return [NetworkUpdated(**differing(network, command))]
        case AddNetworkSubnet():
            _refuse_overlap(network, command.cidr)
            return [NetworkSubnetAdded(subnet_id=command.subnet_id, cidr=command.cidr)]
        case RemoveNetworkSubnet():
            return [NetworkSubnetRemoved(subnet_id=command.subnet_id)]
        case NoteSubnetChange():
            return [NetworkSubnetChanged(subnet_id=command.subnet_id, revision=command.revision)]
        case AddNetworkSegment():
            _refuse_doubled([*network.segments, command.segment])
            return [NetworkSegmentAdded(segment=command.segment)]
        case ChangeNetworkSegment():
            if _segment(network, command.segment_id) is None:
                raise no_segment(command.segment_id)
            changes = {name: value for name, value in given(command).items() if name != "segment_id"}
            return [NetworkSegmentChanged(segment_id=command.segment_id, **changes)]
        case RemoveNetworkSegment():
            if len(network.segments) == 1:
                raise segment_in_use(command.segment_id, "its network has no other")
            return [NetworkSegmentRemoved(segment_id=command.segment_id)]
        case UseNetwork():
            raise Outdated(f"Network {network.id} has other subnets by now; try again.", code="Conflict")
        case ShareNetwork():
            return [NetworkShared(project_id=command.project_id, external=command.external)]
        case UnshareNetwork():
            return [NetworkUnshared(project_id=command.project_id, external=command.external)]
        case DeleteNetwork():
            if network.subnet_ids:
                raise Outdated(
                    f"Network {network.id} still has the subnets {', '.join(network.subnet_ids)}; "
                    "their end belongs into the same change.",
                    code="NetworkInUse",
                )
            return [NetworkDeleted()]
    raise TypeError(f"networks know no {type(command).__name__}")


def _refuse_overlap(network: Network, cidr: str) -> None:
    """Raises Invalid when a subnet has some of that range."""
    [fresh] = _ranges([cidr]) or [None]
    if fresh and any(
        fresh.version == other.version and fresh.overlaps(other) for other in _ranges(network.cidrs.values())
    ):
        raise Invalid(
            f"Invalid input for operation: Requested subnet with cidr: {cidr} for network: {network.id} overlaps with "
            "another subnet.",
            code="InvalidInput",
        )


def _refuse_doubled(segments: Iterable[Segment]) -> None:
    """Raises AlreadyTaken when two segments of one network would be carried by the same."""
    seen = set()
    for key in (key for segment in segments for key in carried(segment)):
        if key in seen:
            raise AlreadyTaken(*key)
        seen.add(key)


def _ranges(cidrs: Iterable[str]) -> list[Any]:
    """What of these is a range; whether one is, is for who makes the subnet to see to."""
    found = []
    for cidr in cidrs:
        with suppress(ValueError):
            found.append(ipaddress.ip_network(cidr))
    return found


def _segment(network: Network, id: str) -> Segment | None:
    return next((it for it in network.segments if it.id == id), None)


def no_segment(id: str) -> NotFound:
    return NotFound(f"Segment {id} could not be found.", code="SegmentNotFound")


def segment_in_use(id: str, why: str) -> Conflict:
    return Conflict(f"Segment '{id}' cannot be deleted: {why}.", code="SegmentInUse")


def not_found(id: str) -> NotFound:
    return NotFound(f"Network {id} could not be found.", code="NetworkNotFound")


def _already_so(network: Network, command: Command) -> bool:
    match command:
        case CreateNetwork():
            return network.living and not {k: v for k, v in given(command).items() if getattr(network, k) != v}
        case DeleteNetwork():
            return network.deleted_at is not None
    if not network.living:
        return False
    match command:
        case UpdateNetwork():
            return not differing(network, command)
        case AddNetworkSubnet():
            return command.subnet_id in network.subnet_ids
        case RemoveNetworkSubnet():
            return command.subnet_id not in network.subnet_ids
        case NoteSubnetChange():
            gone = command.subnet_id not in network.subnet_ids
            return gone or network.revisions.get(command.subnet_id, 0) >= command.revision
        case AddNetworkSegment():
            return _segment(network, command.segment.id) is not None
        case ChangeNetworkSegment():
            segment = _segment(network, command.segment_id)
            return segment is not None and (
                command.name in {UNSET, segment.name} and command.description in {UNSET, segment.description}
            )
        case RemoveNetworkSegment():
            return _segment(network, command.segment_id) is None
        case UseNetwork():
            return command.subnet_ids in {UNSET, network.subnet_ids}
        case ShareNetwork() | UnshareNetwork():
            those = network.external_for if command.external else network.shared_with
            return (command.project_id in those) is isinstance(command, ShareNetwork)
    return False


def _status(network: Network) -> str:
    if network.deleted_at is not None:
        return GONE
    return THERE if network.living else ABSENT


NETWORKS = Aggregate(NETWORK, decide, ALLOWED)
