"""Request bodies: read within a limit, checked to be UTF-8 JSON without NULs, decoded into the route's struct."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from api.wire.call import Call
from api.wire.tables import Row
from schema.refusal import Invalid, Refused

MALFORMED = "Malformed JSON"

_decode_action = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class TooLarge(Refused):
    """The body exceeds the limit (413)."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"Request is too large. The body may have {limit} bytes at most.")


class WrongContentType(Refused):
    """The body is not of a content type this URL takes."""

    def __init__(self, given: str, status: int, accepted: tuple[str, ...]) -> None:
        super().__init__(f"The media type {given} is not supported, use {' or '.join(accepted)}")
        self.status = status


async def whole(call: Call) -> bytes:
    """The body's bytes. Raises TooLarge."""
    request = call.request
    limit = call.cloud.settings.body_limit_bytes
    if (request.content_length or 0) > limit:
        raise TooLarge(limit)
    if not request.body_exists:
        return b""
    try:
        body = await request.content.read() if request.content.is_eof() else await _bounded(request, limit)
    except web.RequestPayloadError as error:
        raise Invalid(f"The body cannot be read: {error}") from None
    call.raw_body = body
    return body


async def _bounded(request: web.BaseRequest, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > limit:
            raise TooLarge(limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def check_type(call: Call, row: Row, body: bytes) -> None:
    """Refuse a body of a content type this URL does not take. Raises WrongContentType, Invalid."""
    given = call.request.headers.get("Content-Type")
    if row.decode is None:
        return
    if given is None and row.service.typed_bodies:
        if body:
            raise Invalid("content-type header required when content-length > 0")
        raise WrongContentType("None", call.service.errors.wrong_content_type, row.route.accepts)
    if given is None or not (body or row.service.typed_bodies):
        return
    plain = given.partition(";")[0].strip().lower()
    if plain not in row.route.accepts:
        raise WrongContentType(given[:64], call.service.errors.wrong_content_type, row.route.accepts)


def decode(row: Row, body: bytes) -> Any:
    """The body as the row's struct. Raises Invalid, naming the field."""
    if row.decode is None:
        return body
    if not body:
        if not row.route.optional_body:
            raise Invalid(f"{MALFORMED}: a JSON object is expected as the body of this request.")
        body = b"{}"
    return _struct(row, body)


def decode_action(call: Call, body: bytes, words: Any) -> tuple[str, bytes]:
    """The one word of an action's body, and what it holds. Raises Invalid."""
    _check_depth(body)
    try:
        action = _decode_action(body or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("Malformed request body: it must be a JSON object of one action.") from None
    if len(action) != 1:
        raise Invalid("The body must hold exactly one action.")
    [(word, held)] = action.items()
    if word not in words:
        raise Invalid(f"There is no such action: {word[:64]}")
    return word, bytes(held)


def decode_held(row: Row, held: bytes) -> Any:
    """What an action's word holds, as the row's struct; None when the row wants none."""
    if row.decode is None:
        return None
    return _struct(row, b"{}" if held == b"null" and row.route.optional_body else held)


def _struct(row: Row, body: bytes) -> Any:
    _check_depth(body)
    try:
        decoded = row.decode(body) if row.decode else None
    except msgspec.ValidationError as error:
        _must_be_json(body)
        refusal = row.service.body_refusal
        raise Invalid(refusal(str(error), body) if refusal else explained(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(f"{MALFORMED}: the request body is not well-formed.") from None
    if (b"\\u0000" in body or b"\0" in body) and _has_nul(msgspec.json.decode(body)):
        raise Invalid("The request body must not contain NUL characters.")
    return decoded


def _must_be_json(body: bytes) -> None:
    """The decoder stops at the first thing it did not expect; what follows may be no JSON at all, which comes first."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(f"{MALFORMED}: the request body is not well-formed.") from None


DEEPEST = 64
"""Objects and lists within each other, at most: what is kept as it came must be readable by everybody after us."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def _check_depth(body: bytes) -> None:
    """Raises Invalid for JSON nested too deeply. Looks closer only where there are brackets enough."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    depth = 0
    for bracket in _BRACKETS.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            raise Invalid(f"The request body is not acceptable: it is nested more than {DEEPEST} levels deep.")


_shapes: dict[str, str] = {}
"""Patterns, as the decoder's refusals quote them, and what they want in words."""


def shape(pattern: str, words: str) -> str:
    """A pattern for `Meta`, and what a person is told whose value does not have it."""
    _shapes[repr(pattern)] = words
    return pattern


_AT = re.compile(r" - at (`key` in )?`\$?\.?(.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.+)`")
_UNSHAPED = re.compile(r"Expected `str` matching regex (.+)", re.DOTALL)


def explained(message: str) -> str:
    """Msgspec's refusal in the words OpenStack's clients know, the field named."""
    at = _AT.search(message)
    what = message[: at.start()] if at else message
    where = at[2] if at else ""
    inside = f" in {where}" if where else ""
    if missing := _MISSING.match(what):
        return f"Invalid input{inside}: '{missing[1]}' is a required property"
    if unknown := _UNKNOWN.match(what):
        return f"Additional properties are not allowed{inside} ('{unknown[1]}' was unexpected)"
    field = f"Invalid input for field {where}: " if where else "Invalid input: "
    if (unshaped := _UNSHAPED.match(what)) and unshaped[1] in _shapes:
        return field + _shapes[unshaped[1]]
    return field + what[:1].lower() + what[1:].replace("`", "'")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))
