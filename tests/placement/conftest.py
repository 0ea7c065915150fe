"""A running placement, spoken to over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.placement.service import SERVICE
from bus import clock
from bus.config import Settings
from tests.serving import Answer, Served, serving


class Placement:
    """An operator's client. `version` is the microversion of every request that names no other."""

    def __init__(self, served: Served, token: str) -> None:
        self.served = served
        self.token = token

    async def ask(self, method: str, path: str, json: Any = None, version: str = "1.39", token: str = "") -> Answer:
        headers = {"OpenStack-API-Version": f"placement {version}", "Accept": "application/json"}
        return await self.served.call(method, f"/placement{path}", json, token=token or self.token, headers=headers)

    async def must(self, status: int, method: str, path: str, json: Any = None, version: str = "1.39") -> Any:
        """The answer's body, its status being that one."""
        answer = await self.ask(method, path, json, version)
        assert answer.status == status, (method, path, answer.status, answer.body)
        return answer.json if answer.body else None

    async def provider(self, name: str, inventories: dict[str, Any] | None = None, **fields: Any) -> str:
        """A new provider's uuid. `parent`, `traits`, `aggregates` where given."""
        body = {"name": name, "parent_provider_uuid": fields.get("parent")}
        id = (await self.must(200, "POST", "/resource_providers", body))["uuid"]
        path, generation = f"/resource_providers/{id}", 0
        if inventories:
            body = {"resource_provider_generation": generation, "inventories": _written(inventories)}
            generation = (await self.must(200, "PUT", f"{path}/inventories", body))["resource_provider_generation"]
        for what in ("traits", "aggregates"):
            if what in fields:
                body = {"resource_provider_generation": generation, what: fields[what]}
                generation = (await self.must(200, "PUT", f"{path}/{what}", body))["resource_provider_generation"]
        return id

    async def allocate(self, consumer: str, allocations: dict[str, Any], **fields: Any) -> Answer:
        return await self.ask("PUT", f"/allocations/{consumer}", allocation(allocations, **fields))


def allocation(allocations: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The body that gives a consumer this: provider → resources."""
    return {
        "allocations": {id: {"resources": resources} for id, resources in allocations.items()},
        "project_id": "the-project",
        "user_id": "the-user",
        "consumer_generation": None,
        "consumer_type": "INSTANCE",
        **fields,
    }


def _written(inventories: dict[str, Any]) -> dict[str, Any]:
    return {name: it if isinstance(it, dict) else {"total": it} for name, it in inventories.items()}


@pytest.fixture
async def placement(settings: Settings, fresh_database: str) -> AsyncIterator[Placement]:
    async with serving(settings, fresh_database, [SERVICE]) as served:
        yield Placement(served, await served.token("admin"))


@pytest.fixture
def consumer() -> str:
    return clock.uuid4()
