"""Lists of things kept in memory: one page of them, the link to the next, and queries grown strict with 2.75."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import msgspec

from api.wire import Call, Get, Route
from api.wire.route import Handler
from schema.refusal import Invalid

T = TypeVar("T")

STRICT_SINCE = "2.75"
"""From here on an unknown query parameter is refused; before, it was passed over."""
LENIENT_UNTIL = "2.74"


class Paging(msgspec.Struct, frozen=True):
    """What every paged list takes."""

    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    marker: str | None = None


class NoQuery(msgspec.Struct, frozen=True):
    """A URL that takes no parameters."""


def listing(path: str, handler: Handler, may: str, query: Any = NoQuery, **fields: Any) -> tuple[Route, ...]:
    """The rows of a GET: one for the versions that pass over unknown parameters, one for those that refuse them.

    `strict_since`: the first of those, where it is not 2.75.
    """
    since, first = fields.pop("since", None), _minor(fields.pop("strict_since", STRICT_SINCE))
    rows = []
    if since is None or _minor(since) < first:
        until = fields.get("until")
        last = until if until and _minor(until) < first else f"2.{first - 1}"
        rows.append(Get(path, handler, may=may, query=query, since=since, **fields | {"until": last}))
        since = f"2.{first}"
    if fields.get("until") is None or _minor(fields["until"]) >= first:
        rows.append(Get(path, handler, may=may, query=strict(query), since=since, **fields))
    return tuple(rows)


def strict(query: Any) -> Any:
    """The query that refuses what it does not know."""
    return msgspec.defstruct(f"Strict{query.__name__}", [], bases=(query,), forbid_unknown_fields=True, frozen=True)


def page(call: Call, items: Sequence[T], id_of: Callable[[T], str]) -> tuple[list[T], list[dict[str, str]]]:
    """The part of a list, sorted already, that `limit` and `marker` ask for; and the links to go on with.

    Raises Invalid when the marker is not in the list.
    """
    first = 0
    if call.params.marker is not None:
        known = next((nth for nth, item in enumerate(items) if id_of(item) == call.params.marker), None)
        if known is None:
            raise Invalid(f"marker [{call.params.marker}] not found")
        first = known + 1
    limit = page_size(call)
    chosen = list(items[first : first + limit])
    return chosen, next_link(call, chosen, id_of) if len(chosen) == limit else []


def page_size(call: Call) -> int:
    """How many items the page may have: what was asked for, within what is set."""
    most = call.cloud.settings.page_limit
    return most if call.params.limit is None else min(call.params.limit, most)


def next_link(call: Call, chosen: Sequence[T], id_of: Callable[[T], str]) -> list[dict[str, str]]:
    """The link behind a full page."""
    if not chosen:
        return []
    kept = [(name, value) for name, value in call.query.items() if name != "marker"]
    query = urlencode([*kept, ("marker", id_of(chosen[-1]))])
    return [{"rel": "next", "href": f"{call.host_url}{call.request.path}?{query}"}]


def bookmark(call: Call, path: str) -> str:
    """A URL without the version, good for any version."""
    return f"{call.host_url}{call.service.prefix.rpartition('/')[0]}{path}"


def regex(text: str) -> re.Pattern[str]:
    """A regular expression somebody filters by; an empty one is none. Raises Invalid."""
    try:
        compiled = re.compile(text[:255]) if text else None
    except re.error:
        compiled = None
    if compiled is None:
        raise Invalid(f"Invalid filter: {text[:255]!r} is no regular expression.")
    return compiled


def links(call: Call, path: str) -> list[dict[str, str]]:
    """A thing's `self` and `bookmark`."""
    return [{"rel": "self", "href": call.url(path)}, {"rel": "bookmark", "href": bookmark(call, path)}]


def _minor(version: str) -> int:
    return int(version.partition(".")[2])
