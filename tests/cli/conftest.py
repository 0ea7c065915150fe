"""A cloud of one's own, driven through the command line as a person drives it."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Person:
    """Somebody at a shell with a home and a clouds.yaml of their own."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.clouds = home.parent / "clouds.yaml"
        self.listen = f"127.0.0.1:{port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home.parent),
            "CUMULOG_HOME": str(home),
            "OS_CLIENT_CONFIG_FILE": str(self.clouds),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.prefix: list[str] = []

    def becomes(self, user: str) -> None:
        """From now on an ordinary user, who may read this checkout and its Python wherever they lie."""
        known = pwd.getpwnam(user)
        os.chown(self.home.parent, known.pw_uid, known.pw_gid)
        reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        ids = [f"--reuid={known.pw_uid}", f"--regid={known.pw_gid}", "--clear-groups"]
        self.prefix = ["setpriv", *ids, *reading]

    def types(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `cumulog ARGUMENTS…`."""
        return subprocess.run(
            [*self.prefix, sys.executable, "-P", "-m", "api.cli", *arguments],
            env=self.environment | environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def up(self, *arguments: str) -> str:
        done = self.types("up", "--listen", self.listen, "--hypervisor", "simulated", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pids(self) -> dict[str, int]:
        """Process → id, as `status` shows them; those that are down are left out."""
        lines = self.types("status").stdout.splitlines()[1:]
        rows = [line.split() for line in lines[: lines.index("")]]
        return {row[0]: int(row[1]) for row in rows if row[1].isdigit()}


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def person(free_port) -> Iterator[Person]:
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    folder.chmod(0o711)
    person = Person(folder / "home", free_port())
    yield person
    person.types("down")
    shutil.rmtree(folder)
