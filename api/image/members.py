"""Projects an image is shared with, on the wire: its owner adds and removes them, each answers for itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.image.image import owned, seen
from api.image.view import member_view
from api.wire import Call, Delete, Get, Post, Put
from bus.execute import Wish
from handlers.image.image import IMAGES
from schema.image.image import SHARED, AnswerImageMembership, Image, ShareImage, UnshareImage
from schema.refusal import Conflict, Forbidden, NotFound


class NewMember(msgspec.Struct):
    member: Annotated[str, Meta(min_length=1, max_length=255)]


class Answer(msgspec.Struct):
    status: Literal["pending", "accepted", "rejected"]


async def create(call: Call) -> dict[str, Any]:
    image: Image = (await owned(call, call.path["id"], "add_member")).state
    project_id = call.body.member
    if project_id in image.members:
        raise Conflict(f"Image member {project_id[:64]} already exists for image {image.id}")
    [document] = await call.execute(Wish(IMAGES, image.id, ShareImage(project_id=project_id)))
    return member_view(document.state, project_id, document.state.members[project_id])


async def index(call: Call) -> dict[str, Any]:
    image = await _shared(call)
    whole = call.may("add_member", target_project_id=image.project_id)
    members = [
        member_view(image, project_id, member)
        for project_id, member in image.members.items()
        if whole or project_id == call.token.project_id
    ]
    return {"members": members, "schema": "/v2/schemas/members"}


async def show(call: Call) -> dict[str, Any]:
    image = await _shared(call)
    project_id = call.path["member"]
    may = call.may("get_member", target_project_id=image.project_id) or project_id == call.token.project_id
    if not may or project_id not in image.members:
        raise _unknown(image, project_id)
    return member_view(image, project_id, image.members[project_id])


async def answer(call: Call) -> dict[str, Any]:
    image = await _shared(call)
    project_id = call.path["member"]
    if project_id not in image.members:
        raise _unknown(image, project_id)
    call.must("modify_member", target_project_id=project_id)
    wish = AnswerImageMembership(project_id=project_id, status=call.body.status)
    [document] = await call.execute(Wish(IMAGES, image.id, wish))
    return member_view(document.state, project_id, document.state.members[project_id])


async def delete(call: Call) -> None:
    image: Image = (await owned(call, call.path["id"], "delete_member")).state
    project_id = call.path["member"]
    if image.visibility == SHARED and project_id not in image.members:
        raise _unknown(image, project_id)
    await call.execute(Wish(IMAGES, image.id, UnshareImage(project_id=project_id)))


async def _shared(call: Call) -> Image:
    image: Image = (await seen(call, call.path["id"])).state
    if image.visibility != SHARED:
        raise Forbidden("Only shared images have members.")
    return image


def _unknown(image: Image, project_id: str) -> NotFound:
    return NotFound(f"{project_id[:64]} not found in the member list of the image {image.id}.")


routes = [
    Post("/images/{id}/members", create, may="add_member", body=NewMember, answers=200),
    Get("/images/{id}/members", index, may="get_members"),
    Get("/images/{id}/members/{member}", show, may="get_member"),
    Put("/images/{id}/members/{member}", answer, may="modify_member", body=Answer),
    Delete("/images/{id}/members/{member}", delete, may="delete_member"),
]
