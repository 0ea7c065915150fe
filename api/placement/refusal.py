"""What is wrong with a body, as placement's clients are used to being told: by the rule of JSON schema it breaks."""

from __future__ import annotations

import re

from api.wire.body import explained

_RULES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"missing required field"), "required", ""),
    (re.compile(r"unknown field"), "additionalProperties", ""),
    (re.compile(r"`(?:str)` of length >="), "minLength", ""),
    (re.compile(r"`(?:str)` of length <="), "maxLength", ""),
    (re.compile(r"`array` of length >="), "minItems", "it should be non-empty"),
    (re.compile(r"`object` of length >="), "minProperties", "it should be non-empty"),
    (re.compile(r"`(?:int|float)` >="), "minimum", ""),
    (re.compile(r"`(?:int|float)` <="), "maximum", ""),
    (re.compile(r"matching regex '\^\[0-9a-fA-F"), "format", "it is not a 'uuid'"),
    (re.compile(r"matching regex"), "pattern", ""),
    (re.compile(r"^Expected"), "type", ""),
)
"""Msgspec's words, the rule's name, and what else is said."""


def body_refusal(message: str) -> str:
    """Msgspec's refusal, the field and the broken rule named."""
    said = f"JSON does not validate: {explained(message)}"
    for pattern, rule, more in _RULES:
        if pattern.search(message):
            said += f", {more}" if more else ""
            return f"{said}\n\nFailed validating '{rule}' in schema"
    return said
