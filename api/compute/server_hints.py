"""Scheduler hints, as servers are ordered with them: those Nova knows are checked, others kept for who knows them.

group, same_host, different_host    ids of a server group, and of servers
query                               a question about hosts, in JSON
build_near_host_ip, cidr            an address, and how near
target_cell, different_cell         accepted: there is one cell
reservation, …                      for filters of third parties (`Request.hints`)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import msgspec

from schema.refusal import Invalid

HINTS = 64
"""Of one server; further ones are left out."""
QUESTION = 4096
"""Letters."""
LONGEST = 255
"""Letters of any other."""


def hints_of(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every value a list of texts; empty ones are left out. Raises Invalid in Nova's words."""
    hints: dict[str, list[str]] = {}
    for name, value in list(given.items())[:HINTS]:
        if name in _CHECKS:
            _CHECKS[name](name, value)
        texts = [_question(value)] if name == "query" else [_text(it)[:LONGEST] for it in _listed(value)]
        if texts := [it for it in texts if it]:
            hints[name[:LONGEST]] = texts
    return hints


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _question(value: Any) -> str:
    text = _text(value)
    if len(text) > QUESTION:
        raise Invalid(f"Invalid input for field os:scheduler_hints.query: it is longer than {QUESTION} letters")
    return text


def _must(name: str, value: Any, why: str, *, so: bool) -> None:
    if not so:
        shown = str(value)[:LONGEST]
        raise Invalid(f"Invalid input for field/attribute {name}. Value: {shown}. {why}")


def _check_text(name: str, value: Any) -> None:
    _must(name, value, f"{value!r} is not of type 'string'", so=isinstance(value, str))


def _check_uuid(name: str, value: Any) -> None:
    _check_text(name, value)
    try:
        UUID(value)
    except ValueError:
        _must(name, value, f"{value[:LONGEST]!r} is not a 'uuid'", so=False)


def _check_each(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    def each(name: str, value: Any) -> None:
        for it in _listed(value):
            check(name, it)

    return each


def _check_question(name: str, value: Any) -> None:
    _must(name, value, f"{value!r} is not of type 'string', 'object'", so=isinstance(value, str | dict))


def _check_address(name: str, value: Any) -> None:
    _check_text(name, value)
    try:
        ip_address(value)
    except ValueError:
        _must(name, value, f"{value[:LONGEST]!r} is not valid under any of the given schemas", so=False)


def _check_cidr(name: str, value: Any) -> None:
    _check_text(name, value)
    _must(name, value, f"{value!r} does not match {_CIDR.pattern!r}", so=_CIDR.search(value) is not None)


def _check_name(name: str, value: Any) -> None:
    _check_text(name, value)
    _must(name, value, f"{value!r} is too short", so=bool(value.strip()))
    _must(name, value, f"{value[:LONGEST]!r} is too long", so=len(value) <= LONGEST)


_CIDR = re.compile(r"^/[0-9a-f.:]+$")

_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "group": _check_uuid,
    "same_host": _check_each(_check_uuid),
    "different_host": _check_each(_check_uuid),
    "query": _check_question,
    "build_near_host_ip": _check_address,
    "cidr": _check_cidr,
    "target_cell": _check_name,
    "different_cell": _check_each(_check_text),
}
