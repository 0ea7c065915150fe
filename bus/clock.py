"""Time, ids and randomness. Nothing else in Cumulog touches them, so a whole cloud can be run again from a seed."""

from __future__ import annotations

import random
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The real one: the machine's time, the kernel's randomness."""

    def now(self) -> datetime:
        """The time, UTC, microseconds."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that only go forward, for measuring durations."""
        return time.monotonic()

    def boot_seconds(self) -> float:
        """Seconds since the machine was started, those it slept included."""
        return time.clock_gettime(_BOOT_CLOCK)

    def random_bytes(self, length: int) -> bytes:
        return secrets.token_bytes(length)

    def fraction(self) -> float:
        """A number in [0, 1), for jitter and tie-breaking."""
        return random.random()


class SeededClock(Clock):
    """A clock whose time is somebody else's (a virtual-time loop) and whose randomness comes from a seed."""

    EPOCH = datetime(2030, 1, 1, tzinfo=UTC)

    def __init__(self, seed: int, seconds: Callable[[], float]) -> None:
        self._random = random.Random(seed)
        self._seconds = seconds

    def now(self) -> datetime:
        return self.EPOCH + timedelta(seconds=self._seconds())

    def monotonic(self) -> float:
        return self._seconds()

    def boot_seconds(self) -> float:
        return self._seconds()

    def random_bytes(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def fraction(self) -> float:
        return self._random.random()


_clock: Clock = Clock()


def use(clock: Clock) -> Clock:
    """Put another clock in place (simulation, tests); returns the one it replaces."""
    global _clock
    before, _clock = _clock, clock
    return before


def now() -> datetime:
    return _clock.now()


def monotonic() -> float:
    return _clock.monotonic()


def boot_seconds() -> float:
    return _clock.boot_seconds()


def fraction() -> float:
    return _clock.fraction()


def random_bytes(length: int) -> bytes:
    return _clock.random_bytes(length)


def uuid4() -> str:
    """A random UUID with dashes, as Nova, Neutron and Glance write ids."""
    return str(uuid.UUID(bytes=_clock.random_bytes(16), version=4))


def hex_id() -> str:
    """32 hex digits, as Keystone writes ids."""
    return uuid.UUID(bytes=_clock.random_bytes(16), version=4).hex


def request_id() -> str:
    """`req-<uuid>`: an X-Openstack-Request-Id, our correlation id."""
    return "req-" + uuid4()


_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def password(length: int = 12) -> str:
    """A password a person can type: no look-alike characters."""
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in _clock.random_bytes(length))
