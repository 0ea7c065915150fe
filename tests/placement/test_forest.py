"""The forest follows every change of a provider, and leaves out no tree that has an answer."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.placement.forest import SHARING_TRAIT, Forest
from handlers.placement.search import Group, Search, search
from schema.placement.provider import Inventory, Provider

IDS = ("a", "b", "c", "d", "e", "f")
CLASSES = ("VCPU", "DISK_GB")
TRAITS = ("FAST", SHARING_TRAIT)
AGGREGATES = ("left", "right")

amounts = st.dictionaries(st.sampled_from(CLASSES), st.integers(0, 4))
some_traits = st.sets(st.sampled_from(TRAITS)).map(sorted).map(tuple)
some_aggregates = st.sets(st.sampled_from(AGGREGATES)).map(sorted).map(tuple)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("room"), st.sampled_from(IDS), amounts),
        st.tuples(st.just("used"), st.sampled_from(IDS), amounts),
        st.tuples(st.just("traits"), st.sampled_from(IDS), some_traits),
        st.tuples(st.just("aggregates"), st.sampled_from(IDS), some_aggregates),
        st.tuples(st.just("under"), st.sampled_from(IDS), st.sampled_from((None, *IDS))),
        st.tuples(st.just("gone"), st.sampled_from(IDS), st.none()),
    ),
    max_size=30,
)


def grown(history):
    """A forest after all of it, and its providers as they are now."""
    forest, now = Forest(), {}
    for what, id, value in history:
        before = now.get(id)
        after = _changed(now, before or Provider(id=id, root_id=id), what, value)
        if after is None and before is None:
            continue
        forest.put(before, after)
        now.pop(id, None)
        if after is not None:
            now[id] = after
    return forest, now


def _changed(now, provider, what, value):
    parents = {it.parent_id for it in now.values()}
    match what:
        case "room":
            return replace(provider, inventories={name: Inventory(total=amount) for name, amount in value.items()})
        case "used":
            return replace(provider, used=value)
        case "traits":
            return replace(provider, traits=value)
        case "aggregates":
            return replace(provider, aggregates=value)
        case "under":  # leaves move, below what has no parent itself
            top = now.get(value)
            if provider.id in parents:
                return provider
            if top is None or top.parent_id is not None or top.id == provider.id:
                return replace(provider, parent_id=None, root_id=provider.id)
            return replace(provider, parent_id=top.id, root_id=top.id)
    return provider if provider.id in parents else None


def columns(forest):
    marks = {
        name: {key: set(roots) for key, roots in getattr(forest, name).items() if roots}
        for name in ("traits", "aggregates")
    }
    most = {name: roots for name, roots in forest.most.items() if roots}
    return forest.providers, forest.trees, forest.sharing, most, marks


@given(changes)
@settings(deadline=None, max_examples=300)
def test_a_forest_that_followed_equals_one_made_anew(history):
    forest, now = grown(history)
    assert columns(forest) == columns(Forest(now.values()))


@given(changes, st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 4), min_size=1), some_traits)
@settings(deadline=None, max_examples=300)
def test_every_way_to_give_it_is_found(history, resources, required):
    forest, now = grown(history)
    wanted = Group(resources=resources, required=tuple(frozenset({trait}) for trait in required))
    found = search(forest, Search(groups=(wanted,)))
    assert {frozenset(_who_gives(it.allocations)) for it in found} == _all_ways(now, resources, set(required))


def _who_gives(allocations):
    return {(name, id) for id, resources in allocations.items() for name in resources}


def _all_ways(now, resources, required):
    """By trying everybody with everybody."""
    ways = set()
    for root in {it.root_id for it in now.values()} & set(now):
        tree = [it for it in now.values() if it.root_id == root]
        near = {aggregate for it in tree for aggregate in it.aggregates}
        reach = tree + [
            it for it in now.values() if it.root_id != root and SHARING_TRAIT in it.traits and near & set(it.aggregates)
        ]
        for chosen in product(reach, repeat=len(resources)):
            gives = zip(chosen, resources.items(), strict=True)
            if all(name in it.inventories and it.free(name) >= amount for it, (name, amount) in gives) and (
                required <= {trait for it in chosen for trait in it.traits}
            ):
                ways.add(frozenset((name, it.id) for it, name in zip(chosen, resources, strict=True)))
    return ways
