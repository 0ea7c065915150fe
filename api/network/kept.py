"""Views kept as bytes: lists show most things again and again, and what a version looks like never changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from api.wire import Call
from bus.log import Document
from schema.event import Kind

VIEWS = 16_384
"""Of one kind, at most."""
Views = Callable[[Call, Sequence[Document]], Awaitable[list[dict[str, Any]]]]
_encode = msgspec.json.Encoder().encode


class _Kept(msgspec.Struct, frozen=True):
    """`version` -1: as one caller saw it, for this once."""

    version: int
    body: bytes


_of: WeakKeyDictionary[Any, dict[str, dict[str, _Kept]]] = WeakKeyDictionary()
"""Of a process: kind → id → what was written last."""


def keeping(
    kind: Kind[Any], view: Views, alike: Callable[[Any], bool]
) -> Callable[[Call, Sequence[tuple[str, int]]], Awaitable[bytes]]:
    """`Resource.many` of a kind. `alike`: whether a state looks the same to everybody who sees it."""

    async def many(call: Call, page: Sequence[tuple[str, int]]) -> bytes:
        kept = _of.setdefault(call.cloud.mirrors, {}).setdefault(kind.name, {})
        if len(kept) > VIEWS:
            kept.clear()
        missing = [id for id, version in page if (it := kept.get(id)) is None or it.version != version]
        if missing:
            documents = list((await call.cloud.documents.get_many(kind, missing)).values())
            for document, shown in zip(documents, await view(call, documents), strict=True):
                version = document.version if alike(document.state) else -1
                kept[document.id] = _Kept(version, _encode(shown))
        return b"[" + b",".join([kept[id].body for id, _ in page]) + b"]"

    return many
