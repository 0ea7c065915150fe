"""The `openstack` command against a served cloud, as an operator or as anybody with a password."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.serving import Served

OPENSTACK = Path(sys.executable).with_name("openstack")


class Command:
    """`await openstack("network", "list")`: what it printed as JSON, or None."""

    def __init__(self, served: Served, password: str, user: str = "admin", project: str = "admin") -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(served.cloud.settings.home),
            "OS_AUTH_URL": f"{served.url}/identity/v3",
            "OS_USERNAME": user,
            "OS_PASSWORD": password,
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
        }

    async def __call__(self, *words: str) -> Any:
        code, out, error = await self._run(*words)
        assert code == 0, error
        return json.loads(out) if out.startswith(("{", "[")) else None

    async def refused(self, *words: str) -> str:
        """What it says when the cloud says no."""
        code, _, error = await self._run(*words)
        assert code != 0
        return error

    async def _run(self, *words: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            str(OPENSTACK),
            *words,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        return process.returncode, out.decode(), error.decode()
