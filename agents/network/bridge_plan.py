"""From what the kernel has to what it should have, link by link and entry by entry; what is right is not touched.

Pure, but for `Seen`, which is kept as the kernel is: dumped once, then told of each step that was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from agents.network.bridge_wanted import Wanted
from agents.network.forwarding import EVERYBODY, Entry, Neighbour
from agents.network.links import Link, PortFlags


class Remove(msgspec.Struct, frozen=True):
    link: Link
    key: str = ""
    """Of the piece that is to blame where a step fails; here and below."""


class Make(msgspec.Struct, frozen=True):
    """It will be down, in no bridge."""

    link: Link
    key: str


class Change(msgspec.Struct, frozen=True):
    """Have it be as `link` says, of which these differ."""

    link: Link
    key: str
    mtu: bool = False
    mac_address: bool = False
    master: bool = False
    flags: bool = False
    up: bool = False


class Forward(msgspec.Struct, frozen=True):
    device: str
    entry: Entry
    key: str


class Unforward(msgspec.Struct, frozen=True):
    device: str
    entry: Entry
    key: str = ""


class Know(msgspec.Struct, frozen=True):
    bridge: str
    neighbour: Neighbour
    key: str


class Forget(msgspec.Struct, frozen=True):
    bridge: str
    neighbour: Neighbour
    key: str = ""


Step = Remove | Make | Change | Forward | Unforward | Know | Forget


class Seen(msgspec.Struct):
    """What the kernel has."""

    links: dict[str, Link] = {}
    entries: dict[str, set[Entry]] = {}
    """By device."""
    neighbours: dict[str, dict[str, str]] = {}
    """Bridge → address → MAC."""

    def note(self, step: Step) -> None:
        """It was done."""
        match step:
            case Remove(link=link):
                self.links.pop(link.name, None)
                self.entries.pop(link.name, None)
                self.neighbours.pop(link.name, None)
                for name, other in self.links.items():
                    if other.master == link.name:
                        self._left(name, "")
            case Make(link=link):
                self.links[link.name] = made(link)
            case Change(link=link):
                before = self.links[link.name]
                if step.master:
                    self._left(link.name, link.master)
                if step.up and not link.up:
                    self.neighbours.pop(link.name, None)
                now = self.links[link.name]
                self.links[link.name] = msgspec.structs.replace(
                    now,
                    mtu=link.mtu if step.mtu else before.mtu,
                    mac_address=link.mac_address if step.mac_address else before.mac_address,
                    flags=link.flags if step.flags else now.flags,
                    up=link.up if step.up else before.up,
                )
            case Forward(device=device, entry=entry):
                if not entry.to:  # a MAC has one entry in a bridge
                    master = self.links[device].master
                    for name, entries in self.entries.items():
                        if name in self.links and self.links[name].master == master:
                            entries -= {it for it in entries if it.mac_address == entry.mac_address and not it.to}
                else:
                    _drop_others(self.entries.get(device, set()), entry)
                self.entries.setdefault(device, set()).add(entry)
            case Unforward(device=device, entry=entry):
                self.entries.get(device, set()).discard(entry)
            case Know(bridge=bridge, neighbour=it):
                self.neighbours.setdefault(bridge, {})[it.ip] = it.mac_address
            case Forget(bridge=bridge, neighbour=it):
                self.neighbours.get(bridge, {}).pop(it.ip, None)

    def _left(self, name: str, master: str) -> None:
        """What goes with a port's place in a bridge."""
        self.links[name] = msgspec.structs.replace(self.links[name], master=master, flags=PortFlags())
        self.entries[name] = {entry for entry in self.entries.get(name, set()) if entry.to}


def plan(of: Iterable[Wanted], seen: Seen, unwanted: Iterable[str]) -> list[Step]:
    """In the order to be done. `unwanted`: names of links that are to go, if they are there."""
    removals = [Remove(seen.links[name]) for name in sorted(set(unwanted)) if name in seen.links]
    makes: list[Make] = []
    changes: list[Step] = []
    entries: list[Step] = []
    leftovers: list[Step] = []
    for it in of:
        for link, key in it.links.values():
            there = seen.links.get(link.name)
            if there is not None and not _can_become(there, link):
                removals.append(Remove(there, key))
                there = None
            if there is None:
                if not link.kind:
                    continue  # not ours to make
                makes.append(Make(link, key))
                there = made(link)
            changes += _change(there, link, key)
            lacking, left = _entries(it, link, there, seen)
            entries += lacking
            leftovers += left
        if it.bridge:
            there_before = it.links[it.bridge][0] not in [step.link for step in makes]
            known = seen.neighbours.get(it.bridge, {}) if there_before else {}
            entries += [
                Know(it.bridge, Neighbour(ip, mac), key)
                for ip, (mac, key) in it.neighbours.items()
                if known.get(ip) != mac
            ]
            leftovers += [Forget(it.bridge, Neighbour(ip, mac)) for ip, mac in known.items() if ip not in it.neighbours]
    return [*removals, *makes, *changes, *entries, *leftovers]


def made(link: Link) -> Link:
    """As it is when it is new."""
    return Link(
        link.name, link.kind, mac_address=link.mac_address, tunnel=link.tunnel, index=link.index, peer=link.peer
    )


def as_wanted(seen: Link, wanted: Link) -> bool:
    return _can_become(seen, wanted) and not _change(seen, wanted, "")


def _can_become(there: Link, link: Link) -> bool:
    """Whether changes will do. What bears a tap's name is taken for one, whoever made it: its guest may be using it."""
    return link.kind in {"", "tun"} or (there.kind == link.kind and there.tunnel == link.tunnel)


def _change(there: Link, link: Link, key: str) -> list[Step]:
    moved = there.master != link.master
    change = Change(
        link,
        key,
        mtu=bool(link.mtu) and there.mtu != link.mtu,
        mac_address=link.kind == "bridge" and there.mac_address != link.mac_address,
        master=moved,
        flags=(PortFlags() if moved else there.flags) != link.flags,
        up=there.up != link.up,
    )
    return [change] if change.mtu or change.mac_address or change.master or change.flags or change.up else []


def _entries(it: Wanted, link: Link, there: Link, seen: Seen) -> tuple[list[Step], list[Step]]:
    """What is to be added, and what is left over afterwards."""
    if not link.kind:
        return [], []  # an operator's interface, and what he said of it
    asked: Mapping[Entry, str] = it.entries.get(link.name, {})
    known = seen.entries.get(link.name, set()) if there.index else set()
    if there.master != link.master:
        known = {entry for entry in known if entry.to}
    lacking = {entry: key for entry, key in asked.items() if entry not in known and not _follows(entry, it, seen)}
    # Of a MAC that gets another entry, the one before goes by that.
    replaced = {(entry.mac_address, bool(entry.to)) for entry in lacking} - {(EVERYBODY, True)}
    return [Forward(link.name, entry, key) for entry, key in lacking.items()], [
        Unforward(link.name, entry)
        for entry in sorted(known - asked.keys())
        if (entry.mac_address, bool(entry.to)) not in replaced and not _follows(entry, it, seen)
    ]


def _follows(entry: Entry, it: Wanted, seen: Seen) -> bool:
    """Whether it is somewhere in the network's bridge, and may be there."""
    if entry.sticks:
        return False
    there = any(entry in seen.entries.get(name, ()) for name in it.links)
    return there and any(entry in entries for entries in it.entries.values())


def _drop_others(entries: set[Entry], entry: Entry) -> None:
    """A MAC leads to one place."""
    if entry.mac_address != EVERYBODY:
        entries -= {it for it in entries if it.to and it.mac_address == entry.mac_address}
