"""How networks are carried: what this cloud can carry, what somebody may ask for, and which numbers are picked.

A number is picked here and decided by its reservation: who loses it to others picks again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar, cast, get_args
from uuid import NAMESPACE_OID, uuid5

import msgspec

from bus import clock
from bus.cloud import Cloud
from bus.config import Networking
from bus.execute import AlreadyTaken
from handlers.network.refusing import invalid_input
from handlers.network.segment_range import Room, rooms
from schema.network.host import NetworkHost
from schema.network.network import DEFAULT_EXTERNAL, Segment
from schema.network.segment_range import SEGMENT_RANGES, STREAM, SegmentRange
from schema.network.wiring import NetworkType
from schema.refusal import Conflict, Refused

ATTEMPTS = 20
"""How often other numbers are picked for who lost them to other processes."""
UNDERLAY_MTU = 1500
VXLAN_OVERHEAD = 50
VLAN_IDS = range(1, 4095)
VXLAN_IDS = range(1, 1 << 24)
EVERY_NUMBER = 1 << 24
"""Of one kind, at most: as many as VXLAN has."""
FEW = 4096
"""Of so many numbers the free ones are looked up before one is picked."""

Numbers = range
T = TypeVar("T")


class SegmentWanted(msgspec.Struct, frozen=True):
    """What somebody says of how a network is to be carried."""

    network_type: str | None = None
    physical_network: str | None = None
    segmentation_id: int | None = None
    name: str = ""
    description: str = ""


class Carriers(msgspec.Struct, frozen=True):
    """What carries networks here. `physical`: a name → the VLAN ids that may be picked in it."""

    physical: Mapping[str, Numbers]
    vxlan: Numbers
    vlan: bool
    """Some host's driver carries VLANs, or there is no host as yet that could say."""


class NoNetworkAvailable(Refused):
    """Every number is taken (503)."""

    status = 503

    def __init__(self) -> None:
        super().__init__("Unable to create the network. No tenant network is available for allocation.")


def carriers(settings: Networking, hosts: Iterable[NetworkHost]) -> Carriers:
    """What the settings name and the hosts have."""
    living = [host.facts for host in hosts if host.living]
    physical = {name: VLAN_IDS for facts in living for name in facts.physical_networks}
    return Carriers(
        physical=physical | _named(settings.physical_networks),
        vxlan=_between(settings.vxlan_ids),
        vlan=not living or any("vlan" in facts.capabilities for facts in living),
    )


def segment(wanted: SegmentWanted, of: Carriers) -> Segment:
    """The segment asked for, without a number if none was asked for. Raises Invalid in Neutron's words."""
    kind = wanted.network_type
    if kind is None:
        if wanted.physical_network is not None or wanted.segmentation_id is not None:
            raise invalid_input("network_type required")
        kind = "vxlan"
    if kind not in get_args(NetworkType) or (kind == "vlan" and not of.vlan):
        raise invalid_input(f"network_type value '{kind[:64]}' not supported")
    _CHECKS[kind](wanted, of)
    return Segment(
        id=clock.uuid4(),
        network_type=cast("NetworkType", kind),
        physical_network=wanted.physical_network,
        segmentation_id=wanted.segmentation_id,
        name=wanted.name,
        description=wanted.description,
    )


def largest_mtu(segments: Sequence[Segment]) -> int:
    """What fits through all of them."""
    return min(
        (UNDERLAY_MTU - VXLAN_OVERHEAD if it.network_type == "vxlan" else UNDERLAY_MTU for it in segments),
        default=UNDERLAY_MTU,
    )


def mtu_for(asked: int, segments: Sequence[Segment]) -> int:
    """The MTU of a network; none asked for: the largest. Raises Invalid."""
    largest = largest_mtu(segments)
    if asked > largest:
        raise invalid_input(f"Requested MTU is too big, maximum is {largest}")
    return asked or largest


class Numbering:
    """The numbers that one request picks."""

    def __init__(self, cloud: Cloud, of: Carriers) -> None:
        self._cloud = cloud
        self._of = of
        self._taken: dict[str, set[int]] = {}
        self._picked: set[tuple[str, str]] = set()

    async def numbered(self, segments: Sequence[Segment], project_id: str) -> tuple[Segment, ...]:
        """The same, each with a number where it needs one, of that project's. Raises NoNetworkAvailable."""
        found = []
        for it in segments:
            if it.segmentation_id is None and it.network_type in {"vxlan", "vlan"}:
                found.append(await self._numbered(it, project_id))
            else:
                found.append(it)
        return tuple(found)

    def picked(self, taken: AlreadyTaken) -> bool:
        """Whether that number was picked here, and not asked for. Others are looked up next time."""
        if (taken.scope, taken.key) not in self._picked:
            return False
        self._taken.clear()
        self._picked.clear()
        return True

    async def _numbered(self, segment: Segment, project_id: str) -> Segment:
        ranges, kind = await segment_ranges(self._cloud), segment.network_type
        for room in rooms(ranges, default_ranges(self._of), project_id, kind, segment.physical_network):
            scope = "vxlan" if kind == "vxlan" else f"vlan {room.physical_network}"
            number = await self._pick(scope, room)
            if number is not None:
                self._picked.add((scope, str(number)))
                place = room.physical_network
                return msgspec.structs.replace(segment, physical_network=place, segmentation_id=number)
        raise NoNetworkAvailable

    async def _pick(self, scope: str, ids: Room) -> int | None:
        mine = {int(key) for known, key in self._picked if known == scope}
        if len(ids) > FEW and scope not in self._taken:
            number = ids[int(clock.fraction() * len(ids))]
            if number not in mine:
                return number
        taken = mine | await self._known(scope)
        free = [it for part in ids.parts for it in part if it not in taken] if len(ids) <= FEW else _far(ids, taken)
        return free[int(clock.fraction() * len(free))] if free else None

    async def _known(self, scope: str) -> set[int]:
        """What others have of it: by what networks reserve, however many there are."""
        if scope not in self._taken:
            self._taken[scope] = {int(it.key) for it in await self._cloud.log.holding([scope], EVERY_NUMBER)}
        return self._taken[scope]


async def segment_ranges(cloud: Cloud) -> tuple[SegmentRange, ...]:
    """Those that administrators made."""
    stream = SEGMENT_RANGES.stream(STREAM)
    document = (await cloud.executor.load([stream])).get(stream)
    ranges: tuple[SegmentRange, ...] = document.state.ranges if document else ()
    return ranges


def default_ranges(of: Carriers) -> list[SegmentRange]:
    """What the settings say, for who has no other."""
    found: list[tuple[str, str | None, Numbers]] = [("vxlan", None, of.vxlan)]
    found += [("vlan", name, ids) for name, ids in sorted(of.physical.items()) if of.vlan]
    return [
        SegmentRange(
            id=str(uuid5(NAMESPACE_OID, f"default range of {kind} {place or ''}")),
            network_type=kind,
            physical_network=place,
            minimum=ids.start,
            maximum=ids.stop - 1,
        )
        for kind, place, ids in found
        if ids
    ]


async def with_numbers(cloud: Cloud, of: Carriers, attempt: Callable[[Numbering], Awaitable[T]]) -> T:
    """Run a request that picks numbers; again when they were lost to others.

    Raises Conflict when what was asked for is taken.
    """
    numbering = Numbering(cloud, of)
    for left in reversed(range(ATTEMPTS)):
        try:
            return await attempt(numbering)
        except AlreadyTaken as taken:
            if not left or not numbering.picked(taken):
                raise reworded(taken) from None
    raise AssertionError("the last attempt raises")


def reworded(taken: AlreadyTaken) -> Conflict:
    """Why a network cannot be carried like that, as Neutron says it."""
    scope, _, place = taken.scope.partition(" ")
    if taken.scope == DEFAULT_EXTERNAL:
        return Conflict("A default external network already exists.", code="DefaultExternalNetworkExists")
    match scope:
        case "vxlan":
            why, code = f"The tunnel ID {taken.key} is in use", "TunnelIdInUse"
        case "vlan":
            why, code = f"The VLAN {taken.key} on physical network {place} is in use", "VlanIdInUse"
        case "flat":
            return Conflict(
                f"Unable to create the flat network. Physical network {taken.key} is in use.", code="FlatNetworkInUse"
            )
        case _:
            return taken
    return Conflict(f"Unable to create the network. {why}.", code=code)


def _far(ids: Room, taken: set[int]) -> list[int]:
    """Some free ones of many, from a place found by chance on."""
    start = int(clock.fraction() * len(ids))
    found = (ids[(start + nth) % len(ids)] for nth in range(len(ids)))
    return [next((number for number in found if number not in taken), 0)] if len(taken) < len(ids) else []


def _named(text: str) -> dict[str, Numbers]:
    """`name` or `name:first:last`, by commas."""
    found = {}
    for part in text.split(","):
        name, _, ids = part.strip().partition(":")
        if name:
            found[name] = _between(ids) if ids else VLAN_IDS
    return found


def _between(text: str) -> Numbers:
    first, _, last = text.partition(":")
    return range(int(first), int(last or first) + 1)


def _check_flat(wanted: SegmentWanted, of: Carriers) -> None:
    if wanted.physical_network is None:
        raise invalid_input("physical_network required for flat provider network")
    if wanted.physical_network not in of.physical:
        raise invalid_input(f"physical_network '{wanted.physical_network}' unknown for flat provider network")
    if wanted.segmentation_id is not None:
        raise invalid_input("segmentation_id prohibited for flat provider network")


def _check_vlan(wanted: SegmentWanted, of: Carriers) -> None:
    if wanted.physical_network is None:
        if wanted.segmentation_id is not None:
            raise invalid_input("segmentation_id requires physical_network for VLAN provider network")
        return
    if wanted.physical_network not in of.physical:
        raise invalid_input(f"physical_network '{wanted.physical_network}' unknown for VLAN provider network")
    if wanted.segmentation_id is not None and wanted.segmentation_id not in VLAN_IDS:
        raise invalid_input(f"segmentation_id out of range ({VLAN_IDS.start} through {VLAN_IDS.stop - 1})")


def _check_vxlan(wanted: SegmentWanted, of: Carriers) -> None:
    if wanted.physical_network is not None:
        raise invalid_input("provider:physical_network specified for vxlan network")
    if wanted.segmentation_id is not None and wanted.segmentation_id not in VXLAN_IDS:
        raise invalid_input(f"segmentation_id out of range ({VXLAN_IDS.start} through {VXLAN_IDS.stop - 1})")


def _check_local(wanted: SegmentWanted, of: Carriers) -> None:
    for name in ("physical_network", "segmentation_id"):
        if getattr(wanted, name) is not None:
            raise invalid_input(f"{name} prohibited for local provider network")


_CHECKS: dict[str, Callable[[SegmentWanted, Carriers], None]] = {
    "flat": _check_flat,
    "vlan": _check_vlan,
    "vxlan": _check_vxlan,
    "local": _check_local,
}
