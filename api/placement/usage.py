"""Usages: what is claimed of one provider, and what one project (or one of its users) holds."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from msgspec import Struct

from api.placement.refusal import SHOWN_CHARACTERS, wrong_query
from api.placement.words import answered, parameters, provider_at
from api.wire import Call, Get, Reply
from bus.documents import Where
from schema.placement.consumer import CONSUMER, Consumer
from schema.placement.provider import Provider


class UsagesQuery(Struct, frozen=True):
    """For the description; `of_project` reads the parameters as each microversion means them."""

    project_id: str | None = None
    user_id: str | None = None
    consumer_type: str | None = None


UNKNOWN, ALL = "unknown", "all"

_CONSUMER_TYPE = re.compile(r"[A-Z0-9_]+|all|unknown")


async def of_provider(call: Call) -> Reply:
    parameters(call, {})
    provider: Provider = (await provider_at(call)).state
    body = {
        "resource_provider_generation": provider.generation,
        "usages": {name: provider.used.get(name, 0) for name in provider.inventories},
    }
    return answered(call, body, [provider.updated_at])


async def of_project(call: Call) -> Reply:
    project_id, user_id = call.query.get("project_id"), call.query.get("user_id")
    if project_id is not None:
        call.must("placement:usages", project_id=project_id)
    parameters(call, {"project_id": (1, 9), "user_id": (1, 9), "consumer_type": (1, 38)})
    if project_id is None:
        raise wrong_query("'project_id' is a required property", "required")
    for value in call.query.values():
        if not value:
            raise wrong_query("'' is too short", "minLength")
        if len(value) > 255:
            raise wrong_query(f"{value[:SHOWN_CHARACTERS]!r} is too long", "maxLength")
    kind = call.query.get("consumer_type")
    if kind is not None and not _CONSUMER_TYPE.fullmatch(kind):
        raise wrong_query(f"{kind!r} does not match '^[A-Z0-9_]+$|^all|^unknown$'", "pattern")
    where = [Where("project_id", "=", project_id)]
    if user_id is not None:
        where.append(Where("user_id", "=", user_id))
    consumers = [it.state for it in await call.cloud.documents.find(CONSUMER, where=where, limit=None)]
    usages = _by_type(consumers, kind) if call.version >= (1, 38) else _sum(consumers)
    return answered(call, {"usages": usages}, (it.updated_at for it in consumers))


def _sum(consumers: list[Consumer]) -> dict[str, int]:
    usages: dict[str, int] = {}
    for consumer in consumers:
        for resources in consumer.allocations.values():
            for name, amount in resources.items():
                usages[name] = usages.get(name, 0) + amount
    return usages


def _by_type(consumers: list[Consumer], wanted: str | None) -> dict[str, Any]:
    groups: dict[str, list[Consumer]] = defaultdict(list)
    for consumer in consumers:
        kind = consumer.consumer_type or UNKNOWN
        if wanted in {None, kind}:
            groups[kind].append(consumer)
        elif wanted == ALL:
            groups[ALL].append(consumer)
    return {kind: {"consumer_count": len(them), **_sum(them)} for kind, them in groups.items()}


routes = [
    Get("/resource_providers/{uuid}/usages", of_provider, may="placement:resource_providers:usages"),
    Get("/usages", of_project, may="placement:usages", query=UsagesQuery, since="1.9"),
]
