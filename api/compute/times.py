"""Times as compute writes them: most without a zone and with microseconds, a few with a Z."""

from __future__ import annotations

from datetime import datetime, timedelta


def written(at: datetime | None) -> str | None:
    """`2030-01-31T12:00:00.000000`, UTC."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%f")


def zulu(at: datetime | None) -> str | None:
    """`2030-01-31T12:00:00Z`."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


def second_after(at: datetime) -> datetime:
    """The end of the second a time lies in: times are shown to the second, so that up to `at` means to its end."""
    try:
        return at.replace(microsecond=0) + timedelta(seconds=1)
    except OverflowError:
        return at
