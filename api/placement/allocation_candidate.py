"""Allocation candidates: the ways in which what is asked could be given, and what the providers in them look like."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from api.placement.words import (
    BAD_VALUE,
    DUPLICATE_KEY,
    MISSING_VALUE,
    aggregates,
    all_providers,
    answered,
    one_uuid,
    resources,
    traits,
)
from api.wire import Call, Get, Reply
from handlers.placement.search import Candidate, Group, Search, search, trees_of
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
    providers = all_providers(call)
    found = search(providers, wanted)
    shown = {id for candidate in found for id in candidate.allocations}
    summarized = trees_of(providers, shown) if call.version >= (1, 29) else [providers[id] for id in shown]
    classes = {name for group in wanted.groups for name in group.resources}
    body = {
        "allocation_requests": [_request(call, candidate) for candidate in found],
        "provider_summaries": {it.id: _summary(call, it, classes) for it in summarized},
    }
    return answered(call, body, (it.updated_at for it in summarized))


def asked(call: Call) -> Search:
    """The query string as a search. Raises Invalid."""
    suffixes: dict[str, None] = {}
    for name in call.query:
        suffixes.update(dict.fromkeys(_suffix_of(call, name)))
    groups = tuple(_group(call, suffix) for suffix in suffixes)
    subtrees = _same_subtree(call, groups)
    _check_groups(call, groups, subtrees)
    policy = _policy(call, groups)
    limit = call.query.get("limit")
    if limit is not None and (not limit.isdecimal() or int(limit) < 1):
        raise Invalid(f"Invalid query string parameters: limit must be a whole number above 0; got {limit!r}.")
    root = traits(call, call.query.getall("root_required", ())[:1], "root_required")
    return Search(
        groups=groups,
        isolate=policy == "isolate",
        root_required=frozenset(trait for one in root[0] for trait in one),
        root_forbidden=root[1],
        same_subtree=subtrees,
        nested=call.version >= (1, 29),
        limit=int(limit) if limit else None,
    )


def _suffix_of(call: Call, name: str) -> tuple[str, ...]:
    """The group a parameter belongs to; none for those about the whole. Raises Invalid for what is not known (yet)."""
    since = _SINCE.get(name)
    if since is not None and call.version >= since:
        if name == "root_required" and len(call.query.getall(name)) > 1:
            raise Invalid(f"Query parameter {name!r} may be specified only once.", code=DUPLICATE_KEY)
        return ("",) if name in _KEYS_SINCE_GRANULAR else ()
    match = _GROUP_KEYS.fullmatch(name)
    form = _SUFFIX if call.version >= (1, 33) else _NUMBER
    if since is None and match and call.version >= _KEYS_SINCE_GRANULAR[match[1]] and form.fullmatch(match[2]):
        return (match[2],)
    raise Invalid(
        f"Invalid query string parameters: Additional properties are not allowed ({name[:64]!r} was unexpected)"
    )


def _group(call: Call, suffix: str) -> Group:
    query = call.query
    keys = {key: f"{key}{suffix}" for key in _KEYS_SINCE_GRANULAR}
    required, forbidden = traits(call, query.getall(keys["required"], ()), keys["required"])
    member_of, not_member_of = aggregates(call, query.getall(keys["member_of"], ()), keys["member_of"])
    return Group(
        suffix=suffix,
        resources=resources(call, query[keys["resources"]], keys["resources"]) if keys["resources"] in query else {},
        required=required,
        forbidden=forbidden,
        member_of=member_of,
        not_member_of=not_member_of,
        in_tree=one_uuid(query[keys["in_tree"]], keys["in_tree"]) if keys["in_tree"] in query else None,
    )


def _same_subtree(call: Call, groups: tuple[Group, ...]) -> tuple[frozenset[str], ...]:
    subtrees = []
    known = {group.suffix for group in groups}
    for text in call.query.getall("same_subtree", ()):
        suffixes = frozenset(suffix.strip() for suffix in text.split(","))
        unknown = sorted(suffixes - known)
        if "" in suffixes:
            raise Invalid("Empty string (unsuffixed group) can not be specified in `same_subtree`.", code=BAD_VALUE)
        if unknown:
            raise Invalid(f"Real suffixes should be specified in `same_subtree`: {unknown[0]} is none.", code=BAD_VALUE)
        subtrees.append(suffixes)
    return tuple(subtrees)


def _check_groups(call: Call, groups: tuple[Group, ...], subtrees: tuple[frozenset[str], ...]) -> None:
    if not any(group.resources for group in groups):
        if call.version < (1, 25) or not groups:
            raise Invalid("Invalid query string parameters: 'resources' is a required property", code=MISSING_VALUE)
        raise Invalid("There must be at least one resources or resources[$S] parameter.", code=MISSING_VALUE)
    for group in groups:
        if group.resources:
            continue
        resourceless = call.version >= (1, 36) and group.suffix and any(group.suffix in them for them in subtrees)
        if not resourceless:
            raise Invalid(
                f"All request groups must specify resources: resources{group.suffix} is missing. "
                "Resourceless suffixed group request should be specified in `same_subtree` query param (since 1.36).",
                code=BAD_VALUE,
            )


def _policy(call: Call, groups: tuple[Group, ...]) -> str:
    policy = call.query.get("group_policy")
    if policy not in {None, "none", "isolate"}:
        raise Invalid(f"Invalid query string parameters: {policy!r} is not one of ['none', 'isolate']")
    if policy is None and sum(1 for group in groups if group.suffix and group.resources) > 1:
        raise Invalid(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.',
            code=MISSING_VALUE,
        )
    return policy or "none"


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
