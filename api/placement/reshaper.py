"""The reshaper: inventories move between providers together with what is allocated of them, in one step."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from api.placement.allocation import Allocations28, Allocations34, Allocations38, change
from api.placement.inventory import InventoryBody, inventory
from api.placement.words import ClassName, Generation, ProviderKey, dashed, must_know_classes
from api.wire import Call, Post
from bus.execute import Wish
from handlers.placement.provider import PROVIDERS, ConcurrentUpdate, NoRoom
from schema.placement.provider import PROVIDER, CheckProvider, Provider, SetInventories
from schema.refusal import Invalid


class ProviderInventories(Struct, forbid_unknown_fields=True):
    resource_provider_generation: Generation
    inventories: dict[ClassName, InventoryBody]


class Reshape30(Struct, forbid_unknown_fields=True):
    inventories: dict[ProviderKey, ProviderInventories]
    allocations: dict[ProviderKey, Allocations28]


class Reshape34(Struct, forbid_unknown_fields=True):
    inventories: dict[ProviderKey, ProviderInventories]
    allocations: dict[ProviderKey, Allocations34]


class Reshape38(Struct, forbid_unknown_fields=True):
    inventories: dict[ProviderKey, ProviderInventories]
    allocations: dict[ProviderKey, Allocations38]


async def reshape(call: Call) -> None:
    """Every provider first offers the old and the new; then allocations move; then the old goes.

    One that is to offer nothing at all changes once, at the end.
    """
    wanted = {dashed(id): body for id, body in call.body.inventories.items()}
    must_know_classes(call, {name for body in wanted.values() for name in body.inventories})
    found = await call.cloud.documents.get_many(PROVIDER, list(wanted))
    first: list[Wish] = []
    last: dict[str, SetInventories] = {}
    for id, body in wanted.items():
        if id not in found or not found[id].state.living:
            raise Invalid(f"Resource provider {id} in inventories not found.", code=NOT_FOUND)
        provider: Provider = found[id].state
        _expect(provider, body)
        new = {name: inventory(call, id, name, it) for name, it in body.inventories.items()}
        generation = body.resource_provider_generation
        both = SetInventories(inventories=provider.inventories | new, generation=generation)
        first.append(Wish(PROVIDERS, id, both if new else CheckProvider(generation=generation)))
        last[id] = SetInventories(inventories=new, counted=True)
    for body in call.body.allocations.values():
        for id, it in body.allocations.items():
            _must_fit(dashed(id), it.resources, last)
    after = [Wish(PROVIDERS, id, command) for id, command in last.items()]
    await change(call, call.body.allocations, before=first, after=after)


def _must_fit(id: str, resources: dict[str, int], last: dict[str, SetInventories]) -> None:
    """What stays as it is must be a size that the new inventories give, too."""
    if id in last:
        for name, amount in resources.items():
            offered = last[id].inventories.get(name)
            if offered is None or not offered.fits(amount):
                raise NoRoom(id, f"{amount} of {name} is not a size it would give.")


NOT_FOUND = "placement.resource_provider.not_found"


def _expect(provider: Provider, body: Any) -> None:
    if provider.generation != body.resource_provider_generation:
        raise ConcurrentUpdate(
            f"resource provider generation conflict for provider {provider.id}: actual: {provider.generation}, "
            f"given: {body.resource_provider_generation}"
        )


_MAY = "placement:reshaper:reshape"

routes = [
    Post("/reshaper", reshape, may=_MAY, answers=204, body=Reshape30, since="1.30", until="1.33"),
    Post("/reshaper", reshape, may=_MAY, answers=204, body=Reshape34, since="1.34", until="1.37"),
    Post("/reshaper", reshape, may=_MAY, answers=204, body=Reshape38, since="1.38"),
]
