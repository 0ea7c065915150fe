"""Query strings, parsed strictly: into a multidict, or a struct with numbers and booleans as OpenStack writes them."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from urllib.parse import unquote_to_bytes

import msgspec
from multidict import MultiDict, MultiDictProxy, MultiMapping

from schema.refusal import Invalid

Query = MultiMapping[str]
PAIRS = 1000
"""Parameters in one query string, at most."""

_EMPTY: MultiDictProxy[str] = MultiDictProxy(MultiDict())

_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})

T = TypeVar("T")


def parse(text: str) -> Query:
    """A raw query string. Raises Invalid: not UTF-8, a NUL, too many parameters."""
    if not text:
        return _EMPTY
    parts = text.split("&")
    if len(parts) > PAIRS:
        raise Invalid(f"The query string has more than {PAIRS} parameters.")
    pairs: MultiDict[str] = MultiDict()
    for part in parts:
        if part:
            name, _, value = part.partition("=")
            pairs.add(decoded(name, plus=True), decoded(value, plus=True))
    return MultiDictProxy(pairs)


def decoded(text: str, *, plus: bool = False) -> str:
    """Percent-decoded text. Raises Invalid when it is not UTF-8 or holds a NUL."""
    if plus and "+" in text:
        text = text.replace("+", " ")
    if "%" in text:
        try:
            text = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            raise Invalid("The URL is not percent-encoded UTF-8.") from None
    elif not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Invalid("The URL is not UTF-8.") from None
    if "\0" in text:
        raise Invalid("The URL must not contain a NUL character.")
    return text


def boolean(text: str) -> bool | None:
    """A boolean as OpenStack's services read it: `true`, `1`, `yes`, `on` and their opposites; None for neither."""
    lowered = text.strip().lower()
    return True if lowered in _TRUE else False if lowered in _FALSE else None


def convert(query: Query, into: type[T]) -> T:
    """The query string as a struct. A repeated name gives a list where the struct wants one, else its last value.

    Raises Invalid, naming the parameter.
    """
    fields = _fields(cast("Hashable", into))
    values: dict[str, Any] = {}
    for name in query:
        field = fields.get(name)
        if field is None:
            if into.__struct_config__.forbid_unknown_fields:  # type: ignore[attr-defined]
                raise Invalid(f"Additional properties are not allowed ({name!r} was unexpected).")
            continue
        kind, many = field
        raw = query.getall(name)
        values[name] = [_value(name, item, kind) for item in raw] if many else _value(name, raw[-1], kind)
    try:
        return msgspec.convert(values, into, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"Invalid query parameter: {_plainly(str(error))}") from None


def _plainly(message: str) -> str:
    return message.replace("$.", "")


def _value(name: str, text: str, kind: Any) -> Any:
    if kind is bool:
        value = boolean(text)
        if value is None:
            raise Invalid(f"Invalid value {text!r} for {name}: it must be true or false.")
        return value
    if kind is datetime:
        try:
            return msgspec.convert(text.strip().replace(" ", "T" if "T" not in text else "+"), datetime)
        except msgspec.ValidationError:
            raise Invalid(
                f"Invalid value {text!r} for {name}: it must be a time such as 2030-01-31T12:00:00Z."
            ) from None
    return text


@cache
def _fields(into: Any) -> dict[str, tuple[Any, bool]]:
    """Parameter name → (plain type, whether it is a list)."""
    hints = get_type_hints(into)
    return {field.encode_name: _kind(hints[field.name]) for field in msgspec.structs.fields(into)}


def _kind(hint: Any) -> tuple[Any, bool]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return next((_kind(part) for part in get_args(hint) if part is not type(None)), (str, False))
    if origin in (list, tuple):
        return get_args(hint)[0], True
    return hint, False
