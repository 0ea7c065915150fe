"""A cloud in a process of its own, over a PostgreSQL of its own, for a bench to load."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.servers import Measured
from bus.postgres import EmbeddedPostgres


@contextmanager
def serving(file: str, *words: str) -> Iterator[tuple[Any, Measured]]:
    """What `python FILE serve HOME DSN WORDS…` says in its first line of JSON, and what it costs meanwhile."""
    with tempfile.TemporaryDirectory(prefix="cumulog-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        postgres = EmbeddedPostgres(home)
        postmaster = postgres.start()
        command = [sys.executable, file, "serve", str(home), postgres.dsn(), *words]
        with (
            (home / "serve.log").open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                line = next((line for line in process.stdout if line.startswith("[")), None)
                if line is None:
                    raise RuntimeError((home / "serve.log").read_text()[-2000:])
                yield json.loads(line), Measured(process.pid, postmaster)
            finally:
                process.kill()
                postgres.stop()
