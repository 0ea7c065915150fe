"""Times as compute writes them: most without a zone and with microseconds, a few with a Z."""

from __future__ import annotations

from datetime import datetime


def written(at: datetime | None) -> str | None:
    """`2030-01-31T12:00:00.000000`, UTC."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%f")


def zulu(at: datetime | None) -> str | None:
    """`2030-01-31T12:00:00Z`."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")
