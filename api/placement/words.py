"""What placement's routes share: names and amounts on the wire, query parameters, and finding providers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Any

from msgspec import Meta

from api.wire import Call, Reply
from bus import clock
from bus.log import Document
from handlers.placement.trait import standard_traits
from schema.placement.provider import MOST, PROVIDER, Provider
from schema.placement.resource_class import RESOURCE_CLASS, STANDARD_CLASSES
from schema.placement.trait import TRAIT
from schema.refusal import Invalid, NotFound

UUID_PATTERN = r"^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$"
DASHED_PATTERN = r"^[0-9a-fA-F-]{36}$"

Uuid = Annotated[str, Meta(pattern=UUID_PATTERN)]
ProviderKey = Annotated[str, Meta(pattern=DASHED_PATTERN)]
ClassName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Z0-9_]+$")]
TraitName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Z0-9_]+$")]
Amount = Annotated[int, Meta(ge=1, le=MOST)]
Generation = Annotated[int, Meta(ge=0)]
Owner = Annotated[str, Meta(min_length=1, max_length=255)]

BAD_VALUE = "placement.query.bad_value"
DUPLICATE_KEY = "placement.query.duplicate_key"
MISSING_VALUE = "placement.query.missing_value"
DUPLICATE_NAME = "placement.duplicate_name"

_UUID = re.compile(UUID_PATTERN)
_NAME = re.compile(r"[A-Z0-9_]{1,255}")

Since = Mapping[str, tuple[int, int]]


def answered(call: Call, body: Any, changed_at: Iterable[datetime | None] = (), **fields: Any) -> Reply:
    """A reply that says since 1.15 when what it holds last changed, and that it is not to be cached."""
    headers = dict(fields.pop("headers", {}))
    if call.version >= (1, 15):
        times = [at for at in changed_at if at is not None]
        headers["Last-Modified"] = format_datetime(max(times, default=clock.now()), usegmt=True)
        headers["Cache-Control"] = "no-cache"
    return Reply(body, headers=headers, **fields)


def base(call: Call) -> str:
    """The path clients find the service under, for links."""
    return call.service.prefix


def dashed(text: str) -> str:
    """A UUID as it is kept. Raises ValueError."""
    return str(uuid.UUID(text))


async def provider_at(call: Call) -> Document:
    """The provider in the URL, as it is now. Raises NotFound."""
    return await provider_named(call, call.path["uuid"])


async def provider_named(call: Call, id: str) -> Document:
    try:
        return await call.cloud.documents.get(PROVIDER, id)
    except NotFound:
        raise NotFound(f"No resource provider with uuid {id} found : {id}") from None


def all_providers(call: Call) -> dict[str, Provider]:
    """Every provider by id, in the order they were born."""
    return {document.id: document.state for document in call.cloud.mirror(PROVIDER).values()}


def parameters(call: Call, since: Since) -> None:
    """Refuse query parameters that are not in `since` or came later."""
    for name in call.query:
        if name not in since or call.version < since[name]:
            raise Invalid(
                f"Invalid query string parameters: Additional properties are not allowed ({name!r} was unexpected)"
            )


def known_class(call: Call, name: str) -> bool:
    return name in STANDARD_CLASSES or call.cloud.mirror(RESOURCE_CLASS).get(name) is not None


def known_trait(call: Call, name: str) -> bool:
    return name in standard_traits() or call.cloud.mirror(TRAIT).get(name) is not None


def must_know_classes(call: Call, names: Iterable[str]) -> None:
    unknown = sorted(name for name in names if not known_class(call, name))
    if unknown:
        raise Invalid(f"Unknown resource class in inventory or allocations: No such resource class {unknown[0]}.")


def must_know_traits(call: Call, names: Iterable[str]) -> None:
    unknown = sorted(name for name in names if not known_trait(call, name))
    if unknown:
        raise Invalid(f"No such trait(s): {', '.join(unknown)}.")


def resources(call: Call, text: str, name: str = "resources") -> dict[str, int]:
    """`VCPU:2,MEMORY_MB:512`. Raises Invalid."""
    found: dict[str, int] = {}
    for part in text.split(","):
        resource_class, colon, amount = part.partition(":")
        if not colon or not amount.strip().isdecimal() or not _NAME.fullmatch(resource_class):
            raise Invalid(
                f"Badly formed {name} parameter. Expected resources query string parameter in form: "
                f"?{name}=VCPU:2,MEMORY_MB:512; got {text!r}.",
                code=BAD_VALUE,
            )
        if resource_class in found:
            raise Invalid(f"{name} names {resource_class} twice.", code=DUPLICATE_KEY)
        found[resource_class] = int(amount)
        if not 1 <= found[resource_class] <= MOST:
            raise Invalid(f"{name} asks {amount} of {resource_class}; it must be from 1 to {MOST}.", code=BAD_VALUE)
    unknown = [resource_class for resource_class in found if not known_class(call, resource_class)]
    if unknown:
        raise Invalid(f"Invalid resource class in {name} parameter: No such resource class {', '.join(unknown)}.")
    return found


def traits(call: Call, texts: Iterable[str], name: str) -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
    """(any-of sets of required, forbidden): `A,B`, since 1.22 `!C`, since 1.39 `in:A,B`. Raises Invalid.

    Before 1.39 the last of several parameters counts.
    """
    any_of: list[frozenset[str]] = []
    forbidden: set[str] = set()
    texts = list(texts) if call.version >= (1, 39) else list(texts)[-1:]
    for text in texts:
        if text.startswith("in:") and call.version >= (1, 39):
            any_of.append(frozenset(part.strip() for part in text[3:].split(",")))
            continue
        for part in map(str.strip, text.split(",")):
            if part.startswith("!") and call.version >= (1, 22):
                forbidden.add(part[1:])
            else:
                any_of.append(frozenset({part}))
    named = forbidden.union(*any_of)
    wrong = sorted(trait for trait in named if not _NAME.fullmatch(trait))
    if wrong:
        form = "HW_CPU_X86_VMX,CUSTOM_MAGIC" if call.version < (1, 22) else "HW_CPU_X86_VMX,!CUSTOM_MAGIC"
        later = "" if call.version >= (1, 39) else " The format 'in:HW_CPU_X86_VMX' came with 1.39."
        raise Invalid(
            f"Invalid query string parameters: Expected {name!r} parameter value of the form: {form}. "
            f"Got: {','.join(texts)}.{later}"
        )
    must_know_traits(call, named)
    both = sorted(forbidden & {trait for one in any_of if len(one) == 1 for trait in one})
    if both:
        raise Invalid(f"Conflicting required and forbidden traits found in {name}: {', '.join(both)}.", code=BAD_VALUE)
    return tuple(dict.fromkeys(any_of)), frozenset(forbidden)


def aggregates(call: Call, texts: Iterable[str], name: str) -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
    """(any-of sets, forbidden): a UUID, `in:` UUIDs, since 1.32 `!` before either. Raises Invalid.

    An aggregate is known by its UUID as it was written, with dashes or without.
    """
    any_of: list[frozenset[str]] = []
    forbidden: set[str] = set()
    texts = list(texts)
    if len(texts) > 1 and call.version < (1, 24):
        raise Invalid(f"Multiple {name} parameters are not supported before 1.24.", code=DUPLICATE_KEY)
    for text in texts:
        negated = text.startswith("!") and call.version >= (1, 32)
        plain = text[1:] if negated else text
        ids = plain[3:].split(",") if plain.startswith("in:") else [plain]
        wrong = next((id for id in ids if not _UUID.fullmatch(id)), None)
        if wrong is not None:
            raise Invalid(
                f"Invalid query string parameters: Expected {name!r} parameter to contain valid UUID(s). "
                f"Got {wrong!r}; several are written in:UUID,UUID.{_forbidding(call, text, name)}",
                code=BAD_VALUE,
            )
        if negated:
            forbidden.update(ids)
        else:
            any_of.append(frozenset(ids))
    return tuple(any_of), frozenset(forbidden)


def _forbidding(call: Call, text: str, name: str) -> str:
    if not text.startswith("!"):
        return ""
    return f" Forbidden {name} parameters are not supported in the specified microversion, only since 1.32."


def one_uuid(text: str, name: str) -> str:
    if not _UUID.fullmatch(text):
        raise Invalid(f"Expected {name!r} parameter to be a format of uuid; got {text!r}.", code=BAD_VALUE)
    return dashed(text)
