"""A client that does not give up: what the API did not answer is asked again, with the same Idempotency-Key."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import Any, Self

import aiohttp

PATIENCE_SECONDS = 60.0
UNSETTLED = {"BUILD", "REBOOT", "HARD_REBOOT", "DELETING", "UNKNOWN"}


class Client:
    """The admin, over HTTP."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self.password = password
        self.project = ""
        self._token = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        await self.log_in()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def log_in(self) -> None:
        user = {"name": "admin", "domain": {"id": "default"}, "password": self.password}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": "admin", "domain": {"id": "default"}}},
            }
        }
        answer, headers = await self.call("POST", "/identity/v3/auth/tokens", body, {201})
        self._token = headers["X-Subject-Token"]
        self.project = answer["token"]["project"]["id"]

    async def call(
        self, method: str, path: str, body: Any = None, good: set[int] | None = None, key: str = "", data: Any = None
    ) -> tuple[Any, Any]:
        """Until it is answered. 5xx and broken connections are tried again; anything but `good` is an error."""
        headers = {"X-Auth-Token": self._token, "OpenStack-API-Version": "compute 2.96"}
        if key:
            headers["Idempotency-Key"] = key
        if data is not None:
            headers["Content-Type"] = "application/octet-stream"
        last = ""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    try:
                        async with self._session.request(
                            method, self.url + path, json=body, data=data, headers=headers
                        ) as answer:
                            text = await answer.text()
                            if answer.status in (good or {200}):
                                return (await answer.json(content_type=None) if text else None), answer.headers
                            last = f"{answer.status} {text[:500]}"
                            assert answer.status >= 500, f"{method} {path}: {last}"
                    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                        last = repr(error)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{method} {path} was not answered in {PATIENCE_SECONDS} s; last: {last}") from None

    async def prepare(self) -> str:
        """Room for many servers and an image to make them from; its id."""
        limits = {"quota_set": {"instances": -1, "cores": -1, "ram": -1}}
        await self.call("PUT", f"/compute/v2.1/os-quota-sets/{self.project}", limits)
        form = {"name": "nothing", "disk_format": "raw", "container_format": "bare"}
        image, _ = await self.call("POST", "/image/v2/images", form, {201}, key=uuid.uuid4().hex)
        await self.call("PUT", f"/image/v2/images/{image['id']}/file", good={204}, data=bytes(4096))
        return str(image["id"])

    async def create(self, image: str, name: str) -> str:
        server = {"name": name, "imageRef": image, "flavorRef": "42", "networks": "none"}
        key = hashlib.sha256(name.encode()).hexdigest()
        made, _ = await self.call("POST", "/compute/v2.1/servers", {"server": server}, {202}, key=key)
        return str(made["server"]["id"])

    async def servers(self) -> dict[str, dict[str, Any]]:
        found, _ = await self.call("GET", "/compute/v2.1/servers/detail?limit=1000")
        return {server["id"]: server for server in found["servers"]}

    async def settled(self, seconds: float) -> dict[str, dict[str, Any]]:
        """Every server, once none is on its way any more."""
        unsettled: list[tuple[str, Any]] = []
        try:
            async with asyncio.timeout(seconds):
                while True:
                    servers = await self.servers()
                    unsettled = [
                        (it["status"], it["OS-EXT-STS:task_state"])
                        for it in servers.values()
                        if it["status"] in UNSETTLED or it["OS-EXT-STS:task_state"]
                    ]
                    if not unsettled:
                        return servers
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"still on their way after {seconds:.0f} s: {unsettled}") from None

    async def delete_all(self) -> None:
        ids = list(await self.servers())
        await asyncio.gather(
            *(self.call("DELETE", f"/compute/v2.1/servers/{id}", good={204, 404}, key=f"delete-{id}") for id in ids)
        )

    async def used(self) -> dict[str, int]:
        """What placement says is used, of everything, everywhere."""
        providers, _ = await self.call("GET", "/placement/resource_providers")
        used: dict[str, int] = {}
        for provider in providers["resource_providers"]:
            usages, _ = await self.call("GET", f"/placement/resource_providers/{provider['uuid']}/usages")
            for name, amount in usages["usages"].items():
                used[name] = used.get(name, 0) + amount
        return used
