"""The `openstack` command with osc-placement: a process that is asked one command after the other, and loads once."""

import asyncio
import contextlib
import io
import json
import os
import shlex
import sys
from pathlib import Path

from tests.serving import Served

VERSION = "1.39"
SILENT = {("resource", "class", "create"), ("resource", "class", "set"), ("trait", "create"), ("trait", "show")}
"""Commands that print nothing (worth reading), besides those that delete."""


class Osc:
    """`await osc("resource provider list")`: what it printed, read as JSON, or None."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, served: Served, password: str) -> "Osc":
        """As the admin of a cloud that serves Identity and Placement."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(served.cloud.settings.home),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONWARNINGS": "ignore",
            "OS_AUTH_URL": f"{served.url}/identity/v3",
            "OS_USERNAME": "admin",
            "OS_PASSWORD": password,
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
        }
        words = (sys.executable, __file__)
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*words, env=environment, stdin=pipe, stdout=pipe))

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def __call__(self, line: str) -> object:
        code, out, error = await self._run(line)
        assert code == 0, (line, error)
        return json.loads(out) if out.startswith(("{", "[")) else None

    async def refused(self, line: str) -> str:
        """What it says when Placement (or the command itself) says no."""
        code, _, error = await self._run(line)
        assert code != 0, line
        return error

    async def _run(self, line: str) -> tuple[int, str, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        return tuple(json.loads(await asyncio.wait_for(self._process.stdout.readline(), timeout=60)))


def _serve() -> None:
    from openstackclient.shell import main

    for asked in sys.stdin:
        words = shlex.split(json.loads(asked))
        silent = bool({"delete", "unset"} & set(words)) or tuple(words[:3]) in SILENT or tuple(words[:2]) in SILENT
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                code = main(["--os-placement-api-version", VERSION, *words, *([] if silent else ["-f", "json"])])
            except SystemExit as ended:
                code = int(ended.code or 0)
        sys.stdout.write(json.dumps([code, out.getvalue(), error.getvalue()]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
