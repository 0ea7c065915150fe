"""What clients ask about the service itself: JSON schemas of its words, stores, ways to import, versions."""

from __future__ import annotations

from typing import Any

from api.wire import Call, Delete, Get, Patch, Post, Put, Reply
from api.wire.dispatch import UnknownUrl
from schema.image.image import CONTAINER_FORMATS, DISK_FORMATS, MEMBER_STATUSES, VISIBILITIES

MINOR_VERSIONS = (17, 16, 15, 14, 9, 7, 6, 5, 4, 3, 2, 1, 0)
STATUSES = (
    "queued",
    "saving",
    "active",
    "killed",
    "deleted",
    "uploading",
    "importing",
    "pending_delete",
    "deactivated",
)
_UUID = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _text_or_none(description: str, length: int = 255, **more: Any) -> dict[str, Any]:
    return {"type": ["null", "string"], "description": description, "maxLength": length, **more}


def _count(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "description": description, **more}


def _size(description: str) -> dict[str, Any]:
    return {"type": ["null", "integer"], "readOnly": True, "description": description}


def _format(description: str, choices: tuple[str, ...]) -> dict[str, Any]:
    return {"type": ["null", "string"], "description": description, "enum": [None, *choices]}


def _own(kind: str) -> dict[str, Any]:
    return {"type": "string", "readOnly": True, "description": f"A path of this {kind}."}


IMAGE: dict[str, Any] = {
    "name": "image",
    "properties": {
        "id": _text("What the image is known by.", pattern=_UUID),
        "name": _text_or_none("A name for people."),
        "status": _text("Where its life has come to.", readOnly=True, enum=list(STATUSES)),
        "visibility": _text("Who may see it.", enum=list(VISIBILITIES)),
        "protected": {"type": "boolean", "description": "Whether it is kept from being deleted."},
        "os_hidden": {"type": "boolean", "description": "Whether lists leave it out unless asked."},
        "owner": _text_or_none("The project it belongs to."),
        "disk_format": _format("How its data is laid out.", DISK_FORMATS),
        "container_format": _format("What its data is wrapped in.", CONTAINER_FORMATS),
        "min_disk": _count("GiB of disk a server needs for it."),
        "min_ram": _count("MiB of memory a server needs for it."),
        "size": _size("Bytes of its data."),
        "virtual_size": _size("Bytes of the disk a guest sees."),
        "checksum": _text_or_none("MD5 of its data.", 32, readOnly=True),
        "os_hash_algo": _text_or_none("How os_hash_value was made.", 64, readOnly=True),
        "os_hash_value": _text_or_none("Hash of its data, hexadecimal.", 128, readOnly=True),
        "tags": {"type": "array", "description": "Words put on it.", "items": {"type": "string", "maxLength": 255}},
        "created_at": _text("When it was made.", readOnly=True),
        "updated_at": _text("When it was last changed.", readOnly=True),
        "self": _own("image"),
        "file": _own("image's data"),
        "schema": _own("schema"),
    },
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
MEMBER: dict[str, Any] = {
    "name": "member",
    "properties": {
        "member_id": _text("The project the image is shared with."),
        "image_id": _text("The image.", pattern=_UUID),
        "status": _text("What that project said.", enum=list(MEMBER_STATUSES)),
        "created_at": _text("When it was shared."),
        "updated_at": _text("When that project last answered."),
        "schema": _own("schema"),
    },
}


def _list_of(one: dict[str, Any], name: str, *, paged: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {"type": "array", "items": one}, "schema": {"type": "string"}}
    links = [{"rel": "describedby", "href": "{schema}"}]
    if paged:
        properties |= {"first": {"type": "string"}, "next": {"type": "string"}}
        links = [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, *links]
    return {"name": name, "properties": properties, "links": links}


SCHEMAS = {
    "image": IMAGE,
    "images": _list_of(IMAGE, "images", paged=True),
    "member": MEMBER,
    "members": _list_of(MEMBER, "members", paged=False),
}


async def schema(call: Call) -> dict[str, Any]:
    try:
        return SCHEMAS[call.path["name"]]
    except KeyError:
        raise UnknownUrl from None


async def import_methods(call: Call) -> dict[str, Any]:
    return {"import-methods": {"type": "array", "description": "Ways to import besides PUT file.", "value": []}}


async def stores(call: Call) -> dict[str, Any]:
    return {"stores": [{"id": "file", "description": "Files of this cloud", "default": "true"}]}


async def versions(call: Call) -> dict[str, Any]:
    """Every version, the newest first; all at the same address."""
    link = {"rel": "self", "href": f"{call.host_url}/image/v2/"}
    return {
        "versions": [
            {"id": f"v2.{minor}", "status": "SUPPORTED" if nth else "CURRENT", "links": [link]}
            for nth, minor in enumerate(MINOR_VERSIONS)
        ]
    }


async def choices(call: Call) -> Reply:
    """The same for those who named no version: 300 Multiple Choices."""
    return Reply(await versions(call), status=300)


async def unknown(call: Call) -> None:
    raise UnknownUrl


routes = [
    Get("/schemas/{name}", schema, may="get_image_documents"),
    Get("/info/import", import_methods, may="get_image_documents"),
    Get("/info/stores", stores, may="get_image_documents"),
    *(method("/{rest*}", unknown, may="get_image_documents") for method in (Get, Post, Put, Patch, Delete)),
]
roots = [
    Get("/image/versions", versions, public=True),
    *(
        method(path, choices, public=True)
        for path in ("/image", "/image/v2", "/image/{rest*}")
        for method in (Get, Post, Put, Patch, Delete)
    ),
]
