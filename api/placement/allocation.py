"""Allocations: what consumers hold, changed as a whole, for one consumer or for many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace as changed

from api.placement.words import (
    Amount,
    ClassName,
    Generation,
    Owner,
    ProviderKey,
    Uuid,
    answered,
    dashed,
    known_class,
    parameters,
    provider_at,
)
from api.wire import Call, Delete, Get, Post, Put, Reply
from bus.execute import Wish
from bus.log import Document
from handlers.placement.claims import claim, release
from handlers.placement.provider import ConcurrentUpdate
from schema.placement.consumer import CONSUMER, Consumer
from schema.placement.provider import PROVIDER, Claim, Provider, Release, Resources
from schema.refusal import Invalid, NotFound

INCOMPLETE = "00000000-0000-0000-0000-000000000000"
"""Project and user of consumers that clients older than 1.8 made."""
ATTEMPTS = 5
"""How often a change without a consumer generation is made anew when the consumer moved under it."""

ClassAmounts = Annotated[dict[ClassName, Amount], Meta(min_length=1)]
ConsumerType = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Z0-9_]+$")]
Mappings = Annotated[dict[str, Annotated[list[Uuid], Meta(min_length=1)]], Meta(min_length=1)]


class OneOfList(Struct, forbid_unknown_fields=True):
    resource_provider: NamedProvider
    resources: ClassAmounts


class NamedProvider(Struct, forbid_unknown_fields=True):
    uuid: Uuid


class OneOfMany(Struct, forbid_unknown_fields=True):
    resources: ClassAmounts
    generation: int | UnsetType = UNSET
    """What GET says; it means nothing here."""


AsList = Annotated[list[OneOfList], Meta(min_length=1)]
AsMap = dict[ProviderKey, OneOfMany]
AsFilledMap = Annotated[AsMap, Meta(min_length=1)]


class Allocations(Struct, forbid_unknown_fields=True, kw_only=True):
    allocations: AsList


class Allocations8(Struct, forbid_unknown_fields=True, kw_only=True):
    allocations: AsList
    project_id: Owner
    user_id: Owner


class Allocations12(Struct, forbid_unknown_fields=True, kw_only=True):
    allocations: AsFilledMap
    project_id: Owner
    user_id: Owner


class Allocations13(Allocations12, forbid_unknown_fields=True, kw_only=True):
    allocations: AsMap


class Allocations28(Allocations13, forbid_unknown_fields=True, kw_only=True):
    consumer_generation: Generation | None


class Allocations34(Allocations28, forbid_unknown_fields=True, kw_only=True):
    mappings: Mappings | UnsetType = UNSET


class Allocations38(Allocations34, forbid_unknown_fields=True, kw_only=True):
    consumer_type: ConsumerType


Many13 = Annotated[dict[ProviderKey, Allocations13], Meta(min_length=1)]
Many28 = Annotated[dict[ProviderKey, Allocations28], Meta(min_length=1)]
Many34 = Annotated[dict[ProviderKey, Allocations34], Meta(min_length=1)]
Many38 = Annotated[dict[ProviderKey, Allocations38], Meta(min_length=1)]


async def show(call: Call) -> Reply:
    parameters(call, {})
    consumer = (await _consumers(call, [call.path["consumer"]])).get(call.path["consumer"])
    if consumer is None:
        return answered(call, {"allocations": {}})
    state: Consumer = consumer.state
    providers = await call.cloud.documents.get_many(PROVIDER, list(state.allocations))
    body: dict[str, Any] = {
        "allocations": {
            id: {"generation": providers[id].state.generation, "resources": state.allocations[id]}
            for id in state.order or sorted(state.allocations)
        }
    }
    if call.version >= (1, 12):
        body |= {"project_id": state.project_id, "user_id": state.user_id}
    if call.version >= (1, 28):
        body["consumer_generation"] = state.generation
    if call.version >= (1, 38):
        body["consumer_type"] = state.consumer_type or "unknown"
    return answered(call, body, [state.updated_at])


async def of_provider(call: Call) -> Reply:
    parameters(call, {})
    provider: Provider = (await provider_at(call)).state
    consumers = await _consumers(call, provider.claims) if call.version >= (1, 28) else {}
    allocations: dict[str, Any] = {id: {"resources": resources} for id, resources in provider.claims.items()}
    for id, consumer in consumers.items():
        allocations[id]["consumer_generation"] = consumer.state.generation
    body = {"allocations": allocations, "resource_provider_generation": provider.generation}
    return answered(call, body, [provider.updated_at])


async def replace(call: Call) -> None:
    parameters(call, {})
    await change(call, {call.path["consumer"]: call.body})


async def replace_many(call: Call) -> None:
    parameters(call, {})
    await change(call, call.body)


async def delete(call: Call) -> None:
    id = call.path["consumer"]

    async def once() -> None:
        held = (await _consumers(call, [id])).get(id)
        if held is None:
            raise NotFound(f"No allocations for consumer '{id}'")
        await call.execute(*release(held))

    await _again(once)


async def change(
    call: Call, wanted: Mapping[str, Any], before: Iterable[Wish] = (), after: Iterable[Wish] = ()
) -> None:
    """Every consumer shall hold what its body says, all of them or none; `before` and `after` happen with it."""
    bodies = {dashed_consumer(id): body for id, body in wanted.items()}
    allocations = {id: _allocations(body) for id, body in bodies.items()}
    providers = await _providers(call, {id for all_ in allocations.values() for id in all_})

    async def once() -> None:
        held = await _held(call, bodies)
        _must_exist(call, allocations, providers)
        wishes: list[Wish] = []
        for id, body in bodies.items():
            wishes += _wishes(id, body, allocations[id], held.get(id))
        await call.execute(*before, *_counted_once(_in_order(wishes, held)), *after)

    counted = any(hasattr(body, "consumer_generation") for body in bodies.values())
    await (once() if counted else _again(once))


def dashed_consumer(id: str) -> str:
    try:
        return dashed(id)
    except ValueError:
        raise Invalid(f"Malformed consumer_uuid: {id}") from None


def _wishes(
    id: str,
    body: Any,
    allocations: dict[str, Resources],
    held: Document | None,
) -> tuple[Wish, ...]:
    """A write that changes nothing moves generations like any other."""
    said = held.state.consumer_type if held is not None else None
    return claim(
        id,
        allocations,
        getattr(body, "project_id", INCOMPLETE),
        getattr(body, "user_id", INCOMPLETE),
        held=held,
        consumer_type=getattr(body, "consumer_type", said),
        counted=True,
        fresh=held is None,
    )


def _in_order(wishes: list[Wish], held: Mapping[str, Document]) -> list[Wish]:
    """A stale generation is told before a lack of room.

    What gives room comes before what takes it, so that consumers can change places on a full provider.
    """

    def rank(wish: Wish) -> int:
        command = wish.command
        if isinstance(command, Release):
            return 1
        if isinstance(command, Claim):
            before = held[command.consumer_id].state.allocations.get(wish.id, {}) if command.consumer_id in held else {}
            return 2 if all(amount <= before.get(name, 0) for name, amount in command.resources.items()) else 3
        return 0

    return sorted(wishes, key=rank)


def _allocations(body: Any) -> dict[str, Resources]:
    if isinstance(body.allocations, dict):
        return {_provider_id(id): dict(it.resources) for id, it in body.allocations.items()}
    found: dict[str, Resources] = {}
    for it in body.allocations:
        into = found.setdefault(_provider_id(it.resource_provider.uuid), {})
        for name, amount in it.resources.items():
            into[name] = into.get(name, 0) + amount
    return found


def _provider_id(text: str) -> str:
    try:
        return dashed(text)
    except ValueError:
        raise Invalid(f"Invalid input: {text!r} is no resource provider's UUID.") from None


def _counted_once(wishes: list[Wish]) -> Iterator[Wish]:
    """A provider's generation moves once, however many consumers this is about."""
    counted: set[str] = set()
    for wish in wishes:
        command = wish.command
        if not isinstance(command, (Claim, Release)) or not command.counted:
            yield wish
        elif wish.id not in counted:
            counted.add(wish.id)
            yield wish
        else:
            yield changed(wish, command=changed(command, counted=False))


async def _providers(call: Call, ids: set[str]) -> dict[str, Document]:
    """Those that there are; from memory, but for what it does not know (yet)."""
    mirror = call.cloud.mirror(PROVIDER)
    known = {id: it for id in ids if (it := mirror.get(id)) is not None}
    if len(known) < len(ids):
        found = await call.cloud.documents.get_many(PROVIDER, sorted(ids - known.keys()))
        known |= {id: it for id, it in found.items() if it.state.living}
    return known


def _must_exist(
    call: Call, allocations: Mapping[str, Mapping[str, Resources]], providers: Mapping[str, Document]
) -> None:
    for consumer, claims in allocations.items():
        for id, resources in claims.items():
            if id not in providers:
                raise Invalid(f"Allocation for resource provider '{id}' that does not exist.")
            for name in resources:
                if not known_class(call, name):
                    raise Invalid(
                        f"Unable to allocate inventory for consumer {consumer}: No such resource class {name}."
                    )


async def _held(call: Call, bodies: Mapping[str, Any]) -> dict[str, Document]:
    """What the consumers hold, each at the generation its body names. Raises ConcurrentUpdate.

    Who says that a consumer is new is believed until the append; what is remembered need not be read again if it is
    what the client saw.
    """
    seen = {id: getattr(body, "consumer_generation", UNSET) for id, body in bodies.items()}
    streams = {CONSUMER.stream(id): id for id, generation in seen.items() if generation is not None}
    found = await call.cloud.executor.load(list(streams)) if streams else {}
    held = {streams[stream]: it for stream, it in found.items() if it.state.living}
    stale = [id for id in streams.values() if seen[id] is UNSET or _differs(seen[id], held.get(id))]
    if stale:
        held = {id: it for id, it in held.items() if id not in stale} | await _consumers(call, stale)
        for id in stale:
            if seen[id] is not UNSET and _differs(seen[id], held.get(id)):
                actual = held[id].state.generation if id in held else "null"
                raise ConcurrentUpdate(
                    f"consumer generation conflict - expected {actual} but got {seen[id]} for consumer {id}"
                )
    return held


def _differs(generation: Any, held: Document | None) -> bool:
    return held is None or held.state.generation != generation


async def _consumers(call: Call, ids: Iterable[str]) -> dict[str, Document]:
    """Those that hold something, as they are now."""
    found = await call.cloud.documents.get_many(CONSUMER, list(ids))
    return {id: document for id, document in found.items() if document.state.living}


async def _again(once: Callable[[], Awaitable[None]]) -> None:
    for _ in range(1, ATTEMPTS):
        with suppress(ConcurrentUpdate):
            await once()
            return
    await once()


_ONE = "/allocations/{consumer}"
_MAY = "placement:allocations"

routes = [
    Get(_ONE, show, may=f"{_MAY}:list"),
    Put(_ONE, replace, may=f"{_MAY}:update", answers=204, body=Allocations, until="1.7"),
    Put(_ONE, replace, may=f"{_MAY}:update", answers=204, body=Allocations8, since="1.8", until="1.11"),
    Put(_ONE, replace, may=f"{_MAY}:update", answers=204, body=Allocations12, since="1.12", until="1.27"),
    Put(_ONE, replace, may=f"{_MAY}:update", answers=204, body=Allocations28, since="1.28", until="1.33"),
    Put(_ONE, replace, may=f"{_MAY}:update", answers=204, body=Allocations34, since="1.34", until="1.37"),
    Put(_ONE, replace, may=f"{_MAY}:update", answers=204, body=Allocations38, since="1.38"),
    Delete(_ONE, delete, may=f"{_MAY}:delete"),
    Post("/allocations", replace_many, may=f"{_MAY}:manage", answers=204, body=Many13, since="1.13", until="1.27"),
    Post("/allocations", replace_many, may=f"{_MAY}:manage", answers=204, body=Many28, since="1.28", until="1.33"),
    Post("/allocations", replace_many, may=f"{_MAY}:manage", answers=204, body=Many34, since="1.34", until="1.37"),
    Post("/allocations", replace_many, may=f"{_MAY}:manage", answers=204, body=Many38, since="1.38"),
    Get(
        "/resource_providers/{uuid}/allocations",
        of_provider,
        may="placement:resource_providers:allocations:list",
    ),
]
