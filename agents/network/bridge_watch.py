"""Notices what somebody else does to a host's links, forwarding entries and neighbours, and overlooks our own doings.

The kernel tells of every change, ours too, and says not whose it is. So of each thing only the last word is kept, and
compared, once nothing of ours is under way, with what we left there.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import sys
from collections.abc import Callable, Container

import msgspec

from agents.network import forwarding, links, netlink
from agents.network.bridge_plan import Seen, as_wanted
from agents.network.bridge_wanted import is_ours
from agents.network.forwarding import DELETE_NEIGHBOUR, NEW_NEIGHBOUR
from agents.network.links import BRIDGE_FAMILY, DELETE_LINK, NEW_LINK

_LINK_WORDS, _NEIGHBOUR_WORDS = {NEW_LINK, DELETE_LINK}, {NEW_NEIGHBOUR, DELETE_NEIGHBOUR}

_AT_ONCE = 2000
"""Words read before others have their turn in the event loop."""
_BIG = sys.byteorder == "big"
_NEW, _DELETED = (it if _BIG else it << 8 for it in (NEW_NEIGHBOUR, DELETE_NEIGHBOUR))
_MADE = (
    (0x28, 0, 0, 4),  # the kind of word
    (0x15, 1, 0, _NEW),
    (0x15, 0, 4, _DELETED),
    (0x30, 0, 0, 16),  # the family: a bridge's or a tunnel's entry
    (0x15, 0, 2, BRIDGE_FAMILY),
    (0x30, 0, 0, 25 if _BIG else 24),  # the state: static or permanent
    (0x45, 0, 1, 0xC0),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)
"""Not what bridges learn: a guest that makes up MACs would have the agent do nothing else but hear of them."""


def ears() -> netlink.Socket:
    """Hears of links and neighbours, in the namespace of this thread."""
    kernel = netlink.Socket(netlink.LINKS | netlink.NEIGHBOURS)
    kernel.hear(_MADE)
    return kernel


class Watch:
    """`kernel`: `ears`. `on_word` is called in the event loop's thread."""

    def __init__(self, kernel: netlink.Socket, on_word: Callable[[], None]) -> None:
        self._kernel = kernel
        self._words: dict[tuple[object, ...], tuple[int, bytes]] = {}
        self._lost = False
        self._on_word = on_word
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(kernel.fileno(), self._hear)

    def close(self) -> None:
        self._loop.remove_reader(self._kernel.fileno())
        self._kernel.close()

    def judge(self, seen: Seen, ours: Container[str]) -> str:
        """What somebody else did since the last time, for the log; empty: nothing. `ours`: names of links."""
        self._read()
        words, self._words = self._words, {}
        if self._lost:
            self._lost = False
            return "more changed than could be heard"
        names = {link.index: name for name, link in seen.links.items()}
        for kind, body in words.values():
            said = _on_link if kind in _LINK_WORDS else _on_neighbour
            if what := said(kind, body, seen, names, ours):
                return what
        return ""

    def _hear(self) -> None:
        self._read()
        self._on_word()

    def _read(self) -> None:
        try:
            for kind, body in itertools.islice(self._kernel.changes(), _AT_ONCE):
                if kind in _LINK_WORDS:
                    # A bridge takes leave of a port by a word of its own, which is not the port's end.
                    if kind == NEW_LINK or links.family_of(body) != BRIDGE_FAMILY:
                        self._words[links.family_of(body), links.index_of(body)] = kind, body
                elif kind in _NEIGHBOUR_WORDS:
                    entry, neighbour = forwarding.parse_entry(body), forwarding.parse_neighbour(body)
                    what = neighbour.ip if neighbour else entry
                    if what:
                        self._words[forwarding.device_of(body), what] = kind, body
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._lost = True


def _on_link(kind: int, body: bytes, seen: Seen, names: dict[int, str], ours: Container[str]) -> str:
    index = links.index_of(body)
    known = names.get(index, "")
    if kind == DELETE_LINK:
        return f"{known} was deleted" if known in ours else ""
    if links.family_of(body) == BRIDGE_FAMILY:
        flags = links.parse_flags(body)
        differs = known in ours and flags is not None and flags != seen.links[known].flags
        return f"{known} was given other flags" if differs else ""
    link = links.parse(body, names)
    if known not in ours:
        return f"{link.name} appeared" if not known and (link.name in ours or is_ours(link)) else ""
    # Of its flags a bridge tells by the words above alone.
    link = msgspec.structs.replace(link, flags=seen.links[known].flags)
    return "" if link.name == known and as_wanted(link, seen.links[known]) else f"{known} was changed"


def _on_neighbour(kind: int, body: bytes, seen: Seen, names: dict[int, str], ours: Container[str]) -> str:
    device = names.get(forwarding.device_of(body), "")
    if device not in ours:
        return ""
    there = kind == NEW_NEIGHBOUR
    neighbour, entry = forwarding.parse_neighbour(body), forwarding.parse_entry(body)
    if neighbour:
        known = seen.neighbours.get(device, {}).get(neighbour.ip, "")
        return f"a neighbour of {device} was changed" if known != (neighbour.mac_address if there else "") else ""
    if entry and not entry.sticks and any(entry in entries for entries in seen.entries.values()):
        return ""  # it follows its guest
    differs = entry is not None and there != (entry in seen.entries.get(device, set()))
    return f"an entry of {device} was changed" if differs else ""
