"""What Cumulog remembers of a domain. It stands in the domain's own metadata, so that a host needs no database:

<cumulog:server xmlns:cumulog="…" generation="7" soft="1" hard="0" position="4711" fenced="no" boot="…"/>
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

import msgspec

from schema.compute.domain import Reboots

NAMESPACE = "https://cumulog.org/xmlns/libvirt/server/1"
PREFIX = "cumulog"


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What the metadata of a domain holds."""

    generation: int = 0
    soft: int = 0
    hard: int = 0
    position: int = 0
    fenced: bool = False
    boot: str = ""
    """The host's boot during which it was last started."""
    remade: int = 0
    rescued: bool = False
    snapshot: str = ""
    """The image it was copied into last."""
    resized: int = 0
    kept: bool = False

    @property
    def reboots(self) -> Reboots:
        return Reboots(soft=self.soft, hard=self.hard)

    def xml(self) -> str:
        """The element as libvirt takes it: it adds the namespace itself."""
        return ET.tostring(ET.Element("server", self._attributes()), encoding="unicode")

    def element(self) -> ET.Element:
        return ET.Element(f"{{{NAMESPACE}}}server", self._attributes())

    def _attributes(self) -> dict[str, str]:
        return {
            "generation": str(self.generation),
            "soft": str(self.soft),
            "hard": str(self.hard),
            "position": str(self.position),
            "fenced": "yes" if self.fenced else "no",
            "boot": self.boot,
            "remade": str(self.remade),
            "rescued": "yes" if self.rescued else "no",
            "snapshot": self.snapshot,
            "resized": str(self.resized),
            "kept": "yes" if self.kept else "no",
        }


def remembered(element: str) -> Remembered:
    """Read the element again."""
    it = ET.fromstring(element).attrib  # noqa: S314  libvirt's own words, on its own socket
    return Remembered(
        generation=int(it.get("generation", 0)),
        soft=int(it.get("soft", 0)),
        hard=int(it.get("hard", 0)),
        position=int(it.get("position", 0)),
        fenced=it.get("fenced") == "yes",
        boot=it.get("boot", ""),
        remade=int(it.get("remade", 0)),
        rescued=it.get("rescued") == "yes",
        snapshot=it.get("snapshot", ""),
        resized=int(it.get("resized", 0)),
        kept=it.get("kept") == "yes",
    )
