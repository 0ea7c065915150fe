"""What a client may write about an image: attributes in their types, everything else a property that is a string."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schema.image.image import CreateImage
from schema.refusal import Forbidden, Invalid

Text = Annotated[str, Meta(max_length=255)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Id = Annotated[str, Meta(pattern="^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$")]
Visibility = Literal["community", "public", "private", "shared"]
ContainerFormat = Literal["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"]
DiskFormat = Literal["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt"]

WRITABLE: dict[str, tuple[str, Any]] = {
    "name": ("name", Text | None),
    "visibility": ("visibility", Visibility),
    "protected": ("protected", bool),
    "os_hidden": ("hidden", bool),
    "owner": ("project_id", Text | None),
    "disk_format": ("disk_format", DiskFormat | None),
    "container_format": ("container_format", ContainerFormat | None),
    "min_disk": ("min_disk_gb", Count),
    "min_ram": ("min_ram_mb", Count),
    "tags": ("tags", list[Text]),
}
"""Name on the wire → (name in the state, type on the wire)."""

READ_ONLY = frozenset(
    {
        "id",
        "created_at",
        "updated_at",
        "status",
        "checksum",
        "size",
        "virtual_size",
        "os_hash_algo",
        "os_hash_value",
        "direct_url",
        "self",
        "file",
        "schema",
        "stores",
    }
)
RESERVED = frozenset({"location", "locations", "deleted", "deleted_at"})
RESERVED_PREFIX = "os_glance_"

PROPERTY_NAME_LENGTH = 255
PROPERTY_LENGTH = 65_535


def creation(body: dict[str, Any], project_id: str) -> tuple[str | None, CreateImage]:
    """The id asked for, if any, and the command. Raises Invalid, Forbidden."""
    asked = dict(body)
    id = _typed("id", asked.pop("id"), Id) if "id" in asked else None
    fields: dict[str, Any] = {"project_id": project_id}
    properties: dict[str, str] = {}
    for name, value in asked.items():
        may_be_written(name)
        field, checked = written(name, value)
        if name in WRITABLE:
            fields[field] = checked
        else:
            properties[name] = checked
    return id and id.lower(), CreateImage(**fields, properties=properties)


def may_be_written(name: str) -> None:
    """Raises Forbidden for attributes that are Glance's own."""
    if name in READ_ONLY:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise Forbidden(f"Attribute '{name}' is reserved.")


def written(name: str, value: Any) -> tuple[str, Any]:
    """The state's name for an attribute or property, and its value as the state keeps it. Raises Invalid."""
    if name not in WRITABLE:
        if not name or len(name) > PROPERTY_NAME_LENGTH:
            raise Invalid(f"Custom property names have 1 to {PROPERTY_NAME_LENGTH} characters.")
        return name, _typed(name, value, Annotated[str, Meta(max_length=PROPERTY_LENGTH)])
    field, kind = WRITABLE[name]
    checked = _typed(name, value, kind)
    if name == "tags":
        checked = tuple(dict.fromkeys(checked))
    if name == "owner":
        checked = checked or ""
    return field, checked


def _typed(name: str, value: Any, kind: Any) -> Any:
    try:
        typed = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        why = str(error).replace("`", "'").replace(" - at '$'", "")
        raise Invalid(f"Provided object does not match schema 'image': {name[:64]}: {why}") from None
    texts = [name, *(typed if isinstance(typed, list) else [typed])]
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise Invalid(f"{name[:64]!r} must not contain NUL characters.")
    return typed
