"""What all of Neutron's things have in common at the door: lists, pages, filters, single things, tags, revisions.

    ROUTER = Resource(name="router", kind=ROUTER, view=view, missing=not_found, filters={"status": Filter()}, …)
    routes = resource_routes(ROUTER, create=…, update=…, delete=…)

Who sees what: administrators everything, others what is their project's or shared with it. What somebody may not see
is not there for them (404); what they see and may not do is forbidden (403).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from api.wire import Call, Delete, Get, Post, Put, Reply
from api.wire.call import denied
from api.wire.query import boolean
from api.wire.route import Handler, Route
from bus.documents import OLDEST_FIRST, AnyOf, Condition, ParentIn, Sort, Where
from bus.execute import Wish
from bus.log import Document
from schema.event import Kind, State
from schema.refusal import Invalid, NotFound, Refused

TAGS = 50
"""Tags of one thing, at most, as Neutron has it."""
TAG_LENGTH = 255
_NUMBER = re.compile(r"-?[0-9]{1,17}")

View = Callable[[Call, Sequence[Document]], Awaitable[list[dict[str, Any]]]]


class Filter(msgspec.Struct, frozen=True):
    """How a query parameter picks things. `path`: where in the state its value is; empty: under its own name."""

    path: str = ""
    type: type = str
    """`str`, `bool` or `int`."""
    within: bool = False
    """The state has an array of such strings there."""
    condition: Callable[[Call, Sequence[str]], Sequence[Condition]] | None = None
    """For what is no plain field."""


class RevisionNumberConstraintFailed(Refused):
    """The thing is at another revision than `If-Match` says (412)."""

    status = 412


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One of Neutron's things. `retagging(id, tags)`: the wish that changes its tags, if it has any."""

    name: str
    plural: str
    kind: Kind[Any]
    view: View
    missing: Callable[[str], NotFound]
    path: str = ""
    filters: Mapping[str, Filter] = {}
    retagging: Callable[[str, tuple[str, ...]], Wish] | None = None
    many: Callable[[Call, Sequence[tuple[str, int]]], Awaitable[bytes]] | None = None
    """The views of these ids and versions as one JSON array, for lists that are long and shown often."""
    shared: Callable[[Call], Sequence[Sequence[Where | ParentIn]]] | None = None
    """What others than its project and administrators see of it: sets of conditions."""
    common_to_all: bool = False
    """Everybody sees all of it."""
    owners: Callable[[Call, Any], Sequence[str]] = lambda call, state: (state.project_id,)
    """Projects whose members may change a thing of that state."""
    revision: Callable[[Document], int] = lambda document: document.version

    @property
    def url(self) -> str:
        return self.path or f"/{self.plural.replace('_', '-')}"


def resource_routes(
    resource: Resource,
    *,
    create: Handler | None = None,
    create_body: Any = None,
    update: Handler | None = None,
    update_body: Any = None,
    delete: Handler | None = None,
    index: Handler | None = None,
    **fields: Any,
) -> list[Route]:
    """The rows of a thing. Policy rules go by its name: `get_router`, `create_router`, …"""
    name, one = resource.name, resource.url + "/{id}"
    rows = [
        Get(resource.url, index or listing(resource), may=f"get_{name}"),
        Get(one, showing(resource), may=f"get_{name}"),
    ]
    if create:
        rows.append(Post(resource.url, create, may=f"create_{name}", body=create_body, lenient=True, **fields))
    if update:
        rows.append(Put(one, update, may=f"update_{name}", body=update_body, lenient=True, **fields))
    if delete:
        rows.append(Delete(one, delete, may=f"delete_{name}"))
    return [*rows, *_tag_routes(resource)] if resource.retagging else rows


def listing(resource: Resource) -> Handler:
    """GET of all of them that the caller sees."""

    async def index(call: Call) -> dict[str, Any] | bytes:
        page = _page(call, resource)
        if resource.many and not call.query.get("fields"):
            return await _written_page(call, resource, page)
        documents = await call.cloud.documents.find(
            resource.kind, where=page.where, sort=page.sort, limit=page.limit, marker=page.marker
        )
        if page.reverse:
            documents.reverse()
        views = await resource.view(call, documents)
        answer: dict[str, Any] = {resource.plural: [selected(call, view) for view in views]}
        if page.limited:
            answer[f"{resource.plural}_links"] = _links(call, page, [document.id for document in documents])
        return answer

    return index


def empty_unless(rule: str, plural: str, index: Handler) -> Handler:
    """A list of what only those see whom that rule of the policy allows: empty for all others, and no refusal."""

    async def seen(call: Call) -> Any:
        return await index(call) if call.may(rule) else {plural: []}

    return seen


async def _written_page(call: Call, resource: Resource, page: _Page) -> bytes:
    """The same page as bytes."""
    assert resource.many is not None
    rows = await call.cloud.documents.versions(
        resource.kind, where=page.where, sort=page.sort, limit=page.limit, marker=page.marker
    )
    if page.reverse:
        rows.reverse()
    answer: dict[str, Any] = {resource.plural: msgspec.Raw(await resource.many(call, rows))}
    if page.limited:
        answer[f"{resource.plural}_links"] = _links(call, page, [id for id, _ in rows])
    return msgspec.json.encode(answer)


def showing(resource: Resource) -> Handler:
    """GET of one."""

    async def show(call: Call) -> dict[str, Any]:
        document = await found(call, resource, call.path["id"])
        return {resource.name: selected(call, await viewed(call, resource, document))}

    return show


async def viewed(call: Call, resource: Resource, document: Document) -> dict[str, Any]:
    """One thing as the caller sees it."""
    [view] = await resource.view(call, [document])
    return view


async def found(call: Call, resource: Resource, id: str) -> Document:
    """A thing that the caller sees. Raises NotFound as the resource words it."""
    where = [Where("id", "=", id), *visible(call, resource)]
    documents = await call.cloud.documents.find(resource.kind, where=where, limit=1)
    if not documents:
        raise resource.missing(id)
    return documents[0]


async def to_change(call: Call, resource: Resource, id: str, rule: str = "") -> Document:
    """A thing that the caller sees, may change, and knows the revision of, if they say one. `rule`: of the policy."""
    document = await found(call, resource, id)
    rule = rule or call.route.may or ""
    if not any(call.may(rule, project_id=id) for id in resource.owners(call, document.state)):
        raise denied(rule)
    refuse_other_revision(call, resource, document)
    return document


def refuse_other_revision(call: Call, resource: Resource, document: Document) -> None:
    """Raises RevisionNumberConstraintFailed when `If-Match` names another revision."""
    expected = call.request.headers.get("If-Match", "")
    if expected:
        _, _, number = expected.strip('" ').partition("revision_number=")

        def failed(revision: int) -> Refused:
            return RevisionNumberConstraintFailed(
                f"Constrained to {number or expected[:64]}, but current revision is {revision}",
                code="RevisionNumberConstraintFailed",
            )

        if not number.isdigit() or int(number) != resource.revision(document):
            raise failed(resource.revision(document))
        if resource.revision(document) == document.version:
            call.insist(document, failed)


def visible(call: Call, resource: Resource) -> list[Condition]:
    """What the caller sees, as conditions on documents."""
    if call.token.is_admin or resource.common_to_all:
        return []
    own = [Where("project_id", "=", call.token.project_id or "")]
    return [AnyOf([own, *(resource.shared(call) if resource.shared else ())])]


def several(call: Call, name: str, plural: str) -> tuple[Sequence[Any], bool]:
    """The things in a body that holds one or a list of them, and whether it is a list. Raises Invalid."""
    one, many = getattr(call.body, name), getattr(call.body, plural)
    if one is not None and many is None:
        return [one], False
    if many:
        return many, True
    if many is not None:
        raise Invalid("Resources required", code="HTTPBadRequest")
    raise Invalid(f"Unable to find '{name}' in request body", code="HTTPBadRequest")


def tags_of(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags a thing is given, each once. Raises Invalid."""
    tags = tuple(dict.fromkeys(tags))
    _refuse_tags(tags)
    return tags


def project_of(call: Call, project_id: str | None, tenant_id: str | None) -> str:
    """Whose a new thing is: the caller's, or (for administrators) whose they say. Raises Invalid."""
    asked = project_id or tenant_id
    if asked and asked != call.token.project_id and not call.token.is_admin:
        raise Invalid(
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin "
            "privileges",
            code="HTTPBadRequest",
        )
    return asked or call.token.project_id or ""


def common(document: Document) -> dict[str, Any]:
    """The fields that nearly everything has."""
    state: Any = document.state
    return {
        "id": document.id,
        "name": state.name,
        "description": state.description,
        "tenant_id": state.project_id,
        "project_id": state.project_id,
        "created_at": written(state, "created_at"),
        "updated_at": written(state, "updated_at"),
        "revision_number": document.version,
        "tags": list(getattr(state, "tags", ())),
    }


def written(state: State, field: str) -> str | None:
    """A time as Neutron writes it."""
    at = getattr(state, field)
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Page(msgspec.Struct, frozen=True):
    where: list[Condition]
    sort: tuple[Sort, ...]
    limit: int
    marker: str | None
    reverse: bool
    limited: bool
    """Whether the client wants pages."""


_PAGING = frozenset({"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields"})


def changed_since(field: str, values: Sequence[str]) -> list[Condition]:
    """What was made or changed at that time or later, as that field says. Raises Invalid."""
    text = values[-1]
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise Invalid(
            "Invalid input for operation: The input changed_since must be in the following format: "
            "YYYY-MM-DDTHH:MM:SS[Z].",
            code="InvalidInput",
        ) from None
    return [Where(field, ">=", at if at.tzinfo else at.replace(tzinfo=UTC))]


_COMMON = {
    "id": Filter(),
    "name": Filter(),
    "project_id": Filter(),
    "tenant_id": Filter("project_id"),
    "description": Filter(),
    "revision_number": Filter("version", int),
    "changed_since": Filter(condition=lambda call, values: changed_since("updated_at", values)),
}
_TAG_FILTERS = frozenset({"tags", "tags-any", "not-tags", "not-tags-any"})
_SORTABLE = frozenset({"id", "name", "project_id", "created_at", "updated_at"})


def _page(call: Call, resource: Resource) -> _Page:
    query = call.query
    where = visible(call, resource)
    unknown = []
    filters = _COMMON | dict(resource.filters)
    for name in dict.fromkeys(query):
        values = query.getall(name)
        if name in filters:
            where += _conditions(call, name, filters[name], values)
        elif name in _TAG_FILTERS and resource.retagging:
            where += _by_tags(name, values)
        elif name not in _PAGING:
            unknown.append(name)
    if unknown:
        raise Invalid(f"{unknown} is invalid attribute for filtering", code="HTTPBadRequest")
    reverse = boolean(query.get("page_reverse", "false")) or False
    limit = limit_of(call)
    return _Page(
        where=where,
        sort=_sort(query.getall("sort_key", []), query.getall("sort_dir", []), filters, reverse=reverse),
        limit=limit or call.cloud.settings.page_limit,
        marker=query.get("marker") or None,
        reverse=reverse,
        limited=limit > 0,
    )


def limit_of(call: Call) -> int:
    """How many things a page is to have; 0: they are all wanted. Raises Invalid."""
    text = call.query.get("limit", "")
    if text and not _NUMBER.fullmatch(text):
        raise Invalid(f"Invalid input for limit. Reason: {text[:64]!r} is not a number.", code="HTTPBadRequest")
    return max(0, min(int(text or 0), call.cloud.settings.page_limit))


def _conditions(call: Call, name: str, filter: Filter, values: Sequence[str]) -> Sequence[Condition]:
    if filter.condition:
        return filter.condition(call, values)
    path = filter.path or name
    if filter.within:
        return [AnyOf([[Where(path, "has", value)] for value in values])]
    wanted = [_typed(name, filter.type, value) for value in values]
    return (
        [AnyOf([[Where(path, "=", value)] for value in wanted])] if len(wanted) > 1 else [Where(path, "=", wanted[0])]
    )


def _typed(name: str, type: type, text: str) -> Any:
    if type is bool:
        value = boolean(text)
        if value is None:
            raise Invalid(f"Invalid input for {name}. Reason: {text[:64]!r} is not boolean.", code="HTTPBadRequest")
        return value
    if type is int:
        if not (text.isascii() and text.isdigit() and len(text) < 18):
            raise Invalid(f"Invalid input for {name}. Reason: {text[:64]!r} is not an integer.", code="HTTPBadRequest")
        return int(text)
    return text


def _by_tags(name: str, values: Sequence[str]) -> list[Condition]:
    tags = [tag for value in values for tag in value.split(",")]
    every = [Where("tags", "has", tag) for tag in tags]
    none = [Where("tags", "has not", tag) for tag in tags]
    match name:
        case "tags":
            return [*every]
        case "tags-any":
            return [AnyOf([[it] for it in every])]
        case "not-tags":
            return [AnyOf([[it] for it in none])]
    return [*none]


def _sort(
    keys: Sequence[str], dirs: Sequence[str], filters: Mapping[str, Filter], *, reverse: bool
) -> tuple[Sort, ...]:
    if dirs and len(keys) != len(dirs):
        raise Invalid("The number of sort_keys and sort_dirs must be same", code="HTTPBadRequest")
    found: list[Sort] = []
    for number, key in enumerate(keys):
        direction = dirs[number] if dirs else "asc"
        filter = filters.get(key)
        if (filter is None or filter.condition or filter.within) and key not in _SORTABLE:
            raise Invalid(f"{[key]} is invalid attribute for sort_keys", code="HTTPBadRequest")
        if direction not in {"asc", "desc"}:
            raise Invalid(f"sort_dirs {direction[:64]!r} is not asc or desc", code="HTTPBadRequest")
        found.append(Sort((filter.path if filter else "") or key, direction == "desc"))
    order = (*found, Sort("id")) if found else OLDEST_FIRST
    return tuple(Sort(it.field, not it.descending) for it in order) if reverse else tuple(order)


def _links(call: Call, page: _Page, ids: Sequence[str]) -> list[dict[str, str]]:
    return links_of(call, ids, full=len(ids) >= page.limit, reverse=page.reverse)


def links_of(call: Call, ids: Sequence[str], *, full: bool, reverse: bool) -> list[dict[str, str]]:
    """`next` and `previous` of a page, as Neutron gives them.

    A page that is not full is the last one on its way, and the way back is always there; from an empty page it leads
    to the end.
    """
    links = []
    if full or reverse:
        links.append({"rel": "next", "href": _url(call, ids[-1] if ids else "", reverse=False)})
    if full or not reverse:
        links.append({"rel": "previous", "href": _url(call, ids[0] if ids else "", reverse=True)})
    return links


def _url(call: Call, marker: str, *, reverse: bool) -> str:
    pairs = [(name, value) for name, value in call.query.items() if name not in {"marker", "page_reverse"}]
    if marker:
        pairs.append(("marker", marker))
    if reverse:
        pairs.append(("page_reverse", "True"))
    return f"{call.host_url}{call.request.raw_path.partition('?')[0]}?{urlencode(pairs)}"


def selected(call: Call, view: dict[str, Any]) -> dict[str, Any]:
    """Only what `fields` names, if it names anything."""
    wanted = set(call.query.getall("fields", []))
    return {name: value for name, value in view.items() if name in wanted} if wanted - {""} else view


class TagsBody(msgspec.Struct, forbid_unknown_fields=True):
    tags: list[str]


Tags = tuple[str, ...]
Retag = Callable[[Call, Callable[[Tags], Tags]], Awaitable[Tags]]
"""Change the tags of what a call is about; what they are then."""


def _tag_routes(resource: Resource) -> list[Route]:
    write, retagging = f"update_{resource.name}", resource.retagging
    assert retagging is not None

    async def those_of(call: Call) -> Tags:
        tags: Tags = (await found(call, resource, call.path["id"])).state.tags
        return tags

    async def retag(call: Call, change: Callable[[Tags], Tags]) -> Tags:
        document = await to_change(call, resource, call.path["id"], write)
        tags = tags_of(change(document.state.tags))
        if tags != document.state.tags:
            await call.execute(retagging(document.id, tags))
        return tags

    return tag_routes(resource.url, resource.name, those_of, retag)


def tag_routes(url: str, name: str, those_of: Callable[[Call], Awaitable[Tags]], retag: Retag) -> list[Route]:
    """The rows of the tags of things of that name at that address."""
    one, read, write = url + "/{id}/tags", f"get_{name}", f"update_{name}"

    async def show(call: Call) -> dict[str, Any]:
        return {"tags": list(await those_of(call))}

    async def replace(call: Call) -> dict[str, Any]:
        return {"tags": list(await retag(call, lambda tags: tuple(call.body.tags)))}

    async def join(call: Call) -> dict[str, Any]:
        return {"tags": list(await retag(call, lambda tags: tuple(sorted({*tags, *call.body.tags}))))}

    async def clear(call: Call) -> None:
        await retag(call, lambda tags: ())

    async def check(call: Call) -> Reply:
        if call.path["tag"] not in await those_of(call):
            raise _no_tag(call.path["tag"])
        return Reply(None, status=204)

    async def add(call: Call) -> Reply:
        await retag(call, lambda tags: (*tags, call.path["tag"]))
        return Reply(None, status=201)

    async def remove(call: Call) -> None:
        def without(tags: tuple[str, ...]) -> tuple[str, ...]:
            if call.path["tag"] not in tags:
                raise _no_tag(call.path["tag"])
            return tuple(tag for tag in tags if tag != call.path["tag"])

        await retag(call, without)

    return [
        Get(one, show, may=read),
        Post(one, join, may=write, body=TagsBody),
        Put(one, replace, may=write, body=TagsBody),
        Delete(one, clear, may=write),
        Get(one + "/{tag}", check, may=read),
        Put(one + "/{tag}", add, may=write),
        Delete(one + "/{tag}", remove, may=write),
    ]


def _no_tag(tag: str) -> NotFound:
    return NotFound(f"Tag {tag} could not be found.", code="TagNotFound")


def _refuse_tags(tags: Sequence[str]) -> None:
    if len(tags) > TAGS:
        raise Invalid(f"Invalid input for tags. Reason: there may be {TAGS} of them.", code="HTTPBadRequest")
    for tag in tags:
        if not tag or len(tag) > TAG_LENGTH or "," in tag:
            raise Invalid(
                f"Invalid input for tags. Reason: {tag[:64]!r} is empty, longer than {TAG_LENGTH} or has a comma.",
                code="HTTPBadRequest",
            )
