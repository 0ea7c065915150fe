"""What flavor and image say of a guest's hardware, read with Nova's precedence.

The flavor speaks in `hw:x`, `os:x`, `quota:x`; the image in `hw_x`, `os_x`. Whether the two contradict each other has
been asked where the server was ordered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from agents.hypervisor.driver import Unsupported

_YES = frozenset({"yes", "true", "1", "on", "t", "y"})
_NO = frozenset({"", "no", "false", "0", "off", "f", "n"})


class Wishes:
    def __init__(self, properties: Mapping[str, str]) -> None:
        self._properties = properties

    def said(self, name: str) -> str:
        """Exactly that one; empty: nothing."""
        return self._properties.get(name, "").strip()

    def flavor_first(self, name: str, scope: str = "hw") -> str:
        """`hw:name`, else `hw_name`."""
        return self.said(f"{scope}:{name}") or self.said(f"{scope}_{name}")

    def image_first(self, name: str, scope: str = "hw") -> str:
        """`hw_name`, else `hw:name`: where the flavor only gives a default."""
        return self.said(f"{scope}_{name}") or self.said(f"{scope}:{name}")

    def on(self, name: str, *, image_first: bool = False) -> bool:
        """Whether `hw:name` or `hw_name` is switched on. Raises Unsupported for what is neither yes nor no."""
        said = self.image_first(name) if image_first else self.flavor_first(name)
        if said.lower() not in _YES | _NO:
            raise Unsupported(f"hw_{name}={said}: it must be yes or no")
        return is_on(said)

    def number(self, *names: str) -> int:
        """The first of these that is above 0; 0: none is. Raises Unsupported for what is no number."""
        for name in names:
            said = self.said(name) or "0"
            if not (said.isascii() and said.isdigit()):
                raise Unsupported(f"{name}={said}: it must be a whole number")
            if int(said):
                return int(said)
        return 0

    def one_of(self, name: str, words: Iterable[str], default: str) -> str:
        """What the image says, which must be one of these. Raises Unsupported."""
        said = self.said(name)
        if said and said not in words:
            raise Unsupported(f"{name}={said}: hosts with libvirt have only {', '.join(sorted(words))}")
        return said or default

    def refuse(self, name: str, why: str) -> None:
        """Raise Unsupported if something begins so."""
        if found := next((key for key in self._properties if key.startswith(name)), None):
            raise Unsupported(f"{found}={self._properties[found]}: {why}")


def is_on(word: str) -> bool:
    return word.strip().lower() in _YES


def has_agent(properties: Mapping[str, str]) -> bool:
    """Whether the image says that its guest runs QEMU's agent."""
    return is_on(properties.get("hw_qemu_guest_agent", ""))


Quiesce = Literal["no", "try", "must"]
"""Whether a guest's agent is to make its file systems quiet for the moment that a copy is of."""


def quiesce(properties: Mapping[str, str]) -> Quiesce:
    """Whether a copy of its disk wants its agent to make the file systems quiet first, by what the image says."""
    if is_on(properties.get("os_require_quiesce", "")):
        return "must"
    return "try" if has_agent(properties) else "no"
