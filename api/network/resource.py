"""What all of Neutron's things have in common at the door: lists, single things, who sees them, revisions.

    ROUTER = Resource(name="router", kind=ROUTER, view=view, missing=not_found, filters={"status": Filter()}, …)
    routes = resource_routes(ROUTER, create=…, update=…, delete=…)

Who sees what: administrators everything, others what is their project's or shared with it. What somebody may not see
is not there for them (404); what they see and may not do is forbidden (403).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from api.network.filter import COMMON, Filter, filtered
from api.network.page import Page, links_of, page_of, selected
from api.network.tag import Tags, tag_routes, tags_of
from api.wire import Call, Delete, Get, Post, Put
from api.wire.call import denied
from api.wire.route import Handler, Route
from bus.documents import AnyOf, Condition, ParentIn, Where
from bus.execute import Wish
from bus.log import Document
from schema.event import Kind, State
from schema.refusal import Invalid, NotFound, Refused

S = TypeVar("S", bound=State)
View = Callable[[Call, Sequence[Document]], Awaitable[list[dict[str, Any]]]]


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
        filters = COMMON | dict(resource.filters)
        where = [*visible(call, resource), *filtered(call, filters, tagged=resource.retagging is not None)]
        page = page_of(call, filters)
        if resource.many and not call.query.get("fields"):
            return await _written_page(call, resource, where, page)
        documents = await call.cloud.documents.find(
            resource.kind, where=where, sort=page.sort, limit=page.limit, marker=page.marker
        )
        if page.reverse:
            documents.reverse()
        views = await resource.view(call, documents)
        answer: dict[str, Any] = {resource.plural: [selected(call, view) for view in views]}
        if page.limited or len(documents) == page.limit:
            answer[f"{resource.plural}_links"] = _links(call, page, [document.id for document in documents])
        return answer

    return index


def empty_unless(rule: str, plural: str, index: Handler) -> Handler:
    """A list of what only those see whom that rule of the policy allows: empty for all others, and no refusal."""

    async def seen(call: Call) -> Any:
        return await index(call) if call.may(rule) else {plural: []}

    return seen


async def _written_page(call: Call, resource: Resource, where: Sequence[Condition], page: Page) -> bytes:
    """The same page as bytes."""
    assert resource.many is not None
    rows = await call.cloud.documents.versions(
        resource.kind, where=where, sort=page.sort, limit=page.limit, marker=page.marker
    )
    if page.reverse:
        rows.reverse()
    answer: dict[str, Any] = {resource.plural: msgspec.Raw(await resource.many(call, rows))}
    if page.limited or len(rows) == page.limit:
        answer[f"{resource.plural}_links"] = _links(call, page, [id for id, _ in rows])
    return msgspec.json.encode(answer)


def _links(call: Call, page: Page, ids: Sequence[str]) -> list[dict[str, str]]:
    return links_of(call, ids, full=len(ids) >= page.limit, reverse=page.reverse)


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


async def living(call: Call, kind: Kind[S], id: str, missing: Callable[[str], NotFound]) -> S:
    """A thing as it is now, whoever asks for it. Raises NotFound as `missing` words it."""
    stream = kind.stream(id)
    document = (await call.cloud.executor.load([stream])).get(stream)
    if document is None or not document.state.living:
        raise missing(id)
    state: S = document.state
    return state


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
