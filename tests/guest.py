"""The built-in image, for tests that start guests."""

import os
from pathlib import Path

from agents.image import builtin


def guest_image() -> Path:
    """Built once for this user and kept, since it takes a download."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return builtin.build(cache / "cumulog" / "guest" / "cumulog-guest.qcow2")
