"""What placement's routes share: names and amounts on the wire, query parameters, and finding providers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Any

from msgspec import Meta

from api.placement.refusal import SHOWN_CHARACTERS, wrong_query
from api.wire import Call, Reply
from bus import clock
from bus.log import Document
from handlers.placement.provider import must_be_at
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
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")

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


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def dashed(text: str) -> str:
    """A UUID as it is kept. Raises ValueError."""
    return str(uuid.UUID(text))


async def provider_at(call: Call) -> Document:
    """The provider in the URL, as it is now. Raises NotFound."""
    return await provider_named(call, call.path["uuid"])


async def must_exist(call: Call) -> None:
    """There is a provider in the URL. Raises NotFound."""
    if call.cloud.mirror(PROVIDER).get(call.path["uuid"]) is None:
        await provider_at(call)


async def provider_to_change(call: Call, generation: int | None) -> Document:
    """The provider in the URL, at the generation the client saw. Raises NotFound, ConcurrentUpdate.

    That is decided again at the append, where a repeated wish is the same wish; but two clients' wishes are two.
    """
    found = await provider_at(call)
    if not call.by.idempotency:
        must_be_at(found.state, generation)
    return found


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
            shown = repr(name[:SHOWN_CHARACTERS])
            raise wrong_query(f"Additional properties are not allowed ({shown} was unexpected)", "additionalProperties")


def known_class(call: Call, name: str) -> bool:
    return name in STANDARD_CLASSES or call.cloud.mirror(RESOURCE_CLASS).get(name) is not None


def known_trait(call: Call, name: str) -> bool:
    return name in standard_traits() or call.cloud.mirror(TRAIT).get(name) is not None


def must_know_classes(call: Call, names: Iterable[str], unable: str = "Unknown resource class in inventory: ") -> None:
    unknown = sorted(name for name in names if not known_class(call, name))
    if unknown:
        raise Invalid(f"{unable}No such resource class {unknown[0]}.")


def must_know_traits(call: Call, names: Iterable[str], unable: str = "") -> None:
    unknown = sorted(name for name in names if not known_trait(call, name))
    if unknown:
        raise Invalid(f"{unable}No such trait(s): {', '.join(unknown)}.")


IN_RESOURCES = "Invalid resource class in resources parameter: "


def resources(text: str) -> dict[str, int]:
    """`VCPU:2,MEMORY_MB:512`. Raises Invalid."""
    badly = (
        "Badly formed resources parameter. Expected resources query string parameter in form: "
        "?resources=VCPU:2,MEMORY_MB:1024."
    )
    if not text.strip():
        raise Invalid(f"{badly} Got: empty string.")
    found: dict[str, int] = {}
    for part in text.split(","):
        name, colon, amount = part.partition(":")
        if not colon or ":" in amount:
            raise Invalid(f"{badly} Got: {part}.")
        if not _INTEGER.fullmatch(amount):
            raise Invalid(f"Requested resource {name} expected positive integer amount. Got: {amount}.")
        found[name] = int(amount)
        if found[name] < 1:
            raise Invalid(f"Requested resource {name} requires amount >= 1. Got: {found[name]}.")
    return found


def traits(call: Call, texts: Iterable[str]) -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
    """(any-of sets of required, forbidden): `A,B`, since 1.22 `!C`, since 1.39 `in:A,B`. Raises Invalid.

    Before 1.39 the last of several parameters counts.
    """
    any_of: list[frozenset[str]] = []
    forbidden: set[str] = set()
    newest = call.version >= (1, 39)
    for text in list(texts) if newest else list(texts)[-1:]:
        if text.startswith("in:"):
            any_of.append(_one_of(text, known=newest))
            continue
        required, not_wanted = plain_traits(text, forbidding=call.version >= (1, 22))
        any_of += (frozenset({trait}) for trait in required)
        forbidden |= not_wanted
    return tuple(dict.fromkeys(any_of)), frozenset(forbidden)


def plain_traits(text: str, *, forbidding: bool) -> tuple[list[str], set[str]]:
    """(required, forbidden) of one parameter that knows no `in:`. Raises Invalid."""
    wrong = "Invalid query string parameters: "
    if text.startswith("in:"):
        _one_of(text, known=False)
    parts = [part.strip() for part in text.split(",")]
    forbidden = {part.lstrip("!") for part in parts if part.startswith("!")}
    form = f"Expected 'required' parameter value of the form: HW_CPU_X86_VMX,{'!' if forbidding else ''}CUSTOM_MAGIC."
    if not all(parts) or not all(forbidden):
        raise Invalid(f"{wrong}{form} Got an empty trait in: {text}")
    if forbidden and not forbidding:
        raise Invalid(f"{wrong}{form} Got: {text}")
    return [part for part in parts if not part.startswith("!")], forbidden


def _one_of(text: str, *, known: bool) -> frozenset[str]:
    wrong, form = "Invalid query string parameters: ", "in:HW_CPU_X86_VMX,CUSTOM_MAGIC"
    if not known:
        raise Invalid(f"{wrong}The format '{form}' only supported since microversion 1.39. Got: {text}")
    any_of = frozenset(part.strip() for part in text[3:].split(","))
    if not all(any_of):
        raise Invalid(f"{wrong}Expected 'required' parameter value of the form: {form}. Got an empty trait in: {text}")
    if any(trait.startswith("!") for trait in any_of):
        raise Invalid(f"{wrong}The format '{form}' does not support forbidden traits. Got: {text}")
    return any_of


def aggregates(call: Call, texts: Iterable[str], name: str) -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
    """(any-of sets, forbidden): a UUID, `in:` UUIDs, since 1.32 `!` before either. Raises Invalid.

    An aggregate is known by its UUID as it was written, with dashes or without.
    """
    any_of: list[frozenset[str]] = []
    forbidden: set[str] = set()
    texts = list(texts)
    if len(texts) > 1 and call.version < (1, 24):
        raise Invalid(f"Multiple {name} parameters are not supported")
    for text in texts:
        negated = text.startswith("!")
        plain = text.removeprefix("!")
        if "," in text and not plain.startswith("in:"):
            raise Invalid(
                "Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the valid "
                f"microversion. Got: {text}"
            )
        ids = plain[3:].split(",") if plain.startswith("in:") else [plain]
        wrong = next((id for id in ids if not is_uuid(id)), None)
        if wrong is not None:
            raise Invalid(
                "Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). "
                f"Got: {wrong}"
            )
        if not negated:
            any_of.append(frozenset(ids))
        elif call.version >= (1, 32):
            forbidden.update(ids)
        else:
            raise Invalid(f"Forbidden {name} parameters are not supported in the specified microversion")
    return tuple(any_of), frozenset(forbidden)


def tree(text: str) -> str:
    """The provider whose tree is meant. Raises Invalid."""
    if not is_uuid(text.strip()):
        raise Invalid(
            f"Invalid query string parameters: Expected 'in_tree' parameter to be a format of uuid. Got: {text}"
        )
    return dashed(text.strip())
