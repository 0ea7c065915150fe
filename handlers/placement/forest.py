"""Every provider in its tree, and which trees could give what: the memory that the search for candidates works on.

It follows the mirror of providers. For each resource class it knows the most that one provider of each tree could give
to one more claim, for each trait and each aggregate the trees in which some provider has it, and who shares what it
has with other trees. With that a question looks only at trees that may have an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from msgspec import Struct

from bus.cloud import Cloud
from bus.log import Document
from bus.mirror import Mirror
from schema.placement.provider import PROVIDER, Provider

SHARING_TRAIT = "MISC_SHARES_VIA_AGGREGATE"

Tree = dict[str, Provider]


class _Noted(Struct):
    """What the columns say of one tree."""

    classes: frozenset[str] = frozenset()
    traits: frozenset[str] = frozenset()
    aggregates: frozenset[str] = frozenset()


class Forest:
    """All providers. Told of every change; the reader changes nothing."""

    def __init__(self, providers: Iterable[Provider] = ()) -> None:
        self.providers: dict[str, Provider] = {}
        self.trees: dict[str, Tree] = {}
        self.sharing: dict[str, Provider] = {}
        """Those that share what they have with every tree of their aggregates."""
        self.most: dict[str, dict[str, int]] = {}
        """Resource class → root → the most that one provider of the tree has left of it."""
        self.traits: dict[str, dict[str, None]] = {}
        """Trait → roots of the trees in which some provider has it."""
        self.aggregates: dict[str, dict[str, None]] = {}
        self._noted: dict[str, _Noted] = {}
        for provider in providers:
            self.put(None, provider)

    def changed(self, before: Document | None, after: Document | None) -> None:
        """What a mirror tells of a provider."""
        self.put(before.state if before else None, after.state if after else None)

    def put(self, before: Provider | None, after: Provider | None) -> None:
        """A provider is another now, or came, or went."""
        if before is not None and (after is None or before.root_id != after.root_id):
            self._take_out(before)
            before = None
        if after is None:
            return
        self.providers[after.id] = after
        self.trees.setdefault(after.root_id, {})[after.id] = after
        if SHARING_TRAIT in after.traits:
            self.sharing[after.id] = after
        else:
            self.sharing.pop(after.id, None)
        if before is None or before.inventories is not after.inventories or before.used is not after.used:
            self._note_room(after.root_id)
        if before is None or before.traits is not after.traits or before.aggregates is not after.aggregates:
            self._note_marks(after.root_id)

    def in_trees(self, ids: Iterable[str]) -> list[Provider]:
        """Every provider of the trees that these are in."""
        roots = dict.fromkeys(self.providers[id].root_id for id in ids)
        return [it for root in roots for it in self.trees[root].values()]

    def sharing_with(self, tree: Tree) -> list[Provider]:
        """Providers of other trees that share what they have with this one."""
        if not self.sharing:
            return []
        aggregates = {aggregate for it in tree.values() for aggregate in it.aggregates}
        return [it for it in self.sharing.values() if it.id not in tree and not aggregates.isdisjoint(it.aggregates)]

    def line(self, id: str | None) -> set[str]:
        """A provider and everything above it."""
        line: set[str] = set()
        while id is not None and id in self.providers and id not in line:
            line.add(id)
            id = self.providers[id].parent_id
        return line

    def _take_out(self, provider: Provider) -> None:
        del self.providers[provider.id]
        self.sharing.pop(provider.id, None)
        tree = self.trees[provider.root_id]
        del tree[provider.id]
        self._note_room(provider.root_id)
        self._note_marks(provider.root_id)
        if not tree:
            del self.trees[provider.root_id], self._noted[provider.root_id]

    def _note_room(self, root: str) -> None:
        most: dict[str, int] = {}
        for provider in self.trees[root].values():
            for name, inventory in provider.inventories.items():
                free = inventory.capacity - provider.used.get(name, 0)
                if free > most.get(name, -1):
                    most[name] = free
        noted = self._noted.setdefault(root, _Noted())
        for name, amount in most.items():
            self.most.setdefault(name, {})[root] = amount
        if noted.classes != most.keys():
            _forget(self.most, noted.classes - most.keys(), root)
            noted.classes = frozenset(most)

    def _note_marks(self, root: str) -> None:
        noted = self._noted.setdefault(root, _Noted())
        tree = self.trees[root].values()
        traits = frozenset(trait for it in tree for trait in it.traits)
        aggregates = frozenset(aggregate for it in tree for aggregate in it.aggregates)
        _renote(self.traits, noted.traits, traits, root)
        _renote(self.aggregates, noted.aggregates, aggregates, root)
        noted.traits, noted.aggregates = traits, aggregates


def _renote(column: dict[str, dict[str, None]], before: frozenset[str], after: frozenset[str], root: str) -> None:
    for name in after - before:
        column.setdefault(name, {})[root] = None
    _forget(column, before - after, root)


def _forget(column: Mapping[str, dict[str, Any]], names: Iterable[str], root: str) -> None:
    for name in names:
        column[name].pop(root, None)


_of: WeakKeyDictionary[Mirror, Forest] = WeakKeyDictionary()


def forest(cloud: Cloud) -> Forest:
    """The process's forest, over its mirror of providers."""
    mirror = cloud.mirror(PROVIDER)
    found = _of.get(mirror)
    if found is None:
        found = _of[mirror] = Forest()
        mirror.on_change(found.changed)
    return found
