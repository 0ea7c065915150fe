"""What Identity's bodies and answers are made of: names and their limits, extra attributes, views, filtered lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.wire import Call
from api.wire.paging import keystone_links, page
from bus.documents import Where
from bus.execute import AlreadyTaken
from bus.log import Document
from handlers.identity.resource import not_found, reworded
from schema.event import Kind
from schema.refusal import Invalid, NotFound

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\S")]
ShortName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\S")]
Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")]
Text = Annotated[str, Meta(max_length=65_535)]
Tag = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^,/]*$")]
Tags = Annotated[list[Tag], Meta(max_length=80)]
Options = dict[str, Any]

EXTRA_BYTES = 65_536
"""Extra attributes of one thing, encoded, at most."""


async def found(call: Call, kind: Kind[Any], id: str, what: str = "") -> Document:
    """A living thing. Raises NotFound as Keystone words it."""
    try:
        return await call.cloud.documents.get(kind, id)
    except NotFound:
        raise not_found(what or kind.name, id) from None


@contextmanager
def conflicts(what: str) -> Iterator[None]:
    """A name that is taken is refused as Keystone words it."""
    try:
        yield
    except AlreadyTaken as taken:
        raise reworded(what, taken) from None


def extra(call: Call, key: str, known: type[msgspec.Struct], *also: str) -> dict[str, Any]:
    """Attributes of the body that its struct does not know: Keystone keeps them and shows them again."""
    body = msgspec.json.decode(call.raw_body)[key]
    names = {field.encode_name for field in msgspec.structs.fields(known)} | {"id", "links", *also}
    rest = {name: value for name, value in body.items() if name not in names}
    if rest and len(msgspec.json.encode(rest)) > EXTRA_BYTES:
        raise Invalid(f"Extra attributes may have {EXTRA_BYTES} bytes at most.")
    return rest


def shown(call: Call, plural: str, document: Document, **fields: Any) -> dict[str, Any]:
    """A thing as Keystone shows it: id, its fields, extra attributes, its link."""
    return {
        **getattr(document.state, "extra", {}),
        "id": document.id,
        **fields,
        "links": {"self": call.url(f"/{plural}/{document.id}")},
    }


View = Callable[[Call, Document], dict[str, Any]]


async def listed(
    call: Call,
    kind: Kind[Any],
    plural: str,
    view: View,
    *,
    where: Sequence[Where] = (),
    fields: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A page of a kind. `fields`: query parameter → field it must equal; names also take `__contains` and the like."""
    wanted = page(call)
    conditions = [*where, *conditions_of(call, fields or {})]
    documents = await call.cloud.documents.find(kind, where=conditions, limit=wanted.limit, marker=wanted.marker)
    links = keystone_links(call, wanted, [document.id for document in documents])
    return {plural: [view(call, document) for document in documents], "links": links}


def whole(call: Call, plural: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A list that is never paged."""
    return {
        plural: list(items),
        "links": {"self": f"{call.host_url}{call.request.raw_path}", "previous": None, "next": None},
    }


def conditions_of(call: Call, fields: Mapping[str, str]) -> list[Where]:
    """The query's filters on these fields."""
    conditions = []
    for parameter, value in call.query.items():
        name, _, comparator = parameter.partition("__")
        field = fields.get(name)
        if field is None:
            continue
        if comparator:
            conditions += _inexact(field, comparator, value)
        elif name == "enabled":
            conditions.append(Where(field, "=", value.lower() not in {"0", "false", "no", "off"}))
        else:
            conditions.append(Where(field, "=", value or None))
    return conditions


_PATTERNS = {"contains": "{}", "startswith": "^{}", "endswith": "{}$"}


def _inexact(field: str, comparator: str, value: str) -> list[Where]:
    """`name__icontains=x`; comparators nobody knows are ignored, as in Keystone."""
    lenient = comparator.startswith("i")
    pattern = _PATTERNS.get(comparator[1:] if lenient else comparator)
    if pattern is None:
        return []
    return [Where(field, "~", ("(?i)" if lenient else "") + pattern.format(re.escape(value)))]


def within(call: Call) -> tuple[Where, ...]:
    """What a domain's reader may see of a list: that domain."""
    token = call.token
    if token.domain_id is not None and not token.is_admin:
        return (Where("domain_id", "=", token.domain_id),)
    return ()
