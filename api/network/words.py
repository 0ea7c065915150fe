"""The types that Neutron's bodies are made of, and how a body that does not fit is refused."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from schema.refusal import Invalid


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A body, or a part of one. What Neutron does not know, it does not take."""


Text = Annotated[str, Meta(max_length=255)]
LongText = Annotated[str, Meta(max_length=1024)]
Uuid = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$")]
Project = Annotated[str, Meta(max_length=255)]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]


def bad(field: str, why: str) -> Invalid:
    """A value that does not do, as Neutron words it."""
    return Invalid(f"Invalid input for {field}. Reason: {why}.", code="HTTPBadRequest")


def missing(field: str) -> Invalid:
    """A value that has to be said, and is not."""
    return Invalid(f"Failed to parse request. Required attribute '{field}' not specified", code="HTTPBadRequest")


def address(field: str, text: str) -> str:
    """An IP address in its usual form. Raises Invalid."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise bad(field, f"'{text[:64]}' is not a valid IP address") from None


def cidr(field: str, text: str) -> str:
    """A network in its usual form, as Neutron takes it: bits beyond its length are cut off. Raises Invalid."""
    try:
        return str(ipaddress.ip_network(text if "/" in text else "no length", strict=False))
    except ValueError:
        raise bad(field, f"'{text[:64]}' is not a valid CIDR") from None


def refuse_read_only(body: Body, names: Iterable[str]) -> None:
    """Raises Invalid when a change names what never changes."""
    for name in names:
        if getattr(body, name) is not UNSET:
            raise Invalid(f"Cannot update read-only attribute {name}", code="HTTPBadRequest")


def dns_domain(text: str) -> str:
    """A domain's full name, in small letters. Raises Invalid."""
    text = text.lower()
    if text and not (_DOMAIN.fullmatch(text) and text.endswith(".")):
        raise bad("dns_domain", f"'{text[:64]}' is not a FQDN")
    return text


_DOMAIN = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+")
_AT = re.compile(r" - at `(key in )?\$?\.?(.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.+)`")


def body_refusal(message: str, body: bytes) -> str:
    """What is wrong with a body, in words Neutron's clients know."""
    at = _AT.search(message)
    what = message[: at.start()] if at else message
    where = at[2] if at else ""
    if missing := _MISSING.match(what):
        return f"Failed to parse request. Required attribute '{missing[1]}' not specified"
    if unknown := _UNKNOWN.match(what):
        return f"Unrecognized attribute(s) '{unknown[1]}'"
    field = where.rpartition(".")[2] or "the body"
    return f"Invalid input for {field}. Reason: {what[:1].lower() + what[1:].replace('`', chr(39))}."
