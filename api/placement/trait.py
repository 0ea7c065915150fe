"""Traits: the standard ones, an operator's own (CUSTOM_*), and those of a provider."""

from __future__ import annotations

from msgspec import Struct

from api.placement.words import (
    Generation,
    TraitName,
    all_providers,
    answered,
    known_trait,
    must_know_traits,
    parameters,
    provider_at,
    provider_to_change,
)
from api.wire import Call, Delete, Get, Put, Reply
from bus.execute import Wish
from bus.log import Document
from handlers.placement.provider import PROVIDERS
from handlers.placement.trait import TRAITS, standard_traits
from schema.placement.provider import Provider, SetProviderTraits
from schema.placement.resource_class import CUSTOM_NAME
from schema.placement.trait import TRAIT, CreateTrait, DeleteTrait
from schema.refusal import Conflict, Invalid, NotFound


class ProviderTraits(Struct, forbid_unknown_fields=True):
    traits: list[TraitName]
    resource_provider_generation: Generation


class ListQuery(Struct, frozen=True):
    """For the description; `index` reads the parameters itself."""

    name: str | None = None
    associated: str | None = None


async def index(call: Call) -> Reply:
    parameters(call, {"name": (1, 6), "associated": (1, 6)})
    names = [*sorted(standard_traits()), *sorted(document.id for document in call.cloud.mirror(TRAIT).values())]
    if "associated" in call.query:
        wanted = {"true": True, "false": False}.get(call.query["associated"].lower())
        if wanted is None:
            raise Invalid('The query parameter "associated" only accepts "true" or "false"')
        used = {trait for provider in all_providers(call).values() for trait in provider.traits}
        names = [name for name in names if (name in used) is wanted]
    if "name" in call.query:
        operator, colon, operand = call.query["name"].partition(":")
        if not colon or operator not in {"in", "startswith"} or not operand:
            raise Invalid(
                "Badly formatted name parameter. Expected name query string parameter in form: "
                f'?name=[in|startswith]:[name1,name2|prefix]. Got: "{call.query["name"]}"'
            )
        among = set(operand.split(","))
        names = [name for name in names if (name in among if operator == "in" else name.startswith(operand))]
    return answered(call, {"traits": names})


async def show(call: Call) -> Reply:
    _must_exist(call, call.path["name"])
    return answered(call, None, status=204)


async def create(call: Call) -> Reply:
    name = call.path["name"]
    if not CUSTOM_NAME.fullmatch(name):
        raise Invalid(
            "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix "
            '"CUSTOM_" and use following characters: "A"-"Z", "0"-"9" and "_"'
        )
    there = known_trait(call, name)
    await call.execute(Wish(TRAITS, name, CreateTrait()))
    location = {"Location": call.url(f"/traits/{name}")}
    return answered(call, None, status=204 if there else 201, headers=location)


async def delete(call: Call) -> None:
    name = call.path["name"]
    _must_exist(call, name)
    if name in standard_traits():
        raise Invalid(f"Cannot delete standard trait {name}.")
    users = [it.id for it in all_providers(call).values() if name in it.traits]
    if users:
        raise Conflict(f"The trait {name} is in use by a resource provider. It is {users[0]}.")
    await call.execute(Wish(TRAITS, name, DeleteTrait()))


async def of_provider(call: Call) -> Reply:
    parameters(call, {})
    return _view(call, await provider_at(call))


async def replace(call: Call) -> Reply:
    if len(set(call.body.traits)) < len(call.body.traits):
        raise Invalid("Invalid input for field traits: it has non-unique elements.")
    generation = call.body.resource_provider_generation
    await provider_to_change(call, generation)
    must_know_traits(call, call.body.traits)
    traits = tuple(sorted(call.body.traits, key=standard_first))
    command = SetProviderTraits(traits=traits, generation=generation)
    [document] = await call.execute(Wish(PROVIDERS, call.path["uuid"], command))
    return _view(call, document)


async def clear(call: Call) -> None:
    generation = (await provider_at(call)).state.generation
    await call.execute(Wish(PROVIDERS, call.path["uuid"], SetProviderTraits(traits=(), generation=generation)))


def standard_first(name: str) -> tuple[bool, str]:
    """The order traits are shown in."""
    return name.startswith("CUSTOM_"), name


def _must_exist(call: Call, name: str) -> None:
    if not known_trait(call, name):
        raise NotFound(f"No such trait(s): {name}.")


def _view(call: Call, document: Document) -> Reply:
    provider: Provider = document.state
    body = {"traits": list(provider.traits), "resource_provider_generation": provider.generation}
    return answered(call, body, [provider.updated_at])


_ALL = "/resource_providers/{uuid}/traits"
_MAY = "placement:resource_providers:traits"

routes = [
    Get("/traits", index, may="placement:traits:list", query=ListQuery, since="1.6"),
    Get("/traits/{name}", show, may="placement:traits:show", answers=204, since="1.6"),
    Put("/traits/{name}", create, may="placement:traits:update", answers=201, since="1.6"),
    Delete("/traits/{name}", delete, may="placement:traits:delete", since="1.6"),
    Get(_ALL, of_provider, may=f"{_MAY}:list", since="1.6"),
    Put(_ALL, replace, may=f"{_MAY}:update", body=ProviderTraits, since="1.6"),
    Delete(_ALL, clear, may=f"{_MAY}:delete", since="1.6"),
]
