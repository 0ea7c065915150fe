"""Images as compute once showed them: until 2.35 (their metadata: 2.38), by asking the image service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from api.compute import elsewhere
from api.compute.elsewhere import BEFORE_PROXIES_WENT
from api.compute.page import links, next_link, page_size
from api.compute.words import Metadata
from api.image.image import owned
from api.wire import Call, Delete, Get, Post, Put
from bus.execute import Wish
from handlers.compute.quota import defaults, limits_in_force, quota_of
from handlers.image.image import IMAGES
from schema.compute.quota import UNLIMITED
from schema.image.image import ChangeImage, Image
from schema.refusal import Forbidden, Invalid, NotFound

RULE = "os_compute_api:images"
METADATA = "os_compute_api:image-metadata"
SIZE = "os_compute_api:image-size"
PATH = "/images"
_METADATA_UNTIL = "2.38"

_STATUS = {"active": "ACTIVE", "queued": "SAVING", "saving": "SAVING", "uploading": "SAVING", "importing": "SAVING"}
"""As Nova names the image service's; all others are UNKNOWN."""
_PROGRESS = {"queued": 25, "saving": 50, "uploading": 50, "importing": 50, "active": 100}
_FILTERS = {
    "name": "name",
    "server": "instance_uuid",
    "type": "image_type",
    "minRam": "min_ram",
    "minDisk": "min_disk",
}


class MetadataBody(Struct, forbid_unknown_fields=True):
    metadata: Metadata


class ItemBody(Struct, forbid_unknown_fields=True):
    meta: Metadata


class TooMuchMetadata(Forbidden):
    """More than the quota allows (403)."""


async def index(call: Call) -> dict[str, Any]:
    found, following = await _found(call)
    short = [{name: shown[name] for name in ("id", "name", "links")} for it in found if (shown := _view(call, it))]
    return {"images": short, **following}


async def detail(call: Call) -> dict[str, Any]:
    found, following = await _found(call)
    return {"images": [_view(call, it) for it in found], **following}


async def show(call: Call) -> dict[str, Any]:
    return {"image": _view(call, await _by_id(call))}


async def delete(call: Call) -> None:
    try:
        await elsewhere.image(call, "DELETE", f"/images/{call.path['id']}")
    except NotFound:
        raise NotFound("Image not found.") from None


async def show_metadata(call: Call) -> dict[str, Any]:
    return {"metadata": _properties(await _by_id(call))}


async def add_metadata(call: Call) -> dict[str, Any]:
    return {"metadata": await _changed(call, call.body.metadata)}


async def replace_metadata(call: Call) -> dict[str, Any]:
    return {"metadata": await _changed(call, call.body.metadata, whole=True)}


async def show_item(call: Call) -> dict[str, Any]:
    key = call.path["key"]
    properties = _properties(await _by_id(call))
    if key not in properties:
        raise NotFound("Metadata item was not found")
    return {"meta": {key: properties[key]}}


async def set_item(call: Call) -> dict[str, Any]:
    key, meta = call.path["key"], call.body.meta
    if key not in meta:
        raise Invalid("Request body and URI mismatch")
    if len(meta) > 1:
        raise Invalid("Request body contains too many items")
    await _changed(call, meta)
    return {"meta": meta}


async def delete_item(call: Call) -> None:
    document = await _owned(call)
    if call.path["key"] not in document.properties:
        raise NotFound("Invalid metadata key")
    wish = Wish(IMAGES, document.id, ChangeImage(properties_removed=(call.path["key"],)))
    await call.execute(wish)


async def _changed(call: Call, metadata: dict[str, str], *, whole: bool = False) -> dict[str, str]:
    """The image's properties, with these or with nothing but these. Raises TooMuchMetadata."""
    image = await _owned(call)
    quota = await quota_of(call.cloud, call.token.project_id or "")
    limit = limits_in_force(quota, defaults(call.cloud))["metadata_items"]
    after = metadata if whole else image.properties | metadata
    if limit != UNLIMITED and len(after) > limit:
        raise TooMuchMetadata(f"Image metadata limit exceeded: it may have {limit} items.")
    gone = tuple(key for key in image.properties if key not in after)
    [document] = await call.execute(
        Wish(IMAGES, image.id, ChangeImage(properties_set=metadata, properties_removed=gone))
    )
    changed: Image = document.state
    return changed.properties


async def _owned(call: Call) -> Image:
    try:
        image: Image = (await owned(call, call.path["id"], "modify_image")).state
    except NotFound:
        raise NotFound("Image not found.") from None
    return image


async def _by_id(call: Call) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await elsewhere.image(call, "GET", f"/images/{call.path['id']}")
    except NotFound:
        raise NotFound("Image not found.") from None
    return found


async def _found(call: Call) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The page of images that was asked for, and the link to the next one."""
    limit = _limit(call)
    query = {**_wanted(call), "limit": str(limit)}
    if marker := call.query.get("marker"):
        query["marker"] = marker
    try:
        found = (await elsewhere.image(call, "GET", "/images", query))["images"] if limit else []
    except Invalid as error:
        if "marker" in error.message:
            raise Invalid(f"marker [{call.query.get('marker')}] not found") from None
        raise
    full = "limit" in call.query and len(found) == limit
    following = next_link(call, found, lambda it: it["id"]) if full else []
    return found, {"images_links": following} if following else {}


class _Limited(Struct):
    limit: int | None


def _limit(call: Call) -> int:
    text = call.query.get("limit")
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid("limit param must be an integer" if not text.startswith("-") else "limit param must be positive")
    call.params = _Limited(None if text is None else int(text))
    return page_size(call)


def _wanted(call: Call) -> dict[str, str]:
    """The filters, in the image service's words. Raises Invalid."""
    wanted: dict[str, str] = {}
    for name, value in call.query.items():
        if name == "status":
            fit = [its for its, ours in _STATUS.items() if ours == value.upper()] or [value.lower()]
            wanted["status"] = f"in:{','.join(fit)}"
        elif name == "changes-since":
            wanted["updated_at"] = f"gte:{_moment(value)}"
        elif name in _FILTERS:
            # A server may be named by its address.
            wanted[_FILTERS[name]] = value.rpartition("/")[2] if name == "server" else value
        elif name.startswith("property-"):
            wanted[name.removeprefix("property-")] = value
    return wanted


def _moment(text: str) -> str:
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise Invalid("Invalid changes-since value") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_FIELDS = frozenset(
    (
        *("id", "name", "status", "visibility", "protected", "os_hidden", "owner", "disk_format", "container_format"),
        *("min_disk", "min_ram", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "tags"),
        *("created_at", "updated_at", "self", "file", "schema"),
    )
)
"""What is no property of an image."""


def _properties(image: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in image.items() if name not in _FIELDS}


def _view(call: Call, image: dict[str, Any]) -> dict[str, Any]:
    properties = _properties(image)
    path = f"{PATH}/{image['id']}"
    elsewhere_href = f"{call.host_url}/image{path}"
    shown: dict[str, Any] = {
        "id": image["id"],
        "name": image["name"],
        "minRam": image["min_ram"],
        "minDisk": image["min_disk"],
        "metadata": properties,
        "created": image["created_at"],
        "updated": image["updated_at"],
        "status": _STATUS.get(image["status"], "UNKNOWN"),
        "progress": _PROGRESS.get(image["status"], 0),
        "links": [
            *links(call, path),
            {"rel": "alternate", "type": "application/vnd.openstack.image", "href": elsewhere_href},
        ],
    }
    if call.may(SIZE):
        shown["OS-EXT-IMG-SIZE:size"] = image["size"] or 0
    if server_id := properties.get("instance_uuid"):
        shown["server"] = {"id": server_id, "links": links(call, f"/servers/{server_id}")}
    if "auto_disk_config" in properties:
        automatic = properties["auto_disk_config"].lower() in {"true", "1", "yes", "on"}
        shown["OS-DCF:diskConfig"] = "AUTO" if automatic else "MANUAL"
    return shown


routes = [
    Get(PATH, index, may=f"{RULE}:list", until=BEFORE_PROXIES_WENT),
    Get(f"{PATH}/detail", detail, may=f"{RULE}:list", until=BEFORE_PROXIES_WENT),
    Get(f"{PATH}/{{id}}", show, may=f"{RULE}:show", until=BEFORE_PROXIES_WENT),
    Delete(f"{PATH}/{{id}}", delete, may=f"{RULE}:delete", until=BEFORE_PROXIES_WENT),
    Get(f"{PATH}/{{id}}/metadata", show_metadata, may=f"{METADATA}:index", until=_METADATA_UNTIL),
    Post(
        f"{PATH}/{{id}}/metadata",
        add_metadata,
        may=f"{METADATA}:create",
        body=MetadataBody,
        answers=200,
        until=_METADATA_UNTIL,
    ),
    Put(
        f"{PATH}/{{id}}/metadata",
        replace_metadata,
        may=f"{METADATA}:update_all",
        body=MetadataBody,
        until=_METADATA_UNTIL,
    ),
    Get(f"{PATH}/{{id}}/metadata/{{key}}", show_item, may=f"{METADATA}:show", until=_METADATA_UNTIL),
    Put(f"{PATH}/{{id}}/metadata/{{key}}", set_item, may=f"{METADATA}:update", body=ItemBody, until=_METADATA_UNTIL),
    Delete(f"{PATH}/{{id}}/metadata/{{key}}", delete_item, may=f"{METADATA}:delete", until=_METADATA_UNTIL),
]
