"""Bandwidth limits of ports: what a guest may be sent by a token bucket on its tap, what it may send by one it goes by.

    bridge ─▶ tap: bucket ─▶ guest                        guest ─▶ tap ─▶ ifb: bucket ─▶ bridge

An interface can only hold back what it sends, so what comes from the guest is led through an `ifb` of the port's own.
Packets wait a little before any is dropped, which TCP takes much better than policing. DSCP marks are the firewall's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from agents.network import netlink, traffic_control
from agents.network.driver import Faults, Touched
from agents.network.namespace import Namespace
from agents.network.netlink import Request
from agents.network.world import World
from schema.network.wiring import Direction, FloatingAddress, Quality, WiredPort, WiredRouter

_OURS = re.compile(r"ifb[0-9a-f]{8}-[0-9a-f]{2}")
_LEAST_BURST_BYTES = 16 * 1024
_BURST_SECONDS = 0.02
"""Of a limit that names no burst. A longer one lets more than the rate through for a while."""
_POLICED_BURST_SECONDS = 0.2
_ROUNDING = 0.02


class Rate(msgspec.Struct, frozen=True):
    bytes_per_second: int
    burst_bytes: int

    def like(self, other: Rate | None) -> bool:
        """The kernel keeps a burst as a time, in ticks."""
        if other is None or self.bytes_per_second != other.bytes_per_second:
            return False
        return abs(self.burst_bytes - other.burst_bytes) <= _ROUNDING * self.burst_bytes + 64


class Shape(msgspec.Struct, frozen=True):
    """Of one tap."""

    toward: Rate | None = None
    away: Rate | None = None
    by_way_of: str = ""
    """The `ifb` for what comes from the guest."""


class Seen(msgspec.Struct, frozen=True):
    """What the kernel has, by interface name."""

    links: Mapping[str, int]
    rates: Mapping[str, Rate]
    incoming: frozenset[str]
    """Interfaces with a place for filters on what comes in."""
    redirected: Mapping[str, str]


class Step(NamedTuple):
    act: Literal["add ifb", "remove ifb", "limit", "unlimit", "leave incoming", "redirect"]
    device: str
    rate: Rate | None = None
    to: str = ""


class Shaping:
    """A component of both drivers; after the switch, for a limit needs its tap."""

    def __init__(self, namespace: Namespace, *, both_ways: bool = True) -> None:
        """`both_ways`: False, the switch itself holds back what comes from guests."""
        self._namespace = namespace
        self._both_ways = both_ways
        self._idle = False
        """Nothing is limited here, and nothing was found that is."""

    async def apply(self, world: World, touched: Touched) -> Faults:
        shapes = ((port.tap, shape_of(port, both_ways=self._both_ways)) for port in world.ports.values())
        wanted = {tap: shape for tap, shape in shapes if shape is not None}
        if not wanted and self._idle and touched is not None:
            return {}
        keys = {port.tap: f"port/{id}" for id, port in world.ports.items()}
        if touched is not None and not any(it.startswith(("port/", "network/")) for it in touched):
            return {}
        try:
            said = await self._namespace.run(_bring, wanted, set(keys))
        except OSError as error:
            return {keys[tap]: f"its bandwidth limit could not be set: {error}" for tap in wanted}
        self._idle = not wanted
        return {keys[tap]: text for tap, text in said.items() if tap in keys}

    async def close(self) -> None:
        """Nothing to let go of."""


def shape_of(port: WiredPort, *, both_ways: bool = True) -> Shape | None:
    """None: the port has no limits, or no tap of its own."""
    toward, away = rate_of(port.quality, "ingress"), rate_of(port.quality, "egress") if both_ways else None
    if port.parent_id or (toward is None and away is None):
        return None
    return Shape(toward, away, f"ifb{port.id[:11]}" if away else "")


def rate_of(quality: Quality, direction: Direction) -> Rate | None:
    """The lowest of the limits in that direction."""
    limits = [it for it in quality.limits if it.direction == direction and it.max_kbps > 0]
    if not limits:
        return None
    limit = min(limits, key=lambda it: it.max_kbps)
    bytes_per_second = limit.max_kbps * 1000 // 8
    burst = limit.max_burst_kbps * 1000 // 8 or int(bytes_per_second * _BURST_SECONDS)
    return Rate(bytes_per_second, max(burst, _LEAST_BURST_BYTES))


def policed(rate: Rate) -> Rate:
    """As it has to be where nothing waits, and what is over the rate is dropped: TCP needs longer bursts there."""
    return replace(rate, burst_bytes=max(rate.burst_bytes, int(rate.bytes_per_second * _POLICED_BURST_SECONDS)))


def plan(wanted: Mapping[str, Shape], taps: Iterable[str], seen: Seen) -> list[Step]:
    """`taps`: of all ports here. Only their limits and our own `ifb`s are touched."""
    steps: list[Step] = []
    kept = {shape.by_way_of for shape in wanted.values() if shape.by_way_of}
    for tap in taps:
        if tap not in seen.links:
            continue
        shape = wanted.get(tap, Shape())
        steps += _bucket(tap, shape.toward, seen)
        by = shape.by_way_of
        if by and shape.away:
            if by not in seen.links:
                steps.append(Step("add ifb", by))
            steps += _bucket(by, shape.away, seen)
            if by not in seen.links or seen.redirected.get(tap) != by:
                if tap in seen.incoming:
                    steps.append(Step("leave incoming", tap))
                steps.append(Step("redirect", tap, to=by))
        elif tap in seen.redirected and _OURS.fullmatch(seen.redirected[tap]):
            steps.append(Step("leave incoming", tap))
    steps += [Step("remove ifb", name) for name in seen.links if _OURS.fullmatch(name) and name not in kept]
    return sorted(steps, key=lambda step: _ORDER.index(step.act))


def router_limits(router: WiredRouter, gateway: str) -> list[str]:
    """nft rules for a router's `forward` chain: limits of floating IPs, and of what goes by the gateway's own address.

    `gateway`: the outer interface. What is over the limit is dropped there and then. Put them last, and where a packet
    still has (or has again) its fixed address: after DNAT, before SNAT.
    """
    rules: list[str] = []
    for floating in router.floating:
        rules += _policed(floating, gateway)
    others = ", ".join(sorted(it.fixed_ip for it in router.floating if ":" not in it.fixed_ip))
    for direction, rate in _both(router.quality):
        interface, side = ("iifname", "daddr") if direction == "ingress" else ("oifname", "saddr")
        if others:
            rules.append(f'{interface} "{gateway}" ip {side} {{ {others} }} accept')
        rules.append(f'{interface} "{gateway}" {_over(rate)}')
    return rules


def _policed(floating: FloatingAddress, gateway: str) -> Iterable[str]:
    for direction, rate in _both(floating.quality):
        interface, side = ("iifname", "daddr") if direction == "ingress" else ("oifname", "saddr")
        yield f'{interface} "{gateway}" ip {side} {floating.fixed_ip} {_over(rate)}'


def _both(quality: Quality) -> Iterable[tuple[Direction, Rate]]:
    directions: tuple[Direction, ...] = ("ingress", "egress")
    for direction in directions:
        if rate := rate_of(quality, direction):
            yield direction, rate


def _over(rate: Rate) -> str:
    held = policed(rate)
    return f"limit rate over {held.bytes_per_second} bytes/second burst {held.burst_bytes} bytes drop"


_ORDER = ("leave incoming", "unlimit", "remove ifb", "add ifb", "limit", "redirect")


def _bucket(device: str, rate: Rate | None, seen: Seen) -> Iterable[Step]:
    if rate is None:
        return [Step("unlimit", device)] if device in seen.rates else []
    return [] if rate.like(seen.rates.get(device)) else [Step("limit", device, rate)]


def _bring(wanted: Mapping[str, Shape], taps: set[str]) -> Faults:
    """In the namespace. Tap → what could not be done."""
    with netlink.Socket() as kernel:
        steps = plan(wanted, sorted(taps), _observe(kernel))
        faults = dict.fromkeys(wanted, "its tap is not there, so it has no bandwidth limit")
        added = [step for step in steps if step.act == "add ifb"]
        kernel.send([traffic_control.add_ifb(step.device) for step in added])
        links = traffic_control.interfaces(kernel)
        faults = {tap: text for tap, text in faults.items() if tap not in links}
        requests = [(step, it) for step in steps if step not in added for it in _requests(step, links)]
        answers = kernel.send([request for _, request in requests])
    tap_of = {shape.by_way_of: tap for tap, shape in wanted.items()}
    for (step, _), answer in zip(requests, answers, strict=True):
        if answer.number and not (step.act.startswith(("un", "remove", "leave"))):
            faults[tap_of.get(step.device, step.device)] = f"its bandwidth limit could not be set: {answer}"
    return faults


def _observe(kernel: netlink.Socket) -> Seen:
    links = traffic_control.interfaces(kernel)
    names = {index: name for name, index in links.items()}
    rates: dict[str, Rate] = {}
    incoming: set[str] = set()
    for device, kind, figures in traffic_control.buckets(kernel):
        name = names.get(device, "")
        if kind == "tbf":
            rates[name] = Rate(*figures)
        else:
            incoming.add(name)
    redirected = {name: names.get(traffic_control.redirection(kernel, links[name]), "") for name in incoming if name}
    return Seen(links, rates, frozenset(incoming), redirected)


def _requests(step: Step, links: Mapping[str, int]) -> list[Request]:
    device, to = links.get(step.device, 0), links.get(step.to, 0)
    if not device:
        return []
    match step.act:
        case "limit" if step.rate:
            return [traffic_control.limit(device, step.rate.bytes_per_second, step.rate.burst_bytes)]
        case "unlimit":
            return [traffic_control.unlimit(device)]
        case "remove ifb":
            return [traffic_control.remove_ifb(device)]
        case "leave incoming":
            return [traffic_control.leave_incoming(device)]
        case "redirect" if to:
            return [traffic_control.take_incoming(device), traffic_control.redirect(device, to)]
    return []
