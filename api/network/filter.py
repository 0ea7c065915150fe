"""What a query parameter of a list of Neutron's things means, as conditions on documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from api.wire import Call
from api.wire.query import boolean
from bus.documents import AnyOf, Condition, Where
from schema.refusal import Invalid


class Filter(msgspec.Struct, frozen=True):
    """How a query parameter picks things. `path`: where in the state its value is; empty: under its own name."""

    path: str = ""
    type: type = str
    """`str`, `bool` or `int`."""
    within: bool = False
    """The state has an array of such strings there."""
    condition: Callable[[Call, Sequence[str]], Sequence[Condition]] | None = None
    """For what is no plain field."""


COMMON = {
    "id": Filter(),
    "name": Filter(),
    "project_id": Filter(),
    "tenant_id": Filter("project_id"),
    "description": Filter(),
    "revision_number": Filter("version", int),
    "changed_since": Filter(condition=lambda call, values: changed_since("updated_at", values)),
}
"""What nearly everything is picked by."""
_TAG_FILTERS = frozenset({"tags", "tags-any", "not-tags", "not-tags-any"})
_PAGING = frozenset({"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields"})


def filtered(call: Call, filters: Mapping[str, Filter], *, tagged: bool) -> list[Condition]:
    """What the query picks. `tagged`: such things have tags. Raises Invalid."""
    query = call.query
    where: list[Condition] = []
    unknown = []
    for name in dict.fromkeys(query):
        values = query.getall(name)
        if name in filters:
            where += _conditions(call, name, filters[name], values)
        elif name in _TAG_FILTERS and tagged:
            where += _by_tags(name, values)
        elif name not in _PAGING:
            unknown.append(name)
    if unknown:
        raise Invalid(f"{unknown} is invalid attribute for filtering", code="HTTPBadRequest")
    return where


def changed_since(field: str, values: Sequence[str]) -> list[Condition]:
    """What was made or changed at that time or later, as that field says. Raises Invalid."""
    text = values[-1]
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise Invalid(
            "Invalid input for operation: The input changed_since must be in the following format: "
            "YYYY-MM-DDTHH:MM:SS[Z].",
            code="InvalidInput",
        ) from None
    return [Where(field, ">=", at if at.tzinfo else at.replace(tzinfo=UTC))]


def _conditions(call: Call, name: str, filter: Filter, values: Sequence[str]) -> Sequence[Condition]:
    if filter.condition:
        return filter.condition(call, values)
    path = filter.path or name
    if filter.within:
        return [AnyOf([[Where(path, "has", value)] for value in values])]
    wanted = [_typed(name, filter.type, value) for value in values]
    return (
        [AnyOf([[Where(path, "=", value)] for value in wanted])] if len(wanted) > 1 else [Where(path, "=", wanted[0])]
    )


def _typed(name: str, type: type, text: str) -> Any:
    if type is bool:
        value = boolean(text)
        if value is None:
            raise Invalid(f"Invalid input for {name}. Reason: {text[:64]!r} is not boolean.", code="HTTPBadRequest")
        return value
    if type is int:
        if not (text.isascii() and text.isdigit() and len(text) < 18):
            raise Invalid(f"Invalid input for {name}. Reason: {text[:64]!r} is not an integer.", code="HTTPBadRequest")
        return int(text)
    return text


def _by_tags(name: str, values: Sequence[str]) -> list[Condition]:
    tags = [tag for value in values for tag in value.split(",")]
    every = [Where("tags", "has", tag) for tag in tags]
    none = [Where("tags", "has not", tag) for tag in tags]
    match name:
        case "tags":
            return [*every]
        case "tags-any":
            return [AnyOf([[it] for it in every])]
        case "not-tags":
            return [AnyOf([[it] for it in none])]
    return [*none]
