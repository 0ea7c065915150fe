"""The `openstack` command against a served cloud: a process that is asked one command after the other, loads once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.serving import Served

OPENSTACK = Path(sys.executable).with_name("openstack")
ANSWER_SECONDS = 120.0
ANSWER_BYTES = 16 * 1024 * 1024


class Command:
    """`await openstack("network", "list", "-f", "json")`: what it printed, read as JSON, or None."""

    def __init__(self, process: asyncio.subprocess.Process, environment: Mapping[str, str]) -> None:
        self._process = process
        self._environment = environment

    async def __call__(self, *words: str) -> Any:
        code, out, error = await self._run(words)
        assert code == 0, (words, error)
        return json.loads(out) if out.startswith(("{", "[")) else None

    async def refused(self, *words: str) -> str:
        """What it says when the cloud (or the command itself) says no."""
        code, _, error = await self._run(words)
        assert code != 0, words
        return error

    async def alone(self, *words: str) -> None:
        """In a process of its own: some options stay with a process for good."""
        process = await asyncio.create_subprocess_exec(str(OPENSTACK), *words, env=self._environment)
        assert await process.wait() == 0, words

    async def _run(self, words: Sequence[str]) -> tuple[int, str, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        answer = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_SECONDS)
        code, out, error = json.loads(answer)
        return code, out, error


@asynccontextmanager
async def commanding(
    served: Served, password: str, user: str = "admin", project: str = "admin"
) -> AsyncIterator[Command]:
    """As an operator, or as anybody with a password."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(served.cloud.settings.home),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHONWARNINGS": "ignore",
        "OS_AUTH_URL": f"{served.url}/identity/v3",
        "OS_USERNAME": user,
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": project,
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_IDENTITY_API_VERSION": "3",
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, env=environment, stdin=pipe, stdout=pipe, limit=ANSWER_BYTES
    )
    try:
        yield Command(process, environment)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def _serve() -> None:
    from openstackclient.shell import main

    for asked in sys.stdin:
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                code = main(json.loads(asked))
            except SystemExit as ended:
                code = int(ended.code or 0)
        sys.stdout.write(json.dumps([code, out.getvalue(), error.getvalue()]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
