"""Flows as data: what should be there, what is there, and one bundle from the one to the other. Pure.

A flow's cookie is a digest of itself, so what the switch lists needs no translation back: a flow is as it should be
when its cookie is there, once, in the words in which the switch listed it before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

Listing = Mapping[str, tuple[str, ...]]
"""Cookie → the flows that bear it, as the switch words them."""

_REMEMBERED = 1 << 16
_LINE = re.compile(r"\s*(?:cookie=(0x[0-9a-f]+), )?(.*actions=.*)")


class Flow(NamedTuple):
    table: int
    priority: int
    match: str
    """As ovs-ofctl writes it; empty: everything."""
    actions: str
    note: str = ""
    """Why it drops, for who counts."""

    @property
    def cookie(self) -> str:
        return _digest(f"{self.table} {self.priority} {self.match} {self.actions} {self.note}")

    @property
    def line(self) -> str:
        match = f",{self.match}" if self.match else ""
        return f"add cookie={self.cookie},table={self.table},priority={self.priority}{match},actions={self.actions}"


def key(*words: str) -> str:
    """64 bits that stand for a thing in a register: what it is called is longer, and comes from elsewhere."""
    return _digest(" ".join(words))


def by_cookie(flows: Iterable[Flow]) -> dict[str, Flow]:
    return {flow.cookie: flow for flow in flows}


def plan(wanted: Mapping[str, Flow], seen: Listing, known: Listing) -> list[str]:
    """The lines of a bundle; empty: nothing to do. `known`: how the switch has worded flows before."""
    odd = {
        cookie
        for cookie, lines in seen.items()
        if cookie in wanted and (len(lines) != 1 or lines != known.get(cookie, lines))
    }
    gone = [cookie for cookie in seen if cookie not in wanted]
    new = [flow for cookie, flow in wanted.items() if cookie not in seen or cookie in odd]
    # What takes another's place (same table, priority and match) does so by being added, without a gap.
    return [
        *(f"delete cookie={cookie}/-1" for cookie in sorted(odd)),
        *(flow.line for flow in new),
        *(f"delete cookie={cookie}/-1" for cookie in gone),
    ]


def read(listing: str) -> Listing:
    """What `ovs-ofctl dump-flows --no-stats` said."""
    found: dict[str, list[str]] = {}
    for line in listing.splitlines():
        if match := _LINE.fullmatch(line):
            found.setdefault(match[1] or "0x0", []).append(match[2])
    return {cookie: tuple(sorted(lines)) for cookie, lines in found.items()}


@lru_cache(_REMEMBERED)
def _digest(text: str) -> str:
    return f"0x{int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big'):x}"
