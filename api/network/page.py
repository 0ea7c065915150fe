"""Pages of lists, as Neutron has them: a limit, an order, a marker, the ways on and back, and which fields show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from api.network.filter import Filter
from api.wire import Call
from api.wire.query import boolean
from bus.documents import OLDEST_FIRST, Sort
from schema.refusal import Invalid

_NUMBER = re.compile(r"-?[0-9]{1,17}")
_SORTABLE = frozenset({"id", "name", "project_id", "created_at", "updated_at"})


class Page(msgspec.Struct, frozen=True):
    """What a query says of pages."""

    sort: tuple[Sort, ...]
    limit: int
    marker: str | None
    reverse: bool
    limited: bool
    """Whether the client wants pages."""


def page_of(call: Call, filters: Mapping[str, Filter]) -> Page:
    """`filters`: what such things are picked by, which is also what they are sorted by. Raises Invalid."""
    query = call.query
    reverse = boolean(query.get("page_reverse", "false")) or False
    limit = limit_of(call)
    return Page(
        sort=_sort(query.getall("sort_key", []), query.getall("sort_dir", []), filters, reverse=reverse),
        limit=limit or call.cloud.settings.page_limit,
        marker=query.get("marker") or None,
        reverse=reverse,
        limited=limit > 0,
    )


def limit_of(call: Call) -> int:
    """How many things a page is to have; 0: they are all wanted. Raises Invalid."""
    text = call.query.get("limit", "")
    if text and not _NUMBER.fullmatch(text):
        raise Invalid(f"Invalid input for limit. Reason: {text[:64]!r} is not a number.", code="HTTPBadRequest")
    return max(0, min(int(text or 0), call.cloud.settings.page_limit))


def links_of(call: Call, ids: Sequence[str], *, full: bool, reverse: bool) -> list[dict[str, str]]:
    """`next` and `previous` of a page, as Neutron gives them.

    A page that is not full is the last one on its way, and the way back is always there; from an empty page it leads
    to the end.
    """
    links = []
    if full or reverse:
        links.append({"rel": "next", "href": _url(call, ids[-1] if ids else "", reverse=False)})
    if full or not reverse:
        links.append({"rel": "previous", "href": _url(call, ids[0] if ids else "", reverse=True)})
    return links


def _url(call: Call, marker: str, *, reverse: bool) -> str:
    pairs = [(name, value) for name, value in call.query.items() if name not in {"marker", "page_reverse"}]
    if marker:
        pairs.append(("marker", marker))
    if reverse:
        pairs.append(("page_reverse", "True"))
    return f"{call.host_url}{call.request.raw_path.partition('?')[0]}?{urlencode(pairs)}"


def selected(call: Call, view: dict[str, Any]) -> dict[str, Any]:
    """Only what `fields` names, if it names anything."""
    wanted = set(call.query.getall("fields", []))
    return {name: value for name, value in view.items() if name in wanted} if wanted - {""} else view


def _sort(
    keys: Sequence[str], dirs: Sequence[str], filters: Mapping[str, Filter], *, reverse: bool
) -> tuple[Sort, ...]:
    if dirs and len(keys) != len(dirs):
        raise Invalid("The number of sort_keys and sort_dirs must be same", code="HTTPBadRequest")
    found: list[Sort] = []
    for number, key in enumerate(keys):
        direction = dirs[number] if dirs else "asc"
        filter = filters.get(key)
        if (filter is None or filter.condition or filter.within) and key not in _SORTABLE:
            raise Invalid(f"{[key]} is invalid attribute for sort_keys", code="HTTPBadRequest")
        if direction not in {"asc", "desc"}:
            raise Invalid(f"sort_dirs {direction[:64]!r} is not asc or desc", code="HTTPBadRequest")
        found.append(Sort((filter.path if filter else "") or key, direction == "desc"))
    order = (*found, Sort("id")) if found else OLDEST_FIRST
    return tuple(Sort(it.field, not it.descending) for it in order) if reverse else tuple(order)
