"""The tags of Neutron's things: given with them, or one by one at an address of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from api.wire import Call, Delete, Get, Post, Put, Reply
from api.wire.route import Route
from schema.refusal import Invalid, NotFound

TAGS = 50
"""Tags of one thing, at most, as Neutron has it."""
TAG_LENGTH = 255


class TagsBody(msgspec.Struct, forbid_unknown_fields=True):
    tags: list[str]


Tags = tuple[str, ...]
Retag = Callable[[Call, Callable[[Tags], Tags]], Awaitable[Tags]]
"""Change the tags of what a call is about; what they are then."""


def tags_of(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags a thing is given, each once. Raises Invalid."""
    tags = tuple(dict.fromkeys(tags))
    _refuse_tags(tags)
    return tags


def tag_routes(url: str, name: str, those_of: Callable[[Call], Awaitable[Tags]], retag: Retag) -> list[Route]:
    """The rows of the tags of things of that name at that address."""
    one, read, write = url + "/{id}/tags", f"get_{name}", f"update_{name}"

    async def show(call: Call) -> dict[str, Any]:
        return {"tags": list(await those_of(call))}

    async def replace(call: Call) -> dict[str, Any]:
        return {"tags": list(await retag(call, lambda tags: tuple(call.body.tags)))}

    async def join(call: Call) -> dict[str, Any]:
        return {"tags": list(await retag(call, lambda tags: tuple(sorted({*tags, *call.body.tags}))))}

    async def clear(call: Call) -> None:
        await retag(call, lambda tags: ())

    async def check(call: Call) -> Reply:
        if call.path["tag"] not in await those_of(call):
            raise _no_tag(call.path["tag"])
        return Reply(None, status=204)

    async def add(call: Call) -> Reply:
        await retag(call, lambda tags: (*tags, call.path["tag"]))
        return Reply(None, status=201)

    async def remove(call: Call) -> None:
        def without(tags: tuple[str, ...]) -> tuple[str, ...]:
            if call.path["tag"] not in tags:
                raise _no_tag(call.path["tag"])
            return tuple(tag for tag in tags if tag != call.path["tag"])

        await retag(call, without)

    return [
        Get(one, show, may=read),
        Post(one, join, may=write, body=TagsBody),
        Put(one, replace, may=write, body=TagsBody),
        Delete(one, clear, may=write),
        Get(one + "/{tag}", check, may=read),
        Put(one + "/{tag}", add, may=write),
        Delete(one + "/{tag}", remove, may=write),
    ]


def _no_tag(tag: str) -> NotFound:
    return NotFound(f"Tag {tag} could not be found.", code="TagNotFound")


def _refuse_tags(tags: Sequence[str]) -> None:
    if len(tags) > TAGS:
        raise Invalid(f"Invalid input for tags. Reason: there may be {TAGS} of them.", code="HTTPBadRequest")
    for tag in tags:
        if not tag or len(tag) > TAG_LENGTH or "," in tag:
            raise Invalid(
                f"Invalid input for tags. Reason: {tag[:64]!r} is empty, longer than {TAG_LENGTH} or has a comma.",
                code="HTTPBadRequest",
            )
