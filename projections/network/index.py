"""The ways from one thing to many that the model of hosts' networks keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Index:
    """One thing → the ids of many."""

    def __init__(self) -> None:
        self._ids: dict[str, dict[str, None]] = {}

    def __getitem__(self, key: str) -> Sequence[str]:
        """A copy: what is done for each may change it."""
        return tuple(self._ids.get(key, ()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def add(self, key: str, id: str) -> None:
        self._ids.setdefault(key, {})[id] = None

    def discard(self, key: str, id: str) -> None:
        ids = self._ids.get(key)
        if ids is not None:
            ids.pop(id, None)
            if not ids:
                del self._ids[key]

    def follow(self, id: str, before: T | None, after: T | None, key: Callable[[T], str | None]) -> None:
        """From what it was under to what it is under now; none or an empty key is nothing."""
        self.follow_all(id, before, after, lambda it: (key(it),))

    def follow_all(self, id: str, before: T | None, after: T | None, keys: Callable[[T], Iterable[str | None]]) -> None:
        """The same, for what is under several keys."""
        was, now = ({key for key in keys(it) if key} if it is not None else set() for it in (before, after))
        for key in was - now:
            self.discard(key, id)
        for key in now - was:
            self.add(key, id)


class Tally:
    """One thing → host → how many reasons it has to be there."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}

    def __getitem__(self, key: str) -> dict[str, int]:
        return self._counts.get(key, {})

    def add(self, key: str, host: str) -> bool:
        """Whether this is the first reason."""
        counts = self._counts.setdefault(key, {})
        counts[host] = counts.get(host, 0) + 1
        return counts[host] == 1

    def remove(self, key: str, host: str) -> bool:
        """Whether this was the last reason."""
        counts = self._counts[key]
        counts[host] -= 1
        if counts[host]:
            return False
        del counts[host]
        if not counts:
            del self._counts[key]
        return True
