"""Images on the wire: create, list, show, update, delete, withhold and give back, tags."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from api.image import attributes, listing, patch
from api.image.view import view
from api.wire import Call, Delete, Get, Patch, Post, Put, Reply
from api.wire.body import WrongContentType
from bus import clock
from bus.execute import Wish
from bus.log import Document
from handlers.image.image import IMAGES
from handlers.image.store import image_store
from schema.image.image import (
    COMMUNITY,
    IMAGE,
    PUBLIC,
    ChangeImage,
    DeactivateImage,
    DeleteImage,
    Image,
    ReactivateImage,
    TagImage,
    UntagImage,
)
from schema.refusal import Conflict, Forbidden, Invalid, NotFound

TAG_LENGTH = 255
_ID = re.compile(r"[0-9a-zA-Z._-]{1,255}")


async def seen(call: Call, id: str) -> Document:
    """An image the caller may know of. Raises NotFound for others', as if they were not there."""
    if _ID.fullmatch(id):
        try:
            document = await call.cloud.documents.get(IMAGE, id)
        except NotFound:
            pass
        else:
            if call.token.is_admin or document.state.visible_to(call.token.project_id):
                return document
    raise missing(id)


async def owned(call: Call, id: str, rule: str) -> Document:
    """An image the caller may do this to. Raises NotFound, Forbidden."""
    document = await seen(call, id)
    call.must(rule, target_project_id=document.state.project_id)
    return document


def missing(id: str) -> NotFound:
    return NotFound(f"No image found with ID {id[:64]}")


async def create(call: Call) -> Reply:
    project_id = call.token.project_id or ""
    id, wish = attributes.creation(call.body, project_id)
    if wish.project_id != project_id and not call.may("change_image_owner"):
        raise Forbidden(f"You are not permitted to create images owned by '{wish.project_id}'.")
    _may_show(call, wish.visibility, wish.project_id)
    if id is not None and await call.cloud.log.load([IMAGE.stream(id)]):
        raise Conflict(f"Image ID {id} already exists!")
    [document] = await call.execute(Wish(IMAGES, id or clock.uuid4(), wish))
    return Reply(view(document.state), headers={"Location": call.url(f"/images/{document.id}")})


async def index(call: Call) -> dict[str, Any]:
    query = call.query
    wanted = listing.page(query, call.token.project_id, admin=call.token.is_admin)
    try:
        found = (
            await call.cloud.documents.find(
                IMAGE, where=wanted.where, sort=wanted.sort, limit=wanted.limit, marker=wanted.marker
            )
            if wanted.limit
            else []
        )
    except NotFound:
        raise Invalid(f"Invalid marker: image {(wanted.marker or '')[:64]} could not be found.") from None
    images = [view(document.state) for document in found]
    return {"images": images, **listing.links(query, len(found), wanted.limit, found[-1].id if found else "")}


async def show(call: Call) -> dict[str, Any]:
    return view((await seen(call, call.path["id"])).state)


async def tasks(call: Call) -> dict[str, Any]:
    """Nothing is done to an image in the background: what is there is whole."""
    await seen(call, call.path["id"])
    return {"tasks": []}


async def update(call: Call) -> dict[str, Any]:
    media_type = call.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in patch.MEDIA_TYPES:
        raise _NotAPatch(media_type)
    operations = patch.parse(_json(call.body), media_type)
    document = await owned(call, call.path["id"], "modify_image")
    wish = patch.change(document.state, operations)
    _check(call, document.state, wish)
    [document] = await call.execute(Wish(IMAGES, document.id, wish))
    return view(document.state)


async def delete(call: Call) -> None:
    document = await owned(call, call.path["id"], "delete_image")
    [document] = await call.execute(Wish(IMAGES, document.id, DeleteImage()))
    if document.state.data_id:
        await image_store(call.cloud.settings).remove(document.state.data_id)


async def deactivate(call: Call) -> None:
    document = await owned(call, call.path["id"], "deactivate")
    await call.execute(Wish(IMAGES, document.id, DeactivateImage()))


async def reactivate(call: Call) -> None:
    document = await owned(call, call.path["id"], "reactivate")
    await call.execute(Wish(IMAGES, document.id, ReactivateImage()))


async def tag(call: Call) -> None:
    if len(call.path["tag"]) > TAG_LENGTH:
        raise Invalid(f"A tag has {TAG_LENGTH} characters at most.")
    document = await owned(call, call.path["id"], "modify_image")
    await call.execute(Wish(IMAGES, document.id, TagImage(tag=call.path["tag"])))


async def untag(call: Call) -> None:
    document = await owned(call, call.path["id"], "modify_image")
    if call.path["tag"] not in document.state.tags:
        raise NotFound(f"Image {document.id} has no tag {call.path['tag'][:64]!r}.")
    await call.execute(Wish(IMAGES, document.id, UntagImage(tag=call.path["tag"])))


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("The request body is not well-formed JSON.") from None


class _NotAPatch(WrongContentType):
    """The body is no JSON patch of images (415, saying what would be)."""

    def __init__(self, given: str) -> None:
        super().__init__(given[:64], 415, patch.MEDIA_TYPES)
        self.headers = {"Accept-Patch": ", ".join(patch.MEDIA_TYPES)}


def _check(call: Call, image: Image, wish: ChangeImage) -> None:
    """What only some may change."""
    if isinstance(wish.project_id, str) and not call.may("change_image_owner"):
        raise Forbidden("Owner can't be updated by non admin.")
    if isinstance(wish.visibility, str):
        _may_show(call, wish.visibility, image.project_id)


def _may_show(call: Call, visibility: str, project_id: str) -> None:
    if visibility == PUBLIC:
        call.must("publicize_image", target_project_id=project_id)
    elif visibility == COMMUNITY:
        call.must("communitize_image", target_project_id=project_id)


routes = [
    Post("/images", create, may="add_image", body=dict[str, Any]),
    Get("/images", index, may="get_images"),
    Get("/images/{id}", show, may="get_image"),
    Get("/images/{id}/tasks", tasks, may="get_image"),
    Patch("/images/{id}", update, may="modify_image", body=bytes, accepts=patch.MEDIA_TYPES),
    Delete("/images/{id}", delete, may="delete_image"),
    Post("/images/{id}/actions/deactivate", deactivate, may="deactivate", answers=204),
    Post("/images/{id}/actions/reactivate", reactivate, may="reactivate", answers=204),
    Put("/images/{id}/tags/{tag}", tag, may="modify_image", answers=204),
    Delete("/images/{id}/tags/{tag}", untag, may="modify_image"),
]
