"""What is wrong with a body or a query, as placement's clients are used to being told: in the words of JSON schema.

The decoder says which rule is broken and about where (`$.allocations[...].resources[...]`); the value that breaks it is
looked up in the body, and named with its rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from schema.refusal import Invalid

SHOWN_CHARACTERS = 300
"""Of a value that is named, at most."""

_decode = msgspec.json.Decoder(float_hook=float).decode
_AT = re.compile(r" - at (`key` in )?`\$(.*)`$", re.DOTALL)
_STEP = re.compile(r"\[(\d+|\.\.\.)\]|\.([^.\[]+)")
_UUID = r"^[0-9a-fA-F]{8}-?"
_TYPES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}


class _Rule(Struct, frozen=True):
    """A rule of JSON schema: how the decoder tells of it, what is said, and which values break it."""

    told: re.Pattern[str]
    name: str
    words: Callable[[str, re.Match[str]], str]
    broken: Callable[[Any, re.Match[str]], bool] = lambda value, match: False


def _shorter(value: Any, match: re.Match[str]) -> bool:
    return isinstance(value, (str, list, dict)) and len(value) < int(match[1])


def _other_type(value: Any, match: re.Match[str]) -> bool:
    kinds = {"array": list, "object": dict, "str": str, "int": int, "float": float, "bool": bool, "null": type(None)}
    return type(value) is kinds.get(match[2])


def _types(expected: str) -> str:
    return ", ".join(repr(_TYPES.get(name, name)) for name in expected.split(" | "))


_RULES = (
    _Rule(
        re.compile(r"Object missing required field `(.+)`"), "required", lambda v, m: f"'{m[1]}' is a required property"
    ),
    _Rule(
        re.compile(r"Object contains unknown field `(.+)`"),
        "additionalProperties",
        lambda v, m: f"Additional properties are not allowed ('{m[1]}' was unexpected)",
    ),
    _Rule(re.compile(r"Expected `str` of length >= (\d+)"), "minLength", lambda v, m: f"{v} is too short", _shorter),
    _Rule(
        re.compile(r"Expected `str` of length <= (\d+)"),
        "maxLength",
        lambda v, m: f"{v} is too long",
        lambda value, m: isinstance(value, str) and len(value) > int(m[1]),
    ),
    _Rule(
        re.compile(r"Expected `array` of length >= (\d+)"),
        "minItems",
        lambda v, m: f"{v} should be non-empty",
        _shorter,
    ),
    _Rule(
        re.compile(r"Expected `object` of length >= (\d+)"),
        "minProperties",
        lambda v, m: f"{v} should be non-empty",
        _shorter,
    ),
    _Rule(
        re.compile(r"Expected `(?:int|float)` >= (\S+)"),
        "minimum",
        lambda v, m: f"{v} is less than the minimum of {m[1]}",
        lambda value, m: isinstance(value, (int, float)) and value < float(m[1]),
    ),
    _Rule(
        re.compile(r"Expected `(?:int|float)` <= (\S+)"),
        "maximum",
        lambda v, m: f"{v} is greater than the maximum of {m[1]}",
        lambda value, m: isinstance(value, (int, float)) and value > float(m[1]),
    ),
    _Rule(
        re.compile(r"Expected `str` matching regex '(" + re.escape(_UUID) + ".*)'"),
        "format",
        lambda v, m: f"{v} is not a 'uuid'",
        lambda value, m: isinstance(value, str) and not re.search(m[1], value),
    ),
    _Rule(
        re.compile(r"Expected `str` matching regex '(.*)'"),
        "pattern",
        lambda v, m: f"{v} does not match '{m[1]}'",
        lambda value, m: isinstance(value, str) and not re.search(m[1], value),
    ),
    _Rule(
        re.compile(r"Expected `(.+)`, got `(.+)`"),
        "type",
        lambda v, m: f"{v} is not of type {_types(m[1])}",
        _other_type,
    ),
)


def body_refusal(message: str, body: bytes) -> str:
    """The decoder's refusal of this body, the value and the broken rule named. In one line: clients show the last."""
    at = _AT.search(message)
    what, of_key, path = (message[: at.start()], bool(at[1]), at[2]) if at else (message, False, "")
    for rule in _RULES:
        match = rule.told.match(what)
        if match is None:
            continue
        steps = _STEP.findall(path)
        for where, value in _values(_decode(body), steps, "", keys=of_key):
            if rule.broken(value, match):
                said = _said(rule, match, value, of_key=of_key)
                return f"JSON does not validate: {said}{_place(steps)}  On instance{where}"
        return f"JSON does not validate: {_said(rule, match, None, of_key=of_key)}{_place(steps)}"
    return f"JSON does not validate: {what}"


def wrong_query(words: str, rule: str) -> Invalid:
    """The refusal of a query that breaks a rule of JSON schema."""
    return Invalid(f"Invalid query string parameters: {words}  Failed validating '{rule}' in schema")


def _said(rule: _Rule, match: re.Match[str], value: Any, *, of_key: bool) -> str:
    shown, name = repr(value)[:SHOWN_CHARACTERS], rule.name
    if of_key:
        words, name = f"{shown} does not match any of the regexes: '{match[1]}'", "additionalProperties"
    else:
        words = rule.words(shown, match)
    return f"{words}  Failed validating '{name}' in schema"


def _place(steps: list[tuple[str, str]]) -> str:
    """Where the rule stands in the schema."""
    return "".join(f"['properties'][{field!r}]" if field else "['items']" for _, field in steps)


def _values(value: Any, steps: list[tuple[str, str]], where: str, *, keys: bool) -> Iterator[tuple[str, Any]]:
    """All that the decoder may mean (it names no keys), and where each of them is."""
    if not steps:
        if keys and isinstance(value, dict):
            yield from ((where, key) for key in value)
        elif not keys:
            yield where, value
        return
    (index, field), rest = steps[0], steps[1:]
    inner: Iterator[tuple[Any, Any]]
    if isinstance(value, dict):
        inner = ((key, item) for key, item in value.items() if field in {"", key})
    elif isinstance(value, list) and index.isdigit():
        inner = iter([(int(index), value[int(index)])])
    else:
        return
    for key, item in inner:
        yield from _values(item, rest, f"{where}[{key!r}]", keys=keys)
