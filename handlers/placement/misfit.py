"""Why something does not fit."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

Free = Mapping[str, int]
"""Unit → how much of it nobody has."""


class Misfit(Struct, frozen=True):
    """Why it does not fit, as the end of a sentence about the host."""

    why: str
    near: bool = False
    """All of it would be there, but not near enough to each other."""
