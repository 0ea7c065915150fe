"""Tags of projects: `/v3/projects/{project_id}/tags`."""

from __future__ import annotations

from typing import Any

import msgspec

from api.identity.words import Tag, Tags, found
from api.wire import Call, Delete, Get, Put, Reply
from bus.execute import Wish
from bus.log import Document
from handlers.identity.project import PROJECTS
from schema.identity.project import PROJECT, UpdateProject
from schema.refusal import Invalid, NotFound

MOST = 80


class TagsBody(msgspec.Struct):
    tags: Tags


async def _project(call: Call, rule: str) -> Document:
    document = await found(call, PROJECT, call.path["project_id"])
    call.must(rule, project_id=document.id, domain_id=document.state.domain_id)
    return document


async def _set(call: Call, document: Document, tags: tuple[str, ...]) -> Document:
    return (await call.execute(Wish(PROJECTS, document.id, UpdateProject(tags=tags))))[0]


async def listing(call: Call) -> dict[str, Any]:
    document = await _project(call, "identity:get_project")
    return _answer(call, document)


async def replace(call: Call) -> dict[str, Any]:
    document = await _project(call, "identity:update_project_tags")
    return _answer(call, await _set(call, document, tuple(dict.fromkeys(call.body.tags))))


async def clear(call: Call) -> None:
    await _set(call, await _project(call, "identity:update_project_tags"), ())


async def check(call: Call) -> None:
    document = await _project(call, "identity:get_project")
    if call.path["tag"] not in document.state.tags:
        raise NotFound(f"Could not find project tag: {call.path['tag']}.")


async def add(call: Call) -> Reply:
    document = await _project(call, "identity:update_project_tags")
    try:
        tag = msgspec.convert(call.path["tag"], Tag)
    except msgspec.ValidationError:
        raise Invalid("A tag has 1 to 255 characters, none of them a comma or a slash.") from None
    tags = tuple(dict.fromkeys([*document.state.tags, tag]))
    if len(tags) > MOST:
        raise Invalid(f"A project has {MOST} tags at most.")
    await _set(call, document, tags)
    return Reply(headers={"Location": call.url(f"/projects/{document.id}/tags/{tag}")})


async def remove(call: Call) -> None:
    document = await _project(call, "identity:update_project_tags")
    tag = call.path["tag"]
    if tag not in document.state.tags:
        raise NotFound(f"Could not find project tag: {tag}.")
    await _set(call, document, tuple(other for other in document.state.tags if other != tag))


def _answer(call: Call, document: Document) -> dict[str, Any]:
    links = {"self": call.url(f"/projects/{document.id}/tags"), "previous": None, "next": None}
    return {"tags": list(document.state.tags), "links": links}


_TAGS = "/projects/{project_id}/tags"
_TAG = _TAGS + "/{tag}"

routes = [
    Get(_TAGS, listing, may="identity:get_project"),
    Put(_TAGS, replace, may="identity:update_project_tags", body=TagsBody),
    Delete(_TAGS, clear, may="identity:update_project_tags"),
    Get(_TAG, check, may="identity:get_project", answers=204),
    Put(_TAG, add, may="identity:update_project_tags", answers=201),
    Delete(_TAG, remove, may="identity:update_project_tags"),
]
