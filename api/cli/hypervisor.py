"""Which hypervisor `up` uses, and why: said plainly, installed where it may be."""

from __future__ import annotations

import msgspec

from bus.config import Settings


def choose(settings: Settings) -> Settings:
    """The settings with `auto` made up. Raises Failure when libvirt was asked for and does not work here."""
    if settings.hypervisor == "auto":
        return msgspec.structs.replace(settings, hypervisor="simulated")
    return settings
