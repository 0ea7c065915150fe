"""Installing what a verb needs: Debian's packages as root, extras of pyproject.toml into .venv. Each is named first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from api.cli.screen import Failure, say, step

ROOT = Path(__file__).resolve().parents[2]
_APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=900", "-o", "Acquire::Retries=3")
_POLICY = Path("/usr/sbin/policy-rc.d")


def may_apt() -> bool:
    """Whether this user can install Debian packages here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None and shutil.which("dpkg-query") is not None


def missing(packages: Sequence[str]) -> list[str]:
    """Those Debian packages that are not installed."""
    query = ["dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Abbrev}\n", *packages]
    shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    there = {line.split()[0].partition(":")[0] for line in shown.splitlines() if line.split()[1:2] == ["ii"]}
    return [package for package in packages if package not in there]


def apt(packages: Sequence[str], why: str) -> None:
    """Install Debian packages that are missing, without starting their services. Raises Failure."""
    wanted = missing(packages)
    if not wanted:
        return
    if not may_apt():
        raise Failure(
            f"{why} needs {', '.join(wanted)}, and only root on Debian or Ubuntu can have them installed",
            f"As root, once: apt-get install --no-install-recommends {' '.join(wanted)}",
        )
    say(f"Installing Debian packages for {why}: {', '.join(wanted)}")
    with step("apt-get install"), _no_services():
        done = _apt("install", "--no-install-recommends", *wanted)
        if done.returncode:
            _apt("update")
            done = _apt("install", "--no-install-recommends", *wanted)
        if done.returncode:
            tail = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-6:])
            raise Failure(f"apt-get could not install them:\n  {tail}", "Mend that, then run the same command again.")


def extra(name: str) -> None:
    """Install an extra of pyproject.toml into .venv, through the launcher that made it. Raises Failure."""
    if Path(sys.prefix) != ROOT / ".venv":
        return  # a developer's own environment: theirs to fill
    if subprocess.run([str(ROOT / "cumulog"), "--prepare", name], check=False).returncode:
        raise Failure(f"the extra {name!r} could not be installed", "The lines above say why.")


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run([*_APT, *arguments], env=environment, capture_output=True, text=True, check=False)


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian starts what it installs; we start our own, on loopback. So: no starts meanwhile."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\n# Written by Cumulog while it installs packages.\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
