"""Aggregates of a provider: bare UUIDs, whatever they stand for."""

from __future__ import annotations

from msgspec import Struct

from api.placement.words import Generation, Uuid, answered, must_exist, parameters, provider_at, provider_to_change
from api.wire import Call, Get, Put, Reply
from bus.execute import Wish
from bus.log import Document
from handlers.placement.provider import PROVIDERS
from schema.placement.provider import Provider, SetProviderAggregates
from schema.refusal import Invalid


class Aggregates(Struct, forbid_unknown_fields=True):
    aggregates: list[Uuid]
    resource_provider_generation: Generation


async def index(call: Call) -> Reply:
    parameters(call, {})
    return _view(call, await provider_at(call))


async def replace(call: Call) -> Reply:
    counted = call.version >= (1, 19)
    given = call.body.aggregates if counted else call.body
    if len(set(given)) < len(given):
        raise Invalid("Invalid input for field aggregates: it has non-unique elements.")
    generation = call.body.resource_provider_generation if counted else None
    await provider_to_change(call, generation)
    command = SetProviderAggregates(aggregates=tuple(given), generation=generation, counted=counted)
    [document] = await call.execute(Wish(PROVIDERS, call.path["uuid"], command))
    return _view(call, document)


def _view(call: Call, document: Document) -> Reply:
    provider: Provider = document.state
    body: dict[str, object] = {"aggregates": list(provider.aggregates)}
    if call.version >= (1, 19):
        body["resource_provider_generation"] = provider.generation
    return answered(call, body, [provider.updated_at])


_ALL = "/resource_providers/{uuid}/aggregates"
_MAY = "placement:resource_providers:aggregates"

routes = [
    Get(_ALL, index, may=f"{_MAY}:list", since="1.1"),
    Put(_ALL, replace, may=f"{_MAY}:update", first=must_exist, body=list[Uuid], since="1.1", until="1.18"),
    Put(_ALL, replace, may=f"{_MAY}:update", first=must_exist, body=Aggregates, since="1.19"),
]
