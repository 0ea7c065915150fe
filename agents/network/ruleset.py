"""nftables rulesets as data: what should be there, what is there, and one transaction from the one to the other.

A rule carries a digest of itself as its comment, so what the kernel lists needs no translation back: a chain is as it
should be when the digests are. Elements of sets and maps are compared one by one, and changed one by one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

_COMMENT_BYTES = 120


class Place(NamedTuple):
    """Of a chain or a set, in the table that is ours."""

    family: str
    name: str


class Hook(msgspec.Struct, frozen=True):
    """Where a base chain is called from."""

    name: str
    priority: int
    type: str = "filter"
    policy: str = "accept"

    def __str__(self) -> str:
        return f"type {self.type} hook {self.name} priority {self.priority}; policy {self.policy};"


class Chain(msgspec.Struct, frozen=True):
    hook: Hook | None = None
    digests: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """What the digests stand for; not known of what the kernel listed."""


class Elements(msgspec.Struct, frozen=True):
    """A set, or a map: each key with its value, both as text; a set's values are empty."""

    type: str
    """As nft writes it: `type ifname : verdict`, `typeof iifname . ip saddr`."""
    items: Mapping[str, str] = msgspec.field(default_factory=dict)
    flags: str = ""
    kind: str = "set"

    @property
    def spec(self) -> tuple[str, str, bool]:
        """What cannot be changed once it is there, as far as a listing tells it."""
        return (self.kind, self.flags, " . " in self.type)


class Ruleset(msgspec.Struct, frozen=True):
    chains: Mapping[Place, Chain] = msgspec.field(default_factory=dict)
    sets: Mapping[Place, Elements] = msgspec.field(default_factory=dict)
    counters: frozenset[Place] = frozenset()


def chain(rules: Iterable[str], hook: Hook | None = None) -> Chain:
    """A rule may have a comment of its own after ` # `."""
    texts, digests = [], []
    for rule in rules:
        text, _, note = rule.partition(" # ")
        digest = f"{zlib.crc32(text.encode()):08x}"
        comment = f"{digest} {note}"[:_COMMENT_BYTES] if note else digest
        texts.append(f'{text} comment "{comment}"')
        digests.append(digest)
    return Chain(hook, tuple(digests), tuple(texts))


def named_set(type: str, items: Iterable[str], flags: str = "") -> Elements:
    return Elements(f"type {type}", dict.fromkeys(items, ""), flags)


def named_map(type: str, items: Mapping[str, str]) -> Elements:
    return Elements(f"type {type}", dict(items), "", "map")


def plan(wanted: Ruleset, seen: Ruleset, table: str) -> str:
    """The commands of one transaction; empty: nothing to do."""
    families = {it.family for it in wanted.chains} - {it.family for it in seen.chains}
    lines = [f"add table {family} {table}" for family in sorted(families)]
    last: list[str] = []
    lines += [f"add counter {_at(it, table)}" for it in sorted(wanted.counters - seen.counters)]
    renewed = {it for it, chain in wanted.chains.items() if it in seen.chains and seen.chains[it].hook != chain.hook}
    remade = {it for it, items in wanted.sets.items() if it in seen.sets and seen.sets[it].spec != items.spec}
    if renewed or remade:
        return _afresh(wanted, seen, table)
    for place, items in wanted.sets.items():
        if place not in seen.sets:
            flags = f" flags {items.flags};" if items.flags else ""
            lines.append(f"add {items.kind} {_at(place, table)} {{ {items.type};{flags} }}")
    for place, chain in wanted.chains.items():
        if place not in seen.chains:
            hook = f" {{ {chain.hook} }}" if chain.hook else ""
            lines.append(f"add chain {_at(place, table)}{hook}")
    for place, chain in wanted.chains.items():
        before = seen.chains.get(place)
        if before is None or before.digests != chain.digests:
            if before is not None and before.digests:
                lines.append(f"flush chain {_at(place, table)}")
            lines += [f"add rule {_at(place, table)} {rule}" for rule in chain.rules]
    for place, items in wanted.sets.items():
        before_items = seen.sets[place].items if place in seen.sets else {}
        gone = [key for key, value in before_items.items() if items.items.get(key) != value]
        new = {key: value for key, value in items.items.items() if before_items.get(key) != value}
        if gone:
            lines.append(f"delete element {_at(place, table)} {{ {', '.join(gone)} }}")
        if new:
            lines.append(f"add element {_at(place, table)} {{ {', '.join(_item(*it) for it in new.items())} }}")
    for place in seen.chains.keys() - wanted.chains.keys():
        lines.append(f"flush chain {_at(place, table)}")
        last.append(f"delete chain {_at(place, table)}")
    for place, items in seen.sets.items():
        if place not in wanted.sets:
            if items.kind == "map" and items.items:
                lines.append(f"flush map {_at(place, table)}")
            last.append(f"delete {items.kind} {_at(place, table)}")
    return "\n".join(lines + last)


def read(family: str, listing: Iterable[Mapping[str, Any]] | None) -> Ruleset:
    """What libnftables listed of our table of a family (None: it is not there)."""
    hooks: dict[Place, Hook | None] = {}
    digests: dict[Place, list[str]] = {}
    sets: dict[Place, Elements] = {}
    counters: set[Place] = set()
    for entry in listing or ():
        for kind, it in entry.items():
            match kind:
                case "chain":
                    place = Place(family, it["name"])
                    hooks[place] = Hook(it["hook"], it["prio"], it["type"], it["policy"]) if "hook" in it else None
                    digests.setdefault(place, [])
                case "rule":
                    digests.setdefault(Place(family, it["chain"]), []).append(it.get("comment", "none")[:8])
                case "set" | "map":
                    sets[Place(family, it["name"])] = _elements(kind, it)
                case "counter":
                    counters.add(Place(family, it["name"]))
    chains = {place: Chain(hook, tuple(digests[place])) for place, hook in hooks.items()}
    return Ruleset(chains, sets, frozenset(counters))


def both(one: Ruleset, other: Ruleset) -> Ruleset:
    return Ruleset({**one.chains, **other.chains}, {**one.sets, **other.sets}, one.counters | other.counters)


def _afresh(wanted: Ruleset, seen: Ruleset, table: str) -> str:
    """What cannot be mended piece by piece is thrown away and made anew, in the same transaction."""
    families = sorted({it.family for it in seen.chains} | {it.family for it in seen.sets})
    removed = [f"delete table {family} {table}" for family in families]
    return "\n".join([*removed, plan(wanted, Ruleset(), table)])


def _at(place: Place, table: str) -> str:
    return f"{place.family} {table} {place.name}"


def _item(key: str, value: str) -> str:
    return f"{key} : {value}" if value else key


def _elements(kind: str, fields: Mapping[str, Any]) -> Elements:
    key = fields["type"]
    flags = ", ".join(sorted(fields.get("flags", ())))
    items: dict[str, str] = {}
    for element in fields.get("elem", ()):
        if kind == "map":
            items[_text(element[0])] = _text(element[1])
        else:
            items[_text(element)] = ""
    return Elements(" . ".join(key) if isinstance(key, list) else str(key), items, flags, kind)


def _text(value: Any) -> str:
    """An element as nft writes it, from libnftables' JSON."""
    match value:
        case {"elem": {"val": inner}}:
            return _text(inner)
        case {"concat": parts}:
            return " . ".join(_text(it) for it in parts)
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{first}-{last}"
        case {"goto": {"target": target}}:
            return f"goto {target}"
        case {"jump": {"target": target}}:
            return f"jump {target}"
        case {"accept": None}:
            return "accept"
        case {"drop": None}:
            return "drop"
    return str(value)
