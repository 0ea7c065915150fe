"""A network: one broadcast domain of a project, and how it is carried between hosts.

(absent) ──NetworkCreated──▶ there ──NetworkUpdated──▶ there ──NetworkDeleted──▶ gone
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Key, Kind, Said, State
from schema.network.qos_policy import using
from schema.network.wiring import NetworkType


class Segment(Word):
    """How a network is carried on one physical network; most networks have one."""

    id: str
    network_type: NetworkType = "vxlan"
    physical_network: str | None = None
    segmentation_id: int | None = None
    name: str = ""
    description: str = ""
    created_at: datetime | None = None
    """None: with its network."""
    updated_at: datetime | None = None
    revision: int = 0


class Network(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    admin_state_up: bool = True
    mtu: int = 1450
    port_security_enabled: bool = True
    is_default: bool = False
    dns_domain: str = ""
    availability_zone_hints: tuple[str, ...] = ()
    qos_policy_id: str | None = None
    segments: tuple[Segment, ...] = ()
    shared_with: tuple[str, ...] = ()
    """Projects that RBAC lets use it; `*`: all of them (`shared`)."""
    external_for: tuple[str, ...] = ()
    """Projects that may route out through it; `*`: all. `router:external` is whether there are any."""
    subnet_ids: tuple[str, ...] = ()
    cidrs: dict[str, str] = field(default_factory=dict)
    """Subnet → its range: no two of a network overlap."""
    revisions: dict[str, int] = field(default_factory=dict)
    """Subnet → as of which revision it is known here: the network's own rises with it."""
    topology_router_id: str = ""
    """Both were made at once for its project, as its auto-allocated topology."""
    tags: tuple[str, ...] = ()


class _NewNetwork(Said):
    name: str = ""
    project_id: str = ""
    description: str = ""
    admin_state_up: bool = True
    mtu: int = 1450
    port_security_enabled: bool = True
    is_default: bool = False
    dns_domain: str = ""
    availability_zone_hints: tuple[str, ...] = ()
    qos_policy_id: str | None = None
    segments: tuple[Segment, ...] = ()
    shared_with: tuple[str, ...] = ()
    external_for: tuple[str, ...] = ()
    topology_router_id: str = ""
    tags: tuple[str, ...] = ()


class NetworkCreated(Event, _NewNetwork):
    """It is there."""


class _NetworkChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    mtu: int | UnsetType = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET
    dns_domain: str | UnsetType = UNSET
    availability_zone_hints: tuple[str, ...] | UnsetType = UNSET
    qos_policy_id: str | None | UnsetType = UNSET
    segments: tuple[Segment, ...] | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class NetworkUpdated(Event, _NetworkChanges):
    """It is changed."""


class NetworkSubnetAdded(Event):
    """A subnet of it was made, in the same append."""

    subnet_id: str
    cidr: str = ""


class NetworkSubnetRemoved(Event):
    subnet_id: str


class NetworkSubnetChanged(Event):
    """A subnet of it was changed, in the same append."""

    subnet_id: str
    revision: int


class NetworkSegmentAdded(Event):
    """One way more to carry it: each host takes the first that it can."""

    segment: Segment


class NetworkSegmentChanged(Event):
    segment_id: str
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class NetworkSegmentRemoved(Event):
    segment_id: str


class NetworkShared(Event):
    """A project (`*`: every one) may use it; with `external`, may route out through it."""

    project_id: str
    external: bool = False


class NetworkUnshared(Event):
    project_id: str
    external: bool = False


class NetworkDeleted(Event):
    """It ended."""


class CreateNetwork(Command, _NewNetwork):
    """Make it."""


class UpdateNetwork(Command, _NetworkChanges):
    """Change it."""


class DeleteNetwork(Command):
    """End it."""


class AddNetworkSubnet(Command):
    """Appended together with the making of the subnet. Refused when its range overlaps another's."""

    subnet_id: str
    cidr: str = ""


class RemoveNetworkSubnet(Command):
    """Appended together with the end of the subnet."""

    subnet_id: str


class UseNetwork(Command):
    """Changes nothing; refused when the network is gone, outdated when it has other subnets than these by now."""

    subnet_ids: tuple[str, ...] | UnsetType = UNSET


class NoteSubnetChange(Command):
    """Appended together with the change of the subnet."""

    subnet_id: str
    revision: int


class AddNetworkSegment(Command):
    segment: Segment


class ChangeNetworkSegment(Command):
    segment_id: str
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class RemoveNetworkSegment(Command):
    """Refused for the only one."""

    segment_id: str


class ShareNetwork(Command):
    project_id: str
    external: bool = False


class UnshareNetwork(Command):
    project_id: str
    external: bool = False


NetworkEvent = (
    NetworkCreated
    | NetworkUpdated
    | NetworkSubnetAdded
    | NetworkSubnetRemoved
    | NetworkSubnetChanged
    | NetworkSegmentAdded
    | NetworkSegmentChanged
    | NetworkSegmentRemoved
    | NetworkShared
    | NetworkUnshared
    | NetworkDeleted
)


def evolve(network: Network, event: NetworkEvent, at: datetime) -> Network:
    match event:
        case NetworkCreated() | NetworkUpdated():
            return applied(network, event)
        case NetworkSubnetAdded():
            cidrs = {**network.cidrs, event.subnet_id: event.cidr} if event.cidr else network.cidrs
            return replace(network, subnet_ids=(*network.subnet_ids, event.subnet_id), cidrs=cidrs)
        case NetworkSubnetRemoved():
            return replace(
                network,
                subnet_ids=tuple(id for id in network.subnet_ids if id != event.subnet_id),
                cidrs={id: cidr for id, cidr in network.cidrs.items() if id != event.subnet_id},
                revisions={id: revision for id, revision in network.revisions.items() if id != event.subnet_id},
            )
        case NetworkSubnetChanged():
            return replace(network, revisions={**network.revisions, event.subnet_id: event.revision})
        case NetworkSegmentAdded():
            return replace(network, segments=(*network.segments, replace(event.segment, created_at=at, updated_at=at)))
        case NetworkSegmentChanged():
            return replace(network, segments=tuple(_resegmented(it, event, at) for it in network.segments))
        case NetworkSegmentRemoved():
            return replace(network, segments=tuple(it for it in network.segments if it.id != event.segment_id))
        case NetworkShared():
            return replace(network, **{_whose(event): (*getattr(network, _whose(event)), event.project_id)})
        case NetworkUnshared():
            left = tuple(id for id in getattr(network, _whose(event)) if id != event.project_id)
            return replace(network, **{_whose(event): left})
        case NetworkDeleted():
            return replace(network, deleted_at=at)


def _resegmented(segment: Segment, event: NetworkSegmentChanged, at: datetime) -> Segment:
    if segment.id != event.segment_id:
        return segment
    return replace(
        segment,
        name=segment.name if event.name is UNSET else event.name,
        description=segment.description if event.description is UNSET else event.description,
        updated_at=at,
        revision=segment.revision + 1,
    )


def _whose(event: NetworkShared | NetworkUnshared) -> str:
    return "external_for" if event.external else "shared_with"


def unique(network: Network) -> Iterable[Key]:
    """What carries it between hosts is nobody else's; and one way out is the default."""
    if network.is_default and network.external_for:
        yield DEFAULT_EXTERNAL, "it"
    if network.topology_router_id:
        yield TOPOLOGY, network.project_id
    for segment in network.segments:
        yield from carried(segment)
    yield from using(network.qos_policy_id, f"network {network.id}")


def carried(segment: Segment) -> Iterable[Key]:
    """What a segment has for itself."""
    if segment.network_type == "vxlan":
        yield "vxlan", str(segment.segmentation_id)
    elif segment.network_type == "vlan":
        yield f"vlan {segment.physical_network}", str(segment.segmentation_id)
    elif segment.network_type == "flat":
        yield "flat", str(segment.physical_network)


DEFAULT_EXTERNAL = "default external network"
TOPOLOGY = "auto-allocated topology"

NETWORK = Kind("network", Network, NetworkEvent, evolve, unique=unique)
