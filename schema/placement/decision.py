"""A scheduler's decision, as events carry it: which hosts were turned down and why, and how the best others weigh.

Bounded whatever the cloud's size: at most `NAMED` hosts are named with their reasons, the others are counted.
"""

from __future__ import annotations

from typing import Literal, dataclass_transform

import msgspec
from msgspec import field

NAMED = 50
"""Rejected hosts that are named, at most."""
BEST = 3
"""Hosts whose weights are told, at most."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value inside events."""


class TurnedDown(_Part):
    """How many hosts a filter (or the lack of a resource class) turned down."""

    filter: str
    hosts: int


class Reason(_Part):
    """Why these hosts were turned down."""

    why: str
    hosts: tuple[str, ...]


class Weighed(_Part):
    """A host that would do. `weights`: weigher → what it added, the multiplier included; zeros are left out."""

    host: str
    weight: float
    weights: dict[str, float] = field(default_factory=dict)


class Change(_Part):
    """One thing that could be otherwise.

    enable, raise, end forced down       the host `host`
    trait, no trait                      that the host shall (not) have: `name`
    room, unit                           `value` more of the class `name`; or claims of `value` at once
    units                                `value` more of these to be free on it: a unit `name`, or (`cpu`, `pci`) which
    dedicated                            its CPUs `value` are for one guest at a time
    metadata, no metadata                the aggregates' key `name` shall be `value`; shall be on none of the host's
    ask, ask without                     the request's `name` shall be `value`; shall not say `value`, or anything
    metric                               it measures `name`
    physical network                     it is on `name`
    filter off                           the filter `name`, in the configuration
    host                                 another one, where nothing smaller helps
    """

    what: Literal[
        "enable",
        "raise",
        "end forced down",
        "trait",
        "no trait",
        "room",
        "unit",
        "units",
        "dedicated",
        "metadata",
        "no metadata",
        "ask",
        "ask without",
        "metric",
        "physical network",
        "filter off",
        "host",
    ]
    words: str
    host: str = ""
    name: str = ""
    value: str = ""


class Decision(_Part):
    """Why this host, or why none."""

    position: int = 0
    """The log's position that the scheduler knew."""
    hosts: int = 0
    """Hosts there were."""
    turned_down: tuple[TurnedDown, ...] = ()
    """In the order the filters were asked. Where a host was found, room was
    asked for best host first and no further, so that it stands here for none."""
    reasons: tuple[Reason, ...] = ()
    """`NAMED` hosts in all."""
    unnamed: int = 0
    """Hosts turned down besides."""
    best: tuple[Weighed, ...] = ()
    """The chosen one first."""
    remedy: tuple[Change, ...] = ()
    """For no host: the smallest change (all of these together) with which one would have done."""
