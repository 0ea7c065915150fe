"""What a flavor and an image say, side by side, to be asked by name; and the refusals where both speak."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from msgspec import Struct

from schema.compute.topology import cpu_set
from schema.refusal import Invalid


class Said(Struct, frozen=True):
    """A flavor's size and what it and the image say."""

    vcpus: int
    memory_mb: int
    extra_specs: Mapping[str, str]
    properties: Mapping[str, str]

    def both(self, name: str) -> tuple[str, str]:
        return self.extra_specs.get(f"hw:{name}", ""), self.properties.get(f"hw_{name}", "")

    def counted(self, name: str) -> int:
        """`resources:NAME`, numbered groups included."""
        pattern = re.compile(rf"resources[0-9]*:{name}")
        return sum(int(n) for key, n in self.extra_specs.items() if pattern.fullmatch(key) and n.isdigit())

    def cpus(self, text: str) -> frozenset[int]:
        """A mask of vCPUs; one that begins by leaving some out begins with all."""
        words = f"0-{self.vcpus - 1},{text}" if text.strip().startswith("^") else text
        try:
            return cpu_set(words)
        except ValueError:
            raise Invalid(f"Invalid range expression {text!r}") from None


def one_of(known: tuple[str, ...], what: str, flavor: str, image: str) -> None:
    """Refuse another word than these."""
    for source, word in (("flavor extra specs", flavor), ("image properties", image)):
        if word and word not in known:
            raise Invalid(
                f"{what} requested from '{source}' is invalid, given: '{word}', available: '{', '.join(known)}'."
            )


def overriding(name: str) -> NoReturn:
    """Refuse an image that says what the flavor has said."""
    raise Invalid(f"Image property '{name}' is not permitted to override NUMA configuration set against the flavor")
