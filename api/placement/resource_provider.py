"""Resource providers: list with filters, create, show, rename and move in their tree, delete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from api.placement.refusal import wrong_query
from api.placement.words import (
    DUPLICATE_NAME,
    IN_RESOURCES,
    Uuid,
    aggregates,
    all_providers,
    answered,
    base,
    dashed,
    is_uuid,
    must_exist,
    must_know_classes,
    must_know_traits,
    parameters,
    provider_at,
    resources,
    traits,
)
from api.wire import Call, Delete, Get, Post, Put, Reply
from bus import clock
from bus.execute import AlreadyTaken, Wish
from bus.log import Document
from handlers.placement.forest import forest
from handlers.placement.provider import PROVIDERS
from handlers.placement.search import Group, matching
from schema.placement.provider import (
    PROVIDER,
    AddChildProvider,
    CreateProvider,
    DeleteProvider,
    MoveProvider,
    Provider,
    RemoveChildProvider,
    RenameProvider,
)
from schema.refusal import Conflict, Invalid, NotFound

Name = Annotated[str, Meta(min_length=1, max_length=200)]


class NewProvider(Struct, forbid_unknown_fields=True):
    name: Name
    uuid: Uuid | UnsetType = UNSET


class NewProvider14(Struct, forbid_unknown_fields=True):
    name: Name
    uuid: Uuid | UnsetType = UNSET
    parent_provider_uuid: Uuid | None = None


class ProviderUpdate(Struct, forbid_unknown_fields=True):
    name: Name


class ProviderUpdate14(Struct, forbid_unknown_fields=True):
    name: Name
    parent_provider_uuid: Uuid | None | UnsetType = UNSET


class ListQuery(Struct, frozen=True):
    """For the description; `index` reads the parameters as each microversion means them."""

    name: str | None = None
    uuid: str | None = None
    member_of: list[str] = []
    resources: str | None = None
    in_tree: str | None = None
    required: list[str] = []


_LIST_SINCE = {
    "name": (1, 0),
    "uuid": (1, 0),
    "member_of": (1, 3),
    "resources": (1, 4),
    "in_tree": (1, 14),
    "required": (1, 18),
}


async def index(call: Call) -> Reply:
    parameters(call, _LIST_SINCE)
    for name in ("uuid", "in_tree"):
        text = call.query.get(name)
        if text is not None and not is_uuid(text):
            raise wrong_query(f"{text!r} is not a 'uuid'", "format")
    query = call.query
    any_of, forbidden = traits(call, query.getall("required", ()))
    member_of, not_member_of = aggregates(call, query.getall("member_of", ()), "member_of")
    group = Group(
        resources=resources(query["resources"]) if "resources" in query else {},
        required=any_of,
        forbidden=forbidden,
        member_of=member_of,
        not_member_of=not_member_of,
        in_tree=dashed(query["in_tree"]) if "in_tree" in query else None,
    )
    must_know_classes(call, group.resources, IN_RESOURCES)
    must_know_traits(call, group.traits, 'Invalid trait(s) in "required" parameter: ')
    wanted = dashed(query["uuid"]) if "uuid" in query else None
    found = [
        it
        for it in matching(forest(call.cloud), group)
        if (wanted is None or it.id == wanted) and ("name" not in query or it.name == query["name"])
    ]
    answer = {"resource_providers": [view(call, it) for it in found]}
    return answered(call, answer, (it.updated_at for it in found))


async def create(call: Call) -> Reply:
    body = call.body
    id = clock.uuid4() if body.uuid is UNSET else dashed(body.uuid)
    parent_id = getattr(body, "parent_provider_uuid", None)
    if body.uuid is not UNSET and not call.by.idempotency:
        there = await call.cloud.documents.get_many(PROVIDER, [id])
        if id in there and there[id].state.living:
            raise Conflict(f"Conflicting resource provider uuid: {id} already exists.", code=DUPLICATE_NAME)
    wishes = [Wish(PROVIDERS, id, CreateProvider(name=body.name))]
    if parent_id is not None:
        parent = await _parent(call, dashed(parent_id), id, f'Unable to create resource provider "{body.name}", {id}: ')
        command = CreateProvider(name=body.name, parent_id=parent.id, root_id=parent.root_id)
        wishes = [
            Wish(PROVIDERS, id, command),
            Wish(PROVIDERS, parent.id, AddChildProvider(child_id=id, root_id=parent.root_id)),
        ]
    document, *_ = await _named(call, body.name, wishes)
    headers = {"Location": call.url(f"/resource_providers/{document.id}")}
    if call.version < (1, 20):
        return Reply(None, status=201, headers=headers)
    return answered(call, view(call, document.state), [document.state.updated_at], status=200, headers=headers)


async def show(call: Call) -> Reply:
    state: Provider = (await provider_at(call)).state
    return answered(call, view(call, state), [state.updated_at])


async def update(call: Call) -> Reply:
    state: Provider = (await provider_at(call)).state
    wishes = [Wish(PROVIDERS, state.id, RenameProvider(name=call.body.name))]
    given = getattr(call.body, "parent_provider_uuid", UNSET)
    if given is not UNSET:
        parent_id = given and dashed(given)
        if parent_id != state.parent_id:
            wishes += await _moving(call, state, parent_id)
    await _named(call, call.body.name, wishes)
    changed: Provider = (await provider_at(call)).state
    return answered(call, view(call, changed), [changed.updated_at])


async def delete(call: Call) -> None:
    try:
        state: Provider = (await provider_at(call)).state
    except NotFound:
        raise NotFound(f"No resource provider with uuid {call.path['uuid']} found for delete") from None
    wishes = [Wish(PROVIDERS, state.id, DeleteProvider())]
    if state.parent_id is not None:
        wishes.append(Wish(PROVIDERS, state.parent_id, RemoveChildProvider(child_id=state.id)))
    await call.execute(*wishes)


def view(call: Call, provider: Provider) -> dict[str, Any]:
    path = f"{base(call)}/resource_providers/{provider.id}"
    answer: dict[str, Any] = {
        "uuid": provider.id,
        "name": provider.name,
        "generation": provider.generation,
        "links": [{"rel": rel, "href": f"{path}/{rel}" if rel != "self" else path} for rel in _rels(call.version)],
    }
    if call.version >= (1, 14):
        answer["parent_provider_uuid"] = provider.parent_id
        answer["root_provider_uuid"] = provider.root_id
    return answer


_RELS = (
    ("self", (1, 0)),
    ("inventories", (1, 0)),
    ("usages", (1, 0)),
    ("aggregates", (1, 1)),
    ("traits", (1, 6)),
    ("allocations", (1, 11)),
)


def _rels(version: tuple[int, int]) -> Iterator[str]:
    return (rel for rel, since in _RELS if version >= since)


async def _parent(call: Call, parent_id: str, child_id: str, unable: str) -> Provider:
    if parent_id == child_id:
        raise Invalid(f"{unable}parent provider UUID cannot be same as UUID.")
    try:
        parent: Provider = (await call.cloud.documents.get(PROVIDER, parent_id)).state
    except NotFound:
        raise Invalid(f"{unable}parent provider UUID does not exist: {parent_id}.") from None
    return parent


async def _moving(call: Call, state: Provider, parent_id: str | None) -> list[Wish]:
    """The wishes that hang a provider, and all below it, somewhere else."""
    unable = f"Unable to save resource provider {state.id}: Object action update failed because: "
    if call.version < (1, 37) and (parent_id is None or state.parent_id is not None):
        what = "un-parenting" if parent_id is None else "re-parenting"
        raise Invalid(f"{unable}{what} a provider is not currently allowed before 1.37.")
    providers = all_providers(call)
    below = _below(providers, state.id)
    wishes = []
    root_id = state.id
    if parent_id is not None:
        if parent_id in {state.id, *below}:
            raise Invalid(f"{unable}creating loop in the provider tree is not allowed.")
        parent = await _parent(call, parent_id, state.id, unable)
        root_id = parent.root_id
        wishes.append(Wish(PROVIDERS, parent.id, AddChildProvider(child_id=state.id, root_id=root_id)))
    if state.parent_id is not None:
        wishes.append(Wish(PROVIDERS, state.parent_id, RemoveChildProvider(child_id=state.id)))
    wishes.append(Wish(PROVIDERS, state.id, MoveProvider(parent_id=parent_id, root_id=root_id)))
    wishes += [Wish(PROVIDERS, id, MoveProvider(parent_id=providers[id].parent_id, root_id=root_id)) for id in below]
    return wishes


def _below(providers: dict[str, Provider], id: str) -> list[str]:
    below: list[str] = []
    for child in providers[id].children if id in providers else ():
        below += [child, *_below(providers, child)]
    return below


async def _named(call: Call, name: str, wishes: list[Wish]) -> list[Document]:
    try:
        return await call.execute(*wishes)
    except AlreadyTaken:
        raise Conflict(f"Conflicting resource provider name: {name} already exists.", code=DUPLICATE_NAME) from None


_ONE = "/resource_providers/{uuid}"
_MAY = "placement:resource_providers"

routes = [
    Get("/resource_providers", index, may=f"{_MAY}:list", query=ListQuery),
    Post("/resource_providers", create, may=f"{_MAY}:create", body=NewProvider, until="1.13"),
    Post("/resource_providers", create, may=f"{_MAY}:create", body=NewProvider14, since="1.14"),
    Get(_ONE, show, may=f"{_MAY}:show"),
    Put(_ONE, update, may=f"{_MAY}:update", first=must_exist, body=ProviderUpdate, until="1.13"),
    Put(_ONE, update, may=f"{_MAY}:update", first=must_exist, body=ProviderUpdate14, since="1.14"),
    Delete(_ONE, delete, may=f"{_MAY}:delete"),
]
