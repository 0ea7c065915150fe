"""Extra specs in the namespaces Cumulog's compute service knows: whether there is such a one, and what it may say.

A key in a namespace nobody knows, or in none, is the operator's own and passes. Words and rules are Nova's.
"""

from __future__ import annotations

import re
from functools import cache

from handlers.compute.extra_spec_table import PARTS, SPECS, VALUE, Boolean, Text, Value, Whole
from handlers.placement.trait import standard_traits
from schema.placement.resource_class import STANDARD_CLASSES
from schema.refusal import Invalid

KEY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")
VALUE_LENGTH = 255

_BOOLEANS = frozenset({"1", "t", "true", "on", "y", "yes", "0", "f", "false", "off", "n", "no"})
_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,30}\s*")


def valid_key(key: str) -> bool:
    """Whether this can be the name of an extra spec at all."""
    return KEY.fullmatch(key) is not None


def check(key: str, value: str) -> None:
    """Raise Invalid for a key the known namespaces do not have, and for a value its key cannot take."""
    allowed = _allowed(key)
    if allowed is not None:
        if objection := _objection(allowed, value):
            raise Invalid(f"Validation failed; '{value}' is {objection}.")
    elif _namespaces().fullmatch(key.partition(":")[0]) and ":" in key:
        raise Invalid(f"Validation failed; extra spec '{key}' does not appear to be a valid extra spec.")


def _allowed(key: str) -> Value | None:
    """What the value of that one may be; None: there is none of that name."""
    namespace, _, name = key.partition(":")
    standard = (namespace.startswith("resources") and name in STANDARD_CLASSES) or (
        namespace.startswith("trait") and name in standard_traits()
    )
    wanted = f"{namespace}:CUSTOM_{name}" if standard else key
    return SPECS.get(wanted) or next((it for pattern, it in _patterns() if pattern.fullmatch(wanted)), None)


def _objection(allowed: Value, value: str) -> str:
    """What such a value is or is not; empty: nothing speaks against it."""
    match allowed:
        case Boolean():
            return "" if value.strip().lower() in _BOOLEANS else "not a valid boolean-like value"
        case Whole(least=least, most=most):
            if not _NUMBER.fullmatch(value):
                return "not a valid integer value"
            if most is not None and int(value) > most:
                return f"greater than the max value of '{most}'"
            return f"less than the min value of '{least}'" if least is not None and int(value) < least else ""
        case Text(pattern=pattern, words=words):
            if words and value not in words:
                return f"not one of: {', '.join(words)}"
            return f"not of the format '{pattern}'" if pattern and not re.fullmatch(pattern, value) else ""


@cache
def _patterns() -> list[tuple[re.Pattern[str], Value]]:
    """The names with something to be filled in."""
    return [(re.compile(_filled(name)), allowed) for name, allowed in SPECS.items() if "{" in name]


@cache
def _namespaces() -> re.Pattern[str]:
    return re.compile("|".join(sorted({_filled(name.partition(":")[0]) for name in SPECS if ":" in name})))


def _filled(name: str) -> str:
    return VALUE.sub(lambda part: PARTS[part[1]], name.replace(".", r"\."))
