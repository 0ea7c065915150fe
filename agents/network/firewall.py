"""The firewall of a host: brings the kernel's rules to what the world says, in one transaction whatever changed.

The difference is taken between the rules wanted and those known to be there. Those are remembered, and read back from
the kernel whenever somebody else's transaction came between, so a rule deleted by hand is put back, an agent that
starts finds everything as it left it, and a sweep over an untouched host costs one question.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable, Iterable, Mapping

import structlog

from agents.network import conntrack, nft
from agents.network.driver import Faults, Touched
from agents.network.firewall_base import TABLE
from agents.network.firewall_rules import KNOWN, ruleset, unusable
from agents.network.namespace import Namespace, sysctl
from agents.network.nft import NftRefused
from agents.network.rules_watch import RulesWatch
from agents.network.ruleset import Place, Ruleset, both, plan, read
from agents.network.switch import CannotWire, bridge_name
from agents.network.world import World
from schema.network.wiring import Member, Members, Piece, WiredGroup, WiredNetwork, WiredPort

log = structlog.get_logger()

_ZONES = 65535


class Firewall:
    """A component of the Linux bridge driver; before the switch, so that a port's rules are there before its tap."""

    def __init__(
        self,
        namespace: Namespace,
        bridge_of: Callable[[WiredNetwork], str] = lambda network: bridge_name(network.id),
    ) -> None:
        """`bridge_of` is the switch's: the interface name of a network's bridge here. It may raise CannotWire."""
        self._namespace = namespace
        self._bridge_of = bridge_of
        self.commands = ""
        """Of the last transaction, for who wants to look."""
        self._seen: Ruleset | None = None
        self._generation = -1
        self._world: World | None = None
        self._cuts = False
        """Connections are cut that may be allowed again."""
        self._faults: Faults = {}
        self._watch: RulesWatch | None = None

    async def start(self, on_change: Callable[[], None]) -> None:
        """From now on tell when somebody else changed our table; in the event loop's own thread. Raises OSError."""
        self._watch = await RulesWatch.open(self._namespace, TABLE, lambda: self._generation, on_change)

    async def apply(self, world: World, touched: Touched) -> Faults:
        try:
            return await self._namespace.run(self._bring, world)
        except (NftRefused, OSError) as error:
            text = f"the firewall could not be brought up to date: {error}"
            log.warning("firewall not changed", error=str(error))
            blamed = world.pieces if touched is None else touched
            return {key: text for key in blamed if isinstance(world.pieces.get(key), WiredPort | WiredGroup)}

    async def counters(self) -> dict[str, int]:
        """Frames dropped since the table was made, by why: `spoofed-mac`, `rogue-dhcp`, …"""
        return await self._namespace.run(_counters)

    async def close(self) -> None:
        """The rules stay."""
        if self._watch:
            await self._watch.close()
            self._watch = None

    def _bring(self, world: World) -> Faults:
        if not self._in_place(world):
            self._change(world)
        _have_bridged_traffic_seen()
        return self._faults

    def _change(self, world: World) -> None:
        before, (seen, unsure) = self._world, self._look()
        zones_before = set(_zones_of(seen).values())
        faults = unusable(world)
        try:
            changed, done = self._commit(world, seen), world
        except NftRefused as error:
            log.warning("the kernel refused the firewall's rules", error=str(error))
            done, refused = self._commit_what_goes(world)
            changed, faults = True, faults | refused
        self._world, self._faults = done, faults
        if (changed and unsure) or revoked(before, done) or self._cuts or before is None:
            self._cut(done, zones_before)

    def _in_place(self, world: World) -> bool:
        return (
            self._world is not None
            and self._seen is not None
            and not self._seen.sets[Place("bridge", "sealed")].items
            and self._world.pieces == world.pieces
            and nft.generation() == self._generation
        )

    def _look(self) -> tuple[Ruleset, bool]:
        """What the kernel has, and whether that is not what we last left there."""
        generation = nft.generation()
        if self._seen is not None and generation == self._generation:
            return self._seen, False
        left, self._generation = self._seen, generation
        self._seen = both(*(read(family, nft.listed(family, TABLE)) for family in ("bridge", "inet")))
        return self._seen, left is None or bool(plan(left, self._seen, TABLE))

    def _commit(self, world: World, seen: Ruleset, sealed: Iterable[str] = ()) -> bool:
        """In one transaction; whether there was anything to do. Raises NftRefused, and then nothing has changed."""
        zones = assign(self._bridges(world).values(), _zones_of(seen))
        try:
            wanted = ruleset(world, zones, [*_left_behind(world, seen), *sealed])
        except ValueError as error:  # what is no address, for instance
            raise NftRefused(str(error)) from error
        commands = plan(wanted, seen, TABLE)
        if commands:
            nft.apply(commands)
            self.commands = commands
            self._generation += 1
        self._seen = wanted
        return bool(commands)

    def _commit_what_goes(self, world: World) -> tuple[World, Faults]:
        """Find what the kernel refuses, do the rest, and let nothing pass at ports that are left out.

        Raises NftRefused when nothing goes at all.
        """
        good = dict(self._world.pieces) if self._world else {}
        faults: Faults = {}

        def offer(keys: list[str]) -> None:
            nonlocal good
            pieces = {key: piece for key, piece in good.items() if key not in keys}
            pieces |= {key: world.pieces[key] for key in keys if key in world.pieces}
            try:
                self._commit(World(pieces), self._look()[0], _taps(world) - _taps(World(pieces)))
            except NftRefused as refusal:
                if len(keys) == 1:
                    faults[keys[0]] = f"the kernel refuses its rules: {refusal}"
                    return
                middle = len(keys) // 2
                offer(keys[:middle])
                offer(keys[middle:])
            else:
                good = pieces

        self._commit(World(good), self._look()[0], _taps(world) - _taps(World(good)))
        before = self._world.pieces if self._world else {}
        offer(sorted(key for key in before.keys() | world.pieces.keys() if before.get(key) != world.pieces.get(key)))
        return World(good), faults

    def _cut(self, world: World, before: set[int]) -> None:
        zones = _zones_of(self._seen or Ruleset())
        judge = conntrack.Judge(world, {id: zones[it] for id, it in self._bridges(world).items() if it in zones})
        cut = conntrack.cut(before | set(zones.values()), judge.fate)
        self._cuts = cut.all > 0
        if cut.new:
            log.info("connections cut", count=cut.new)

    def _bridges(self, world: World) -> dict[str, str]:
        """Network → its bridge, of those that can be had here."""
        found: dict[str, str] = {}
        for network in world.networks.values():
            try:
                found[network.id] = self._bridge_of(network)
            except CannotWire:
                continue  # the switch tells
        return found


def assign(bridges: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """A conntrack zone for each bridge, none twice; who has one keeps it."""
    wanted = sorted(set(bridges))
    zones = {bridge: before[bridge] for bridge in wanted if bridge in before}
    taken = set(before.values())
    for bridge in wanted:
        if bridge not in zones:
            zone = zlib.crc32(bridge.encode()) % _ZONES + 1
            while zone in taken:
                zone = zone % _ZONES + 1
            zones[bridge] = zone
            taken.add(zone)
    return zones


def revoked(before: World | None, after: World) -> bool:
    """Something that was allowed may not be any more."""
    if before is None or before is after:
        return False
    return any(
        after.pieces.get(key) is not piece and _lost(piece, after.pieces.get(key))
        for key, piece in before.pieces.items()
    )


def _lost(before: Piece, after: Piece | None) -> bool:
    match before:
        case WiredGroup():
            rules = set(after.rules) if isinstance(after, WiredGroup) and after.stateful == before.stateful else set()
            return not set(before.rules) <= rules
        case Members():
            return not set(before.addresses) <= set(after.addresses if isinstance(after, Members) else ())
        case Member():
            return after is None
        case WiredPort():
            return (
                not isinstance(after, WiredPort)
                or (after.secured and not before.secured)
                or after.network_id != before.network_id
                or not set(before.group_ids) <= set(after.group_ids)
                or not set(before.addresses) <= set(after.addresses)
                or not set(before.address_pairs) <= set(after.address_pairs)
            )
    return False


def _zones_of(seen: Ruleset) -> dict[str, int]:
    zones = seen.sets.get(Place("inet", "zones"))
    return {bridge: int(zone) for bridge, zone in zones.items.items()} if zones else {}


def _left_behind(world: World, seen: Ruleset) -> list[str]:
    """Taps the kernel still has and we had rules for, of ports that are gone."""
    taps = {port.tap for port in world.ports.values()}
    known = {tap for place in KNOWN if place in seen.sets for tap in seen.sets[place].items}
    return [tap for tap in known - taps if _exists(tap)]


def _taps(world: World) -> set[str]:
    return {port.tap for port in world.ports.values() if not port.parent_id}


def _exists(interface: str) -> bool:
    try:
        return socket.if_nametoindex(interface) > 0
    except OSError:
        return False


def _have_bridged_traffic_seen() -> None:
    """Have frames on bridges pass the hooks of IP, where connections are tracked."""
    try:
        for protocol in ("iptables", "ip6tables"):
            sysctl(f"net/bridge/bridge-nf-call-{protocol}", 1)
    except FileNotFoundError as error:
        raise NftRefused("the kernel module br_netfilter is not loaded on this host: modprobe br_netfilter") from error


def _counters() -> dict[str, int]:
    listing = nft.listed("bridge", TABLE) or []
    return {it["counter"]["name"]: it["counter"]["packets"] for it in listing if "counter" in it}
