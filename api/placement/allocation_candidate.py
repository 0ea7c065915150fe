"""Allocation candidates: the ways in which what is asked could be given, and what the providers in them look like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from api.placement.refusal import SHOWN_CHARACTERS, wrong_query
from api.placement.words import (
    BAD_VALUE,
    DUPLICATE_KEY,
    IN_RESOURCES,
    MISSING_VALUE,
    aggregates,
    answered,
    must_know_classes,
    must_know_traits,
    plain_traits,
    resources,
    traits,
    tree,
)
from api.wire import Call, Get, Reply
from handlers.placement.forest import forest
from handlers.placement.search import Candidate, Group, Search, search
from schema.placement.provider import Provider
from schema.refusal import Invalid


class CandidatesQuery(Struct, frozen=True):
    """For the description, without the parameters of named groups (`resources_A`); `asked` reads them all."""

    resources: str | None = None
    required: list[str] = []
    member_of: list[str] = []
    in_tree: str | None = None
    group_policy: str | None = None
    limit: str | None = None
    root_required: str | None = None
    same_subtree: list[str] = []


_SINCE = {
    "resources": (1, 10),
    "limit": (1, 16),
    "required": (1, 17),
    "member_of": (1, 21),
    "group_policy": (1, 25),
    "in_tree": (1, 31),
    "root_required": (1, 35),
    "same_subtree": (1, 36),
}
_GROUP_KEYS = re.compile(r"(resources|required|member_of|in_tree)(.*)", re.DOTALL)
_NUMBER = re.compile(r"[1-9][0-9]*")
_SUFFIX = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KEYS_SINCE_GRANULAR = {"resources": (1, 25), "required": (1, 25), "member_of": (1, 25), "in_tree": (1, 31)}


async def index(call: Call) -> Reply:
    wanted = asked(call)
    trees = forest(call.cloud)
    found = search(trees, wanted)
    shown = dict.fromkeys(id for candidate in found for id in candidate.allocations)
    summarized = trees.in_trees(shown) if call.version >= (1, 29) else [trees.providers[id] for id in shown]
    classes = {name for group in wanted.groups for name in group.resources}
    body = {
        "allocation_requests": [_request(call, candidate) for candidate in found],
        "provider_summaries": {it.id: _summary(call, it, classes) for it in summarized},
    }
    return answered(call, body)


def asked(call: Call) -> Search:
    """The query string as a search. Raises Invalid."""
    groups = _groups(call)
    limit, policy = call.query.get("limit"), call.query.get("group_policy")
    root_required, root_forbidden = _root(call)
    subtrees = _same_subtree(call)
    if call.version >= (1, 36):
        _check_resourceless(groups, subtrees)
    else:
        _check_orphans(groups)
    if call.version >= (1, 22):
        _check_conflicts(groups)
    if policy is None and sum(1 for group in groups if group.suffix) > 1:
        raise Invalid(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.'
        )
    must_know_classes(call, (name for group in groups for name in group.resources), IN_RESOURCES)
    must_know_traits(call, root_required.union(root_forbidden, *(group.traits for group in groups)))
    return Search(
        groups=groups,
        isolate=policy == "isolate",
        root_required=root_required,
        root_forbidden=root_forbidden,
        same_subtree=subtrees,
        nested=call.version >= (1, 29),
        limit=int(limit) if limit else None,
    )


def _groups(call: Call) -> tuple[Group, ...]:
    """What is asked of each group. Raises Invalid for parameters that are not known (yet)."""
    suffixes: dict[str, None] = {}
    for name in call.query:
        suffixes.update(dict.fromkeys(_suffix_of(call, name)))
    limit, policy = call.query.get("limit"), call.query.get("group_policy")
    if limit is not None and not _NUMBER.fullmatch(limit):
        raise wrong_query(f"{limit!r} does not match '^[1-9][0-9]*$'", "pattern")
    if policy not in {None, "none", "isolate"}:
        raise wrong_query(f"{policy!r} is not one of ['none', 'isolate']", "enum")
    if call.version < (1, 25) and "resources" not in call.query:
        raise wrong_query("'resources' is a required property", "required")
    return tuple(_group(call, suffix) for suffix in suffixes)


def _suffix_of(call: Call, name: str) -> tuple[str, ...]:
    """The group a parameter belongs to; none for those about the whole. Raises Invalid for what is not known (yet)."""
    since = _SINCE.get(name)
    if since is not None and call.version >= since:
        return ("",) if name in _KEYS_SINCE_GRANULAR else ()
    match = _GROUP_KEYS.fullmatch(name)
    form = _SUFFIX if call.version >= (1, 33) else _NUMBER
    if since is None and match and call.version >= _KEYS_SINCE_GRANULAR[match[1]] and form.fullmatch(match[2]):
        return (match[2],)
    shown = repr(name[:SHOWN_CHARACTERS])
    if call.version >= (1, 25):
        keys = "', '".join(f"^{key}({form.pattern})?$" for key in sorted(_KEYS_SINCE_GRANULAR))
        words = f"{shown} does not match any of the regexes: '{keys}'"
    else:
        words = f"Additional properties are not allowed ({shown} was unexpected)"
    raise wrong_query(words, "additionalProperties")


def _group(call: Call, suffix: str) -> Group:
    query = call.query
    keys = {key: f"{key}{suffix}" for key in _KEYS_SINCE_GRANULAR}
    required, forbidden = traits(call, query.getall(keys["required"], ()))
    member_of, not_member_of = aggregates(call, query.getall(keys["member_of"], ()), keys["member_of"])
    return Group(
        suffix=suffix,
        resources=resources(query[keys["resources"]]) if keys["resources"] in query else {},
        required=required,
        forbidden=forbidden,
        member_of=member_of,
        not_member_of=not_member_of,
        in_tree=tree(query[keys["in_tree"]]) if keys["in_tree"] in query else None,
    )


def _root(call: Call) -> tuple[frozenset[str], frozenset[str]]:
    """Traits the top of the tree must have and must not have; no `in:` here, whatever the version."""
    texts = call.query.getall("root_required", ())
    if not texts:
        return frozenset(), frozenset()
    if len(texts) > 1:
        raise Invalid("Query parameter 'root_required' may be specified only once.", code=DUPLICATE_KEY)
    required, forbidden = plain_traits(texts[0], forbidding=True)
    conflicts = sorted(forbidden.intersection(required))
    if conflicts:
        raise Invalid(
            f"Conflicting required and forbidden traits found in root_required: {', '.join(conflicts)}", code=BAD_VALUE
        )
    return frozenset(required), frozenset(forbidden)


def _same_subtree(call: Call) -> tuple[frozenset[str], ...]:
    subtrees = []
    for text in call.query.getall("same_subtree", ()):
        suffixes = frozenset(suffix.strip() for suffix in text.split(","))
        if "" in suffixes:
            raise Invalid("Empty string (unsuffixed group) can not be specified in `same_subtree` ", code=BAD_VALUE)
        subtrees.append(suffixes)
    return tuple(subtrees)


def _check_resourceless(groups: Sequence[Group], subtrees: Sequence[frozenset[str]]) -> None:
    """Since 1.36 a group may ask no resources where it says how others lie in a tree."""
    if not any(group.resources for group in groups):
        raise Invalid("There must be at least one resources or resources[$S] parameter.", code=MISSING_VALUE)
    named = frozenset[str]().union(*subtrees)
    bad = [group.suffix for group in groups if not group.resources and group.suffix not in named]
    if bad:
        raise Invalid(
            "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - "
            f"{bad}.",
            code=BAD_VALUE,
        )
    known = [group.suffix for group in groups]
    bad = sorted(named.difference(known))
    if bad:
        raise Invalid(
            f"Real suffixes should be specified in `same_subtree`: {bad} not found in {known}.", code=BAD_VALUE
        )


def _check_orphans(groups: Sequence[Group]) -> None:
    """Before 1.36 every group asks resources."""
    orphans = [f"required{group.suffix}" for group in groups if group.required and not group.resources]
    if orphans:
        raise Invalid(
            "All traits parameters must be associated with resources.  Found the following orphaned traits keys: "
            f"{', '.join(orphans)}"
        )
    orphans = [
        f"member_of{group.suffix}"
        for group in groups
        if not group.resources and (group.member_of or group.not_member_of)
    ]
    if orphans:
        raise Invalid(
            "All member_of parameters must be associated with resources. Found the following orphaned member_of keys: "
            f"{', '.join(orphans)}"
        )
    if not all(group.resources for group in groups):
        raise Invalid("All request groups must specify resources.")
    if not groups:
        raise Invalid("At least one request group (`resources` or `resources{$S}`) is required.")


def _check_conflicts(groups: Sequence[Group]) -> None:
    conflicts = sorted(
        f"required{group.suffix}: ({', '.join(sorted(any_of))})"
        for group in groups
        for any_of in group.required
        if any_of <= group.forbidden
    )
    if conflicts:
        raise Invalid(
            f"Conflicting required and forbidden traits found in the following traits keys: {', '.join(conflicts)}"
        )


def _request(call: Call, candidate: Candidate) -> dict[str, Any]:
    if call.version < (1, 12):
        return {
            "allocations": [
                {"resource_provider": {"uuid": id}, "resources": it} for id, it in candidate.allocations.items()
            ]
        }
    body: dict[str, Any] = {"allocations": {id: {"resources": it} for id, it in candidate.allocations.items()}}
    if call.version >= (1, 34):
        body["mappings"] = {suffix: list(ids) for suffix, ids in candidate.mappings.items()}
    return body


def _summary(call: Call, provider: Provider, classes: set[str]) -> dict[str, Any]:
    """What a provider has; before 1.27 only of the classes that were asked for."""
    body: dict[str, Any] = {
        "resources": {
            name: {"capacity": inventory.capacity, "used": provider.used.get(name, 0)}
            for name, inventory in provider.inventories.items()
            if name in classes or call.version >= (1, 27)
        }
    }
    if call.version >= (1, 17):
        body["traits"] = list(provider.traits)
    if call.version >= (1, 29):
        body["parent_provider_uuid"] = provider.parent_id
        body["root_provider_uuid"] = provider.root_id
    return body


routes = [
    Get(
        "/allocation_candidates",
        index,
        may="placement:allocation_candidates:list",
        query=CandidatesQuery,
        since="1.10",
    )
]
