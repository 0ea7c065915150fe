"""JSON patches of images: application/openstack-images-v2.1-json-patch, and the v2.0 way of writing them.

    [{"op": "replace", "path": "/name", "value": "x"}]            [{"replace": "/name", "value": "x"}]

A subset of RFC 6902 on one flat object: add, replace and remove of attributes and properties.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec.structs import asdict

from api.image.attributes import WRITABLE, may_be_written, written
from schema.image.image import CHANGEABLE, ChangeImage, Image
from schema.refusal import Conflict, Forbidden, Invalid

V21 = "application/openstack-images-v2.1-json-patch"
V20 = "application/openstack-images-v2.0-json-patch"
MEDIA_TYPES = (V20, V21)

OPERATIONS = 256
"""Operations in one patch, at most."""
_WORDS = ("add", "replace", "remove")
_UNKNOWN_ESCAPE = re.compile(r"~(?![01])")


class Operation(msgspec.Struct, frozen=True):
    do: Literal["add", "replace", "remove"]
    name: str
    """Attribute or property, as on the wire."""
    value: Any = None


def parse(document: Any, media_type: str) -> list[Operation]:
    """What a patch asks for. Raises Invalid, and Forbidden for attributes nobody may write."""
    if not isinstance(document, list):
        raise Invalid("Request body must be a JSON array of operation objects.")
    if len(document) > OPERATIONS:
        raise Invalid(f"A patch may have {OPERATIONS} operations at most.")
    return [_operation(raw, media_type) for raw in document]


def change(image: Image, operations: Sequence[Operation]) -> ChangeImage:
    """The command that does all of it. Raises Conflict, Forbidden."""
    properties = dict(image.properties)
    attributes: dict[str, Any] = {}
    for operation in operations:
        name = operation.name
        if name in WRITABLE:
            if operation.do == "remove":
                raise Forbidden(f"Property {name} may not be removed.")
            attributes[WRITABLE[name][0]] = operation.value
        elif operation.do == "remove":
            if name not in properties:
                raise Conflict(f"Property {name} does not exist.")
            del properties[name]
        else:
            if operation.do == "replace" and name not in properties:
                raise Conflict(f"Property {name} does not exist.")
            properties[name] = operation.value
    before = asdict(image)
    return ChangeImage(
        **{field: value for field, value in attributes.items() if field in CHANGEABLE and value != before[field]},
        properties_set={k: v for k, v in properties.items() if image.properties.get(k) != v},
        properties_removed=tuple(k for k in image.properties if k not in properties),
    )


def _operation(raw: Any, media_type: str) -> Operation:
    if not isinstance(raw, dict):
        raise Invalid("Operations must be JSON objects.")
    word, path = _word_and_path(raw, media_type)
    name = _name(path)
    may_be_written(name)
    if word == "remove":
        return Operation(word, name)
    if "value" not in raw:
        raise Invalid(f'Operation "{word}" requires a member named "value".')
    return Operation(word, name, written(name, raw["value"])[1])


def _word_and_path(raw: dict[str, Any], media_type: str) -> tuple[Any, str]:
    if media_type == V21:
        word, path = raw.get("op"), raw.get("path")
    else:
        found = [word for word in _WORDS if word in raw]
        if len(found) != 1:
            raise Invalid(f"Operation objects must contain exactly one of {', '.join(_WORDS)}.")
        word, path = found[0], raw[found[0]]
    if word not in _WORDS:
        raise Invalid(f'The "op" of an operation must be one of {", ".join(_WORDS)}.')
    if not isinstance(path, str):
        raise Invalid('Operations must have a "path" that is a string.')
    return word, path


def _name(pointer: str) -> str:
    """The attribute a JSON pointer (RFC 6901) names. Raises Invalid."""
    if not pointer.startswith("/"):
        raise Invalid(f"Pointer `{pointer[:128]}` does not start with '/'.")
    name = pointer[1:]
    if _UNKNOWN_ESCAPE.search(name):
        raise Invalid(f"Pointer `{pointer[:128]}` contains '~' not part of a recognized escape sequence.")
    if not name or name.endswith("/") or "//" in pointer:
        raise Invalid(f"Pointer `{pointer[:128]}` names no attribute of an image.")
    if "/" in name:
        if name.startswith("locations/"):
            raise Forbidden("Attribute 'locations' is reserved.")
        raise Invalid(f"Invalid JSON pointer for this resource: '{pointer[:128]}'")
    return name.replace("~1", "/").replace("~0", "~")
