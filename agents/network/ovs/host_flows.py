"""All flows of a host, worked out from its world. Pure; what a piece gave the last time is not worked out again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from agents.network.firewall_rules import stateful, unusable
from agents.network.ovs.flows import Flow, by_cookie
from agents.network.ovs.group_flows import asking_flows, group_flows, member_flows, named_members, rule_matches
from agents.network.ovs.guard_flows import guard_flows
from agents.network.ovs.network_flows import (
    Place,
    Receiver,
    fabric_flows,
    foot_flows,
    network_flows,
    peer_flows,
    port_flows,
    receiver_of_foot,
    receiver_of_port,
)
from agents.network.ovs.pipeline import STATIC
from agents.network.switch import Attachment
from agents.network.world import World
from schema.network.wiring import Direction, WiredPort

_DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")
_KINDS = {"fabric": "network"}
"""Parts of pieces that are not called as these."""
Part = dict[str, Flow]
"""By cookie."""
Kept = dict[tuple[str, ...], tuple[Any, Part]]


class Plugged(msgspec.Struct, frozen=True):
    """What this host's switch has, by the names the world has for it."""

    networks: Mapping[str, int]
    """Their numbers on this host."""
    taps: Mapping[str, Place]
    """By port, of those that have one: where frames that bear no other port's tag come in."""
    feet: Mapping[str, tuple[Attachment, Place]]
    fabrics: Mapping[str, Place]
    """By network: its tunnel or wire. A network that has none is this host's alone."""
    meters: Mapping[tuple[str, Direction], int] = {}
    """By port and direction, of those that the switch holds back."""


class HostFlows:
    """Remembers; so there is one for each host."""

    def __init__(self, *, protecting: bool = True) -> None:
        """`protecting`: False, every port is as one without port security."""
        self._protecting = protecting
        self._before: Kept = {}
        self._kept: Kept = {}
        self._without: AbstractSet[str] = frozenset()
        self.faults: dict[str, str] = {}
        """Of the last time: pieces that cannot be said. A port among them is shut."""

    def blamed(self, cookie: str) -> str:
        """Key of the piece that a flow of the last time is there for; empty: of none."""
        name = next((name for name, (_, part) in self._kept.items() if cookie in part), ())
        kind = _KINDS.get(name[0], name[0]) if name else ""
        return f"{kind}/{name[1]}" if len(name) > 1 else ""

    def of(self, world: World, plugged: Plugged, without: AbstractSet[str] = frozenset()) -> Part:
        """Every flow that should be there. `without`: keys of pieces that the switch refuses."""
        self._before, self._kept, self._without = self._kept, {}, without
        self.faults = unusable(world, lambda rule, _: rule_matches(rule))
        if not self._protecting:
            open_ports = {f"port/{id}": replace(port, secured=False) for id, port in world.ports.items()}
            world = World({**world.pieces, **open_ports}, endpoint_ip=world.endpoint_ip)
        parts = [self._part(("static",), (), lambda: STATIC)]
        receivers: dict[str, list[Receiver]] = {id: [] for id in plugged.networks}
        for port in world.ports.values():
            parts += self._of_port(port, world, plugged, receivers)
        for foot, place in plugged.feet.values():
            if (network := plugged.networks.get(foot.network_id)) is not None:
                make = partial(foot_flows, foot, place, network)
                parts.append(self._part(("foot", foot.port_id), (foot, place, network), make))
                receivers[foot.network_id].append(receiver_of_foot(foot))
        for id, number in plugged.networks.items():
            parts += self._of_network(id, number, plugged.fabrics.get(id), receivers[id], world)
        groups = [it for id, it in world.groups.items() if any(id in port.group_ids for port in world.ports.values())]
        for group in groups:
            for direction in _DIRECTIONS:
                make = partial(group_flows, group, direction)
                parts.append(self._part(("group", group.id, direction), group, make))
        for id, direction in named_members(groups):
            make = partial(member_flows, id, direction, world)
            parts.append(self._part(("members", id, direction), world.members.get(id), make))
        self._before = {}
        return {cookie: flow for part in parts for cookie, flow in part.items()}

    def _of_port(
        self, port: WiredPort, world: World, plugged: Plugged, receivers: Mapping[str, list[Receiver]]
    ) -> Iterator[Part]:
        place, network = place_of(port, world, plugged), plugged.networks.get(port.network_id)
        if place is None or network is None or not port.admin_up:
            return
        tracked = stateful(port, world)
        known = frozenset(id for id in port.group_ids if id in world.groups)
        make = partial(_of_port, port, place, network, world, tracked=tracked)
        try:
            part = self._part(("port", port.id), (port, place, network, tracked, known), make)
        except ValueError as error:
            self.faults[f"port/{port.id}"] = f"its rules cannot be said: {error}"
            return
        moving = port.id in world.peers or bool(port.bound_for)
        receivers[port.network_id].append(receiver_of_port(port, tracked=tracked, moving=moving))
        yield part

    def _of_network(
        self, id: str, number: int, fabric: Place | None, receivers: Sequence[Receiver], world: World
    ) -> Iterator[Part]:
        tunnel = fabric is not None and fabric.tag is None
        wire = fabric is not None and not tunnel
        make = partial(network_flows, number, receivers, tunnel=tunnel, wire=wire)
        yield self._part(("network", id), (number, tuple(receivers), tunnel, wire), make)
        if fabric is not None:
            yield self._part(("fabric", id), (fabric, number), partial(fabric_flows, fabric, number))
            for peer in world.peers_of.get(id, []):
                yield self._part(("peer", peer.id), (peer, number), partial(peer_flows, peer, number))

    def _part(self, name: tuple[str, ...], given: Any, make: Callable[[], Iterable[Flow]]) -> Part:
        """`given`: all that it depends on."""
        kept = self._before.get(name)
        if kept is None or kept[0] != given:
            kept = (given, by_cookie(make()))
        self._kept[name] = kept
        refused = len(name) > 1 and f"{_KINDS.get(name[0], name[0])}/{name[1]}" in self._without
        return {} if refused else kept[1]


def place_of(port: WiredPort, world: World, plugged: Plugged) -> Place | None:
    """None: it is not plugged in here (yet)."""
    place = plugged.taps.get(port.parent_id or port.id)
    if place is None:
        return None
    tag = 0 if port.subports else None
    if port.parent_id:
        parent = world.ports.get(port.parent_id)
        if parent is None or not parent.admin_up:
            return None
        tag = port.segmentation_id
    meters = plugged.meters
    return Place(place.number, tag, meters.get((port.id, "egress"), 0), meters.get((port.id, "ingress"), 0))


def _of_port(port: WiredPort, place: Place, network: int, world: World, *, tracked: bool) -> list[Flow]:
    flows = port_flows(port, place, network, tracked=tracked)
    return [*flows, *guard_flows(port), *asking_flows(port, world)] if port.secured else flows
