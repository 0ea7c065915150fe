"""Whatever a client sends that the description allows, and much that it does not, nothing ends in a 5xx."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bus.config import Settings
from handlers.identity.bootstrap import bootstrap
from handlers.identity.login import Named, Scope, login
from handlers.identity.tokens import tokens
from tests.serving import serving
from tests.wire.test_openapi import services

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
ROOT = Path(__file__).parents[2]
PASSWORD = "fuzz the cloud"


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_schemathesis_finds_no_server_error(settings: Settings, fresh_database: str, tmp_path: Path):
    async with serving(settings, fresh_database, services()) as api:
        await bootstrap(api.cloud, PASSWORD)
        admin = await login(api.cloud).with_password(Named(name="admin", domain_id="default"), PASSWORD, Scope())
        process = await asyncio.create_subprocess_exec(
            str(SCHEMATHESIS),
            "run",
            f"{api.url}/openapi.json",
            f"--header=X-Auth-Token: {await tokens(api.cloud).sign(admin)}",
            "--checks=not_a_server_error",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=8",
            "--seed=1",
            "--suppress-health-check=all",
            "--continue-on-failure",
            "--request-timeout=20",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.wire.fuzzing_hooks", "PYTHONPATH": str(ROOT)},
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()[-8000:]
