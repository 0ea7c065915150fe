"""The search for allocation candidates: which providers could together give what a request asks, and how.

A request has groups. What the group without a name asks may come from several providers of one tree, and from providers
that share with it through an aggregate; what a named group asks comes from one provider. Every candidate lies in one
tree and what shares with it. Pure: it works on the states it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from msgspec import Struct, field

from handlers.placement.forest import Forest
from schema.placement.provider import Provider, Resources

COMBINATIONS = 100_000
"""Combinations tried in one tree, at most."""

Providers = Mapping[str, Provider]


class Group(Struct, frozen=True, kw_only=True):
    """What is asked of one provider (or, without a suffix, of a tree)."""

    suffix: str = ""
    resources: Resources = field(default_factory=dict)
    required: tuple[frozenset[str], ...] = ()
    """Traits; of each set one at least."""
    forbidden: frozenset[str] = frozenset()
    member_of: tuple[frozenset[str], ...] = ()
    """Aggregates; of each set one at least."""
    not_member_of: frozenset[str] = frozenset()
    in_tree: str | None = None
    """Only the tree this provider is in."""

    @property
    def traits(self) -> frozenset[str]:
        """All that it names."""
        return self.forbidden.union(*self.required)


class Search(Struct, frozen=True, kw_only=True):
    groups: tuple[Group, ...]
    isolate: bool = False
    """Named groups come from different providers."""
    root_required: frozenset[str] = frozenset()
    root_forbidden: frozenset[str] = frozenset()
    same_subtree: tuple[frozenset[str], ...] = ()
    """Suffixes of groups whose providers must have one of them above all the others."""
    nested: bool = True
    """Clients before 1.29 see only candidates that use no more than one provider of each tree."""
    limit: int | None = None


class Option(Struct, frozen=True):
    """One way to satisfy one group: provider → resources."""

    allocations: dict[str, Resources]


class Candidate(Struct, frozen=True):
    """One way to satisfy the request. `mappings`: suffix → the providers that satisfy that group."""

    allocations: dict[str, Resources]
    mappings: dict[str, tuple[str, ...]]


def matching(forest: Forest, group: Group) -> list[Provider]:
    """Providers that satisfy a group on their own; what GET /resource_providers lists."""
    return [it for it in _in_tree(forest, forest.providers.values(), group) if _satisfies(it, group)]


def search(forest: Forest, wanted: Search) -> list[Candidate]:
    """Every candidate, no two the same, up to the limit."""
    found: list[Candidate] = []
    seen: set[frozenset[tuple[str, frozenset[tuple[str, int]]]]] = set()
    for root_id in _roots(forest, wanted):
        tree, root = forest.trees[root_id], forest.providers.get(root_id)
        if root is None or not _root_fits(root, wanted):
            continue
        for candidate in _in_one_tree(forest, [*tree.values(), *forest.sharing_with(tree)], wanted):
            key = frozenset((id, frozenset(resources.items())) for id, resources in candidate.allocations.items())
            mark = key if len(candidate.mappings) < 2 else key | _marks(candidate.mappings)
            if mark not in seen:
                seen.add(mark)
                found.append(candidate)
                if wanted.limit is not None and len(found) >= wanted.limit:
                    return found
    return found


def _roots(forest: Forest, wanted: Search) -> Iterator[str]:
    """The trees that may have an answer, in the order of the rarest of what is asked.

    What some provider shares may come to any tree, so it rules none out.
    """
    shared = {name for it in forest.sharing.values() for name in it.inventories}
    marks = {mark for it in forest.sharing.values() for mark in (*it.traits, *it.aggregates)}
    marks |= {it for shares in forest.sharing.values() for it in forest.providers[shares.root_id].aggregates}
    room: list[tuple[Mapping[str, int], int]] = []
    among: list[Mapping[str, object]] = [forest.trees]
    for group in wanted.groups:
        for name, amount in group.resources.items():
            if name not in shared:
                room.append((forest.most.get(name, {}), amount))
        among += (forest.traits.get(it, {}) for one in group.required if len(one) == 1 for it in one - marks)
        among += (forest.aggregates.get(it, {}) for one in group.member_of if len(one) == 1 for it in one - marks)
        anchor = forest.providers.get(group.in_tree) if group.in_tree is not None else None
        if anchor is not None and not any(it.root_id == anchor.root_id for it in forest.sharing.values()):
            among.append({anchor.root_id: None})
    among += (forest.traits.get(trait, {}) for trait in wanted.root_required)
    few = min((*among, *(most for most, _ in room)), key=len)
    for root in few:
        if all(root in them for them in among) and all(most.get(root, -1) >= amount for most, amount in room):
            yield root


def _in_one_tree(forest: Forest, reach: Sequence[Provider], wanted: Search) -> Iterator[Candidate]:
    """The candidates of one tree and what shares with it."""
    options: list[list[Option]] = []
    for group in wanted.groups:
        near = _in_tree(forest, reach, group)
        one = list(_named(near, group) if group.suffix else _unnamed(forest.providers, near, group))
        if not one:
            return
        options.append(one)
    tried = 0
    for chosen in product(*options):
        tried += 1
        if tried > COMBINATIONS:
            return
        if wanted.isolate and not _isolated(wanted.groups, chosen):
            continue
        if not wanted.nested and not _flat(forest.providers, chosen):
            continue
        allocations = _together(chosen)
        if len(chosen) > 1 and not all(_fits(forest.providers[id], it) for id, it in allocations.items()):
            continue
        mappings = {g.suffix: tuple(o.allocations) for g, o in zip(wanted.groups, chosen, strict=True)}
        if all(_one_subtree(forest, suffixes, mappings) for suffixes in wanted.same_subtree):
            yield Candidate({id: it for id, it in allocations.items() if it}, mappings)


def _named(near: Iterable[Provider], group: Group) -> Iterator[Option]:
    """One provider gives it all."""
    for provider in near:
        if _satisfies(provider, group):
            yield Option({provider.id: group.resources})


def _unnamed(providers: Providers, near: Sequence[Provider], group: Group) -> Iterator[Option]:
    """Each resource class from one provider of the tree, traits from all of those taken together."""
    pools: list[list[Provider]] = []
    for name, amount in group.resources.items():
        pool = [
            it
            for it in near
            if _gives(it, name, amount)
            and not group.forbidden & set(it.traits)
            and _member(it, providers.get(it.root_id), group)
        ]
        if not pool:
            return
        pools.append(pool)
    for tried, chosen in enumerate(product(*pools)):
        if tried >= COMBINATIONS:
            return
        traits = {trait for it in chosen for trait in it.traits}
        if all(any_of & traits for any_of in group.required):
            allocations: dict[str, Resources] = {}
            for provider, (name, amount) in zip(chosen, group.resources.items(), strict=True):
                allocations.setdefault(provider.id, {})[name] = amount
            yield Option(allocations)


def _satisfies(provider: Provider, group: Group) -> bool:
    traits = set(provider.traits)
    return (
        _fits(provider, group.resources)
        and not group.forbidden & traits
        and all(any_of & traits for any_of in group.required)
        and _member(provider, None, group)
    )


def _member(provider: Provider, root: Provider | None, group: Group) -> bool:
    """A root's aggregates count for its whole tree where the group has no name."""
    if not group.member_of and not group.not_member_of:
        return True
    mine = {*provider.aggregates, *(root.aggregates if root is not None else ())}
    return all(any_of & mine for any_of in group.member_of) and not group.not_member_of & mine


def _fits(provider: Provider, resources: Resources) -> bool:
    return all(_gives(provider, name, amount) for name, amount in resources.items())


def _gives(provider: Provider, name: str, amount: int) -> bool:
    inventory = provider.inventories.get(name)
    return inventory is not None and inventory.fits(amount) and provider.free(name) >= amount


def _in_tree(forest: Forest, near: Iterable[Provider], group: Group) -> list[Provider]:
    if group.in_tree is None:
        return list(near)
    anchor = forest.providers.get(group.in_tree)
    return [it for it in near if anchor is not None and it.root_id == anchor.root_id]


def _root_fits(root: Provider, wanted: Search) -> bool:
    traits = set(root.traits)
    return wanted.root_required <= traits and not wanted.root_forbidden & traits


def _isolated(groups: Sequence[Group], chosen: Sequence[Option]) -> bool:
    taken = [next(iter(option.allocations)) for group, option in zip(groups, chosen, strict=True) if group.suffix]
    return len(set(taken)) == len(taken)


def _flat(providers: Providers, chosen: Sequence[Option]) -> bool:
    roots = [providers[id].root_id for id in {id for option in chosen for id in option.allocations}]
    return len(set(roots)) == len(roots)


def _together(chosen: Sequence[Option]) -> dict[str, Resources]:
    if len(chosen) == 1:
        return chosen[0].allocations
    sums: dict[str, Resources] = {}
    for option in chosen:
        for id, resources in option.allocations.items():
            into = sums.setdefault(id, {})
            for name, amount in resources.items():
                into[name] = into.get(name, 0) + amount
    return sums


def _one_subtree(forest: Forest, suffixes: frozenset[str], mappings: Mapping[str, tuple[str, ...]]) -> bool:
    """One of the providers stands above (or is) each of the others."""
    taken = {id for suffix in suffixes for id in mappings.get(suffix, ())}
    return any(all(top in forest.line(id) for id in taken) for top in taken)


def _marks(mappings: Mapping[str, tuple[str, ...]]) -> frozenset[tuple[str, frozenset[tuple[str, int]]]]:
    return frozenset((f"{suffix}/{id}", frozenset[tuple[str, int]]()) for suffix, ids in mappings.items() for id in ids)
