"""The page in which a guest's screen is shown: Debian's noVNC, unpacked into the home for the API to serve.

Only its files are wanted. Installing the package would bring Node.js and another WebSocket proxy with it, a hundred
megabytes and more; so it is fetched, checked by apt as always, and unpacked, for which nobody needs to be root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from api.cli.screen import Failure, note, step
from api.compute.console_proxy import novnc
from bus.config import Settings

PACKAGE = "novnc"
SECONDS = 120
_APT = ("apt-get", "-q", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=15")


def prepare(settings: Settings) -> None:
    """Have noVNC there. A cloud without it works: a console's page then says what to do."""
    if novnc(settings) is not None:
        return
    todo = "Consoles in a browser take it: `apt-get install novnc`, or CUMULOG_NOVNC=<its folder>."
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        note(f"noVNC is not here, and only on Debian or Ubuntu can it be fetched. {todo}")
        return
    try:
        with step("Fetching noVNC, for consoles in a browser"):
            _fetch(settings.home / "novnc")
    except Failure as failure:
        note(f"noVNC could not be fetched: {failure}. {todo}")


def _fetch(folder: Path) -> None:
    """Unpack the package there. Raises Failure."""
    with tempfile.TemporaryDirectory(prefix=".novnc-", dir=folder.parent) as name:
        work = Path(name)
        work.chmod(0o755)
        done = _run(work, *_APT, "download", PACKAGE)
        if done.returncode and os.geteuid() == 0:
            _run(work, *_APT, "update")
            done = _run(work, *_APT, "download", PACKAGE)
        packages = sorted(work.glob(f"{PACKAGE}_*.deb"))
        if done.returncode or not packages:
            raise Failure((done.stderr.strip().splitlines() or ["apt-get said nothing"])[-1])
        done = _run(work, "dpkg-deb", "--extract", str(packages[-1]), "unpacked")
        if done.returncode:
            raise Failure(done.stderr.strip())
        shutil.rmtree(folder, ignore_errors=True)
        (work / "unpacked").rename(folder)


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} took longer than {SECONDS} seconds")
