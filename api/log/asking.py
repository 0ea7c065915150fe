"""What a caller may hear of the log, and what it asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Meta

from api.wire import Call
from api.wire.policy import ADMIN, ADMIN_OR_READER, Check
from bus.cloud import Cloud
from bus.history import History, Wanted
from bus.log import Document
from bus.mirror import Mirrors
from schema.event import event_named, kinds
from schema.refusal import Invalid, NotFound

READ, READ_ALL = "log:read", "log:read_all"

POLICY: Mapping[str, Check | str] = {READ: ADMIN_OR_READER, READ_ALL: ADMIN}
"""`log:read`: the events of one's own project's things; `log:read_all`: everything."""

_STREAM = re.compile(r"[a-z_]{1,64}/.{1,400}", re.DOTALL)


class Asked(msgspec.Struct):
    """The query string of /events."""

    after: Annotated[int, Meta(ge=0)] | None = None
    """Only events past this position."""
    last: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """Instead: the newest so many."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    type: list[str] = []
    kind: list[str] = []
    stream: str = ""
    project_id: str | None = None
    request_id: str = ""


def wanted(call: Call, asked: Asked) -> Wanted:
    """The events asked for, among those the caller may hear of. Raises Invalid."""
    types = {name for text in asked.type for name in text.split(",") if name}
    for name in types:
        try:
            event_named(name)
        except KeyError:
            raise Invalid(f"There is no event of type {name[:64]!r}.") from None
    named = {name for text in asked.kind for name in text.split(",") if name}
    for name in named - kinds().keys():
        raise Invalid(f"There is no kind {name[:64]!r}; there are {', '.join(sorted(kinds()))}.")
    if asked.stream and not _STREAM.fullmatch(asked.stream):
        raise Invalid("stream must be a kind and an id, such as server/4f0c….")
    project_id = asked.project_id
    if not call.may(READ_ALL):
        if project_id not in (None, call.token.project_id):
            raise Invalid("project_id: only the log of your own project may be read.")
        project_id = call.token.project_id or "?"
    return Wanted(
        types=frozenset(types),
        kinds=frozenset(named),
        stream=asked.stream,
        request_id=asked.request_id,
        project_id=project_id,
    )


async def visible(call: Call, stream: str) -> Document:
    """The stream's document, if the caller may read it. Raises NotFound."""
    found = (await call.cloud.log.load([stream])).get(stream) if _STREAM.fullmatch(stream) else None
    mine = found is not None and getattr(found.state, "project_id", None) == (call.token.project_id or "?")
    if found is None or not (mine or call.may(READ_ALL)):
        raise NotFound(f"There is no stream {stream[:128]}.")
    return found


def history(cloud: Cloud) -> History:
    """The process's way of asking the log."""
    found = _of.get(cloud.mirrors)
    if found is None:
        found = _of[cloud.mirrors] = History(cloud.pool, cloud.log)
    return found


_of: WeakKeyDictionary[Mirrors, History] = WeakKeyDictionary()
