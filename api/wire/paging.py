"""Pages of lists: limit and marker read the same way everywhere, the next page's URL as the client wrote this one's."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec

from api.wire.call import Call
from schema.refusal import Invalid


class Page(msgspec.Struct, frozen=True):
    """What of a list is wanted: at most `limit` items, after the one whose id is `marker`."""

    limit: int
    marker: str | None = None
    asked: bool = False
    """Whether the client named a limit."""


def page(call: Call, *, default: int | None = None) -> Page:
    """The query's limit and marker, within the cloud's page limit. Raises Invalid."""
    most = call.cloud.settings.page_limit
    text = call.query.get("limit")
    marker = call.query.get("marker") or None
    if text is None:
        return Page(default or most, marker)
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f"Invalid input for query parameters limit: {text[:64]!r} is not a number of 0 or more.")
    return Page(min(int(text), most), marker, asked=True)


def next_url(call: Call, marker: str, *, absolute: bool = True) -> str:
    """This list's URL, from that marker on."""
    pairs = [(name, value) for name, value in call.query.items() if name != "marker"]
    path = call.request.raw_path.partition("?")[0]
    return f"{call.host_url if absolute else ''}{path}?{urlencode([*pairs, ('marker', marker)])}"


def next_links(call: Call, page: Page, ids: Sequence[str]) -> list[dict[str, str]]:
    """`servers_links`, as Nova and Cinder write them: one `next` after a full page, else nothing."""
    if page.limit and len(ids) >= page.limit:
        return [{"rel": "next", "href": next_url(call, ids[-1])}]
    return []


def keystone_links(call: Call, page: Page, ids: Sequence[str]) -> dict[str, str | None]:
    """`links` of a Keystone list."""
    full = bool(page.limit) and len(ids) >= page.limit
    return {
        "self": f"{call.host_url}{call.request.raw_path}",
        "previous": None,
        "next": next_url(call, ids[-1]) if full else None,
    }
