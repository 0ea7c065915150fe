"""Lists of things that are parts of others (the rules of security groups): filtered, sorted and paged as views.

What they are parts of is one query; a part has no row of its own that the database could pick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.network.page import limit_of, links_of, selected
from api.wire import Call
from api.wire.query import boolean
from schema.refusal import Invalid, NotFound

View = dict[str, Any]
_PAGING = frozenset({"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields"})


def listed(call: Call, plural: str, views: Sequence[View], fields: Sequence[str], *, key: str = "id") -> dict[str, Any]:
    """The answer to a GET of them all. `fields`: what one may filter and sort by; `key`: what tells one from another.

    Raises Invalid, NotFound.
    """
    unknown = [name for name in dict.fromkeys(call.query) if name not in fields and name not in _PAGING]
    if unknown:
        raise Invalid(f"{unknown} is invalid attribute for filtering", code="HTTPBadRequest")
    wanted = {name: call.query.getall(name) for name in dict.fromkeys(call.query) if name in fields}
    found = [it for it in views if all(_is_any(it[name], texts) for name, texts in wanted.items())]
    found = _sorted(call, found, fields)
    reverse = boolean(call.query.get("page_reverse", "false")) or False
    limit = limit_of(call)
    page = _page(found[::-1] if reverse else found, call.query.get("marker") or None, limit, key)
    if reverse:
        page.reverse()
    answer: dict[str, Any] = {plural: [selected(call, it) for it in page]}
    if limit:
        ids = [it[key] for it in page]
        answer[f"{plural}_links"] = links_of(call, ids, full=len(ids) >= limit, reverse=reverse)
    return answer


def _is_any(value: Any, texts: Sequence[str]) -> bool:
    if isinstance(value, bool):
        return value in map(boolean, texts)
    return ("" if value is None else str(value)) in texts


def _sorted(call: Call, views: list[View], fields: Sequence[str]) -> list[View]:
    keys, dirs = call.query.getall("sort_key", []), call.query.getall("sort_dir", [])
    if dirs and len(keys) != len(dirs):
        raise Invalid("The number of sort_keys and sort_dirs must be same", code="HTTPBadRequest")
    for key, direction in reversed(list(zip(keys, dirs or ["asc"] * len(keys), strict=True))):
        if key not in fields:
            raise Invalid(f"{[key]} is invalid attribute for sort_keys", code="HTTPBadRequest")
        if direction not in {"asc", "desc"}:
            raise Invalid(f"sort_dirs {direction[:64]!r} is not asc or desc", code="HTTPBadRequest")
        views = sorted(views, key=lambda it: _rank(it[key]), reverse=direction == "desc")
    return views


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers among themselves, and what is not said before all else."""
    return (value is not None, value if value is not None else 0)


def _page(views: list[View], marker: str | None, limit: int, key: str) -> list[View]:
    start = 0
    if marker is not None:
        start = 1 + next((nth for nth, it in enumerate(views) if it[key] == marker), -1)
        if not start:
            raise NotFound(f"The marker {marker[:64]} could not be found.", code="MarkerNotFound")
    return views[start : start + limit] if limit else views[start:]
