"""What a host's firewall costs: python bench/firewall.py [PORTS]        (as root: it makes a network namespace)

PORTS guests in one network, all in one group of ten rules that lets its own members in; times of `Firewall.apply`, from
the world to the kernel's answer. The ports have no taps: rules come before those. Every change is made ROUNDS times.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from msgspec.structs import replace

from agents.network import namespace
from agents.network.firewall import Firewall
from agents.network.namespace import Namespace
from agents.network.world import World
from schema.network.wiring import Address, Members, Piece, WiredGroup, WiredNetwork, WiredPort, WiredRule, tap_name

ROUNDS = 20
NETWORK = WiredNetwork(id="00000001-0000-4000-8000-000000000000")


def port(number: int) -> WiredPort:
    id = f"{number:08x}-0000-4000-8000-000000000000"
    addresses = (
        Address(ip=f"10.0.{number >> 8}.{number & 255}", subnet_id="four", prefix_length=16),
        Address(ip=f"fd00::{number:x}", subnet_id="six", prefix_length=64),
    )
    mac = f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}"
    fields = {"network_id": NETWORK.id, "generation": 1, "mac_address": mac, "addresses": addresses}
    return WiredPort(id=id, tap=tap_name(id), group_ids=("group",), **fields)


def rules(highest: int) -> tuple[WiredRule, ...]:
    members = (
        WiredRule(id=f"members {it}", direction="ingress", ethertype=it, remote_members="group")
        for it in ("IPv4", "IPv6")
    )
    out = (WiredRule(id=f"out {it}", direction="egress", ethertype=it) for it in ("IPv4", "IPv6"))
    doors = (
        WiredRule(id=f"door {it}", direction="ingress", ethertype="IPv4", protocol="tcp", port_min=it, port_max=it)
        for it in range(highest - 6, highest)
    )
    return (*members, *out, *doors)


def members(count: int) -> Members:
    return Members(id="group", addresses=tuple(a.ip for n in range(1, count + 1) for a in port(n).addresses))


class Timed:
    def __init__(self, space: Namespace) -> None:
        self.pieces: dict[str, Piece] = {}
        self.firewall = Firewall(space)

    async def apply(self, changes: dict[str, Piece]) -> float:
        """Milliseconds."""
        self.pieces |= changes
        world = World(self.pieces)
        started = time.perf_counter()
        faults = await self.firewall.apply(world, frozenset(changes))
        assert not faults, faults
        return (time.perf_counter() - started) * 1000

    async def sweep(self) -> float:
        started = time.perf_counter()
        await self.firewall.apply(World(self.pieces), None)
        return (time.perf_counter() - started) * 1000


async def main(count: int, space: Namespace) -> None:
    timed = Timed(space)
    group = WiredGroup(id="group", rules=rules(22))
    first: dict[str, Piece] = {f"port/{n}": port(n) for n in range(1, count + 1)}
    base = {f"network/{NETWORK.id}": NETWORK, "group/group": group, "members/group": members(count)}
    _tell(f"first wiring of {count} ports", [await timed.apply(first | base)])
    _tell("one more port, with its address in the group", [await timed.apply(it) for it in _more(count)])
    _tell(
        "one rule added",
        [await timed.apply({"group/group": replace(group, rules=(*group.rules, it))}) for it in _doors()],
    )
    _tell("one rule changed (revoked, connections looked at)", [await timed.apply(it) for it in _changes(group)])
    _tell("sweep, nothing changed", [await timed.sweep() for _ in range(ROUNDS)])
    again = Timed(space)
    again.pieces = timed.pieces
    _tell("first sweep of a restarted agent", [await again.sweep()])


def _more(count: int) -> Iterator[dict[str, Piece]]:
    for number in range(count + 1, count + 1 + ROUNDS):
        yield {f"port/{number}": port(number), "members/group": members(number)}


def _doors() -> Iterator[WiredRule]:
    for it in range(ROUNDS):
        yield WiredRule(id="more", direction="ingress", ethertype="IPv4", protocol="udp", port_min=it, port_max=it)


def _changes(group: WiredGroup) -> Iterator[dict[str, Piece]]:
    for it in range(ROUNDS):
        yield {"group/group": replace(group, rules=rules(100 + it))}


def _tell(what: str, milliseconds: list[float]) -> None:
    p50, worst = statistics.median(milliseconds), max(milliseconds)
    print(f"{what:55} p50 {p50:7.1f} ms   worst {worst:7.1f} ms")


if __name__ == "__main__":
    name = f"cl-bench{os.getpid()}"
    namespace.create(name)
    inside = Namespace(name)
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, inside))
    finally:
        inside.close()
        namespace.remove(name)
