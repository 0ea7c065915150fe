"""Lists of images: filters, order and pages out of a query string, and the links to the next page."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec
from multidict import MultiMapping

from api.wire.query import boolean
from bus.documents import AnyOf, Sort, Where
from schema.image.image import ACCEPTED, COMMUNITY, MEMBER_STATUSES, PUBLIC, SHARED, VISIBILITIES
from schema.refusal import Invalid

DEFAULT_LIMIT = 25
MAX_LIMIT = 1000

Condition = Where | AnyOf
Conditions = list[Condition]

_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
_PAGING = frozenset({"limit", "marker", "sort", "sort_key", "sort_dir"})
_SORTABLE: Mapping[str, str] = {
    "name": "name",
    "status": "status",
    "container_format": "container_format",
    "disk_format": "disk_format",
    "size": "size",
    "id": "id",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "min_disk": "min_disk_gb",
    "min_ram": "min_ram_mb",
    "protected": "protected",
    "visibility": "visibility",
    "owner": "project_id",
}


class Page(msgspec.Struct, frozen=True):
    """One list request, understood."""

    where: Conditions
    sort: tuple[Sort, ...]
    limit: int
    marker: str | None


def page(query: MultiMapping[str], project_id: str | None, *, admin: bool) -> Page:
    """What to look for, on behalf of a project. Raises Invalid."""
    visibility = query.get("visibility")
    if visibility is not None and visibility not in (*VISIBILITIES, "all"):
        raise Invalid(f"Invalid visibility value: {visibility}")
    member_status = query.get("member_status", ACCEPTED)
    if member_status not in (*MEMBER_STATUSES, "all"):
        raise Invalid(f"Invalid status: {member_status}")
    where = _visible(project_id, visibility, member_status, admin=admin)
    if "os_hidden" not in query:
        where.append(Where("hidden", "=", False))
    for name, value in query.items():
        if name not in _PAGING and name not in {"visibility", "member_status"}:
            where += _FILTERS.get(name, _property(name))(name, value)
    return Page(where, _sort(query), _limit(query), query.get("marker"))


def links(query: MultiMapping[str], found: int, limit: int, last_id: str) -> dict[str, str]:
    """`first` and, on a full page, `next`: without the prefix the service is mounted at, as clients expect."""
    kept = [(name, value) for name, value in query.items() if name != "marker"]
    answer = {"first": _link(kept), "schema": "/v2/schemas/images"}
    if found and found == limit:
        answer["next"] = _link([*kept, ("marker", last_id)])
    return answer


def _link(parameters: list[tuple[str, str]]) -> str:
    return "/v2/images" + (f"?{urlencode(parameters)}" if parameters else "")


def _visible(project_id: str | None, visibility: str | None, member_status: str, *, admin: bool) -> Conditions:
    """What the caller sees: an admin everything, others public, own and shared; community only when asked for."""
    own = [Where("project_id", "=", project_id or "?")]
    where: Conditions = []
    if visibility not in (None, "all"):
        where.append(Where("visibility", "=", visibility))
    if admin:
        if visibility is None:
            where.append(AnyOf([[Where("visibility", "!=", COMMUNITY)], own]))
        return where
    alternatives = [own, [Where("visibility", "=", PUBLIC)]]
    if visibility in ("all", COMMUNITY):
        alternatives.append([Where("visibility", "=", COMMUNITY)])
    if project_id:
        answer = {} if member_status == "all" else {"status": member_status}
        alternatives.append([Where("visibility", "=", SHARED), Where("members", "contains", {project_id: answer})])
    return [*where, AnyOf(alternatives)]


def _limit(query: MultiMapping[str]) -> int:
    text = query.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    try:
        limit = int(text)
    except ValueError:
        raise Invalid("limit param must be an integer") from None
    if limit < 0:
        raise Invalid("limit param must be positive")
    return min(limit, MAX_LIMIT)


def _sort(query: MultiMapping[str]) -> tuple[Sort, ...]:
    """`sort=name:asc,size` or `sort_key=name&sort_dir=asc`; the newest first where nothing else decides."""
    keys, directions = query.getall("sort_key", []), query.getall("sort_dir", [])
    combined = query.get("sort")
    if combined is not None:
        if keys or directions:
            raise Invalid("Old and new sorting syntax cannot be combined")
        for part in combined.split(","):
            key, _, direction = part.strip().partition(":")
            keys.append(key)
            directions.append(direction or "desc")
    elif len(directions) > 1 and len(directions) != len(keys):
        raise Invalid("Number of sort dirs does not match the number of sort keys")
    else:
        directions = directions * len(keys) if len(directions) == 1 and keys else directions or ["desc"] * len(keys)
    for direction in directions:
        if direction not in {"asc", "desc"}:
            raise Invalid(f"Invalid sort direction: {direction}")
    for key in keys:
        if key not in _SORTABLE:
            raise Invalid(f"Invalid sort key: {key}. It must be one of the following: {', '.join(_SORTABLE)}.")
    last = directions[-1] if directions else "desc"
    pairs = dict(zip(keys, directions, strict=False))
    for key in ("created_at", "id"):
        pairs.setdefault(key, last)
    return tuple(Sort(_SORTABLE[key], direction == "desc") for key, direction in pairs.items())


Filter = Callable[[str, str], Conditions]


def _property(name: str) -> Filter:
    """Whatever is no attribute is a property."""
    return lambda _, value: [Where("properties", "contains", {name: value})]


def _text(field: str) -> Filter:
    """`x`, or `in:a,"b,c"`."""

    def condition(name: str, value: str) -> Conditions:
        if not value.startswith("in:"):
            return [Where(field, "=", value)]
        return [Where(field, "in", _split(name, value[3:]))]

    return condition


def _split(name: str, value: str) -> list[str]:
    try:
        [values] = csv.reader([value], strict=True)
    except (csv.Error, ValueError):
        raise Invalid(f"Invalid filter value {value}: the quotes of {name} do not match.") from None
    return values


def _number(field: str, operator: Any) -> Filter:
    def condition(name: str, value: str) -> Conditions:
        if not value.isascii() or not value.isdigit() or len(value) > 18:
            raise Invalid(f"{name} must be a number that is not negative, not {value[:64]!r}")
        return [Where(field, operator, int(value))]

    return condition


def _stored_number(operator: Any) -> Filter:
    """Sizes are of images that have data."""
    number = _number("size", operator)
    return lambda name, value: [*number(name, value), Where("data_id", "is", True)]


def _switch(field: str) -> Filter:
    def condition(name: str, value: str) -> Conditions:
        wanted = boolean(value)
        if wanted is None:
            raise Invalid(f"Invalid value '{value[:64]}' for '{name}' filter: it must be 'true' or 'false'.")
        return [Where(field, "=", wanted)]

    return condition


def _time(name: str, value: str) -> Conditions:
    """`gt:2030-01-01T00:00:00Z`; the wire's times are whole seconds, so each stands for the second that it opens."""
    operator, colon, text = value.partition(":")
    if not colon or operator not in {"eq", "neq", "gt", "gte", "lt", "lte"}:
        operator, text = "eq", value
    start = _moment(name, text)
    end = start + timedelta(seconds=1)
    match operator:
        case "gt":
            return [Where(name, ">=", end)]
        case "gte":
            return [Where(name, ">=", start)]
        case "lt":
            return [Where(name, "<", start)]
        case "lte":
            return [Where(name, "<", end)]
        case "neq":
            return [AnyOf([[Where(name, "<", start)], [Where(name, ">=", end)]])]
    return [Where(name, ">=", start), Where(name, "<", end)]


def _moment(name: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
        return min(at, _LATEST)
    except (ValueError, OverflowError):
        raise Invalid(f"Invalid time {text[:64]!r} for {name}; write it like 2030-01-31T12:00:00Z.") from None


_FILTERS: Mapping[str, Filter] = {
    "id": _text("id"),
    "name": _text("name"),
    "status": _text("status"),
    "disk_format": _text("disk_format"),
    "container_format": _text("container_format"),
    "owner": _text("project_id"),
    "checksum": _text("checksum"),
    "os_hash_algo": _text("hash_algorithm"),
    "os_hash_value": _text("hash_value"),
    "tag": lambda name, value: [Where("tags", "has", value)],
    "size_min": _stored_number(">="),
    "size_max": _stored_number("<="),
    "size": _stored_number("="),
    "min_disk": _number("min_disk_gb", "="),
    "min_ram": _number("min_ram_mb", "="),
    "protected": _switch("protected"),
    "os_hidden": _switch("hidden"),
    "created_at": _time,
    "updated_at": _time,
}
