"""What a server wants of a host for itself: CPUs, NUMA nodes, pages of memory, devices.

flavor and image ──handlers/placement/wishes.py──▶ Hardware ──fitting.py, on one host──▶ Topology
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from schema.compute.topology import device_class
from schema.placement.provider import Resources
from schema.refusal import Invalid

DEDICATED, MIXED, SHARED = "dedicated", "mixed", "shared"
PREFER, ISOLATE, REQUIRE = "prefer", "isolate", "require"
SHARE = "share"
SMALL, LARGE, ANY = "small", "large", "any"
REQUIRED, PREFERRED, LEGACY, SOCKET = "required", "preferred", "legacy", "socket"

DEVICE_POLICIES = (LEGACY, PREFERRED, REQUIRED, SOCKET)


class WantedCell(Struct, frozen=True, kw_only=True):
    """A NUMA node of a guest. `dedicated`: those of its vCPUs that want a CPU of their own."""

    cpus: tuple[int, ...]
    dedicated: tuple[int, ...] = ()
    memory_mb: int


class WantedDevices(Struct, frozen=True, kw_only=True):
    """So many PCI devices of one alias; what the alias means is the scheduler's to fill in."""

    alias: str
    count: int
    vendor_id: str = ""
    product_id: str = ""
    kind: str = ""
    policy: str = ""
    """How near to the guest's NUMA nodes; empty: as the alias says."""


class Hardware(Struct, frozen=True, kw_only=True):
    """What a server wants for itself; what is empty is not asked for."""

    cells: tuple[WantedCell, ...] = ()
    cpu_policy: str = ""
    thread_policy: str = ""
    emulator_policy: str = ""
    pages: str = ""
    """`small`, `large`, `any`, or a number of KiB."""
    devices: tuple[WantedDevices, ...] = ()

    @property
    def pinned(self) -> int:
        """CPUs it wants for itself, its emulator's included."""
        own = sum(len(cell.dedicated) for cell in self.cells)
        return own + (bool(own) and self.emulator_policy == ISOLATE)

    def demand(self, resources: Resources) -> Resources:
        """The same in resource classes, instead of what the flavor's size alone comes to."""
        demanded = dict(resources)
        if self.pinned:
            demanded.pop("VCPU", None)
            demanded["PCPU"] = self.pinned
            shared = sum(len(cell.cpus) - len(cell.dedicated) for cell in self.cells)
            if shared:
                demanded["VCPU"] = shared
        for it in self.devices:
            if it.vendor_id:
                name = device_class(it.vendor_id, it.product_id)
                demanded[name] = demanded.get(name, 0) + it.count
        return demanded

    def without(self, part: str) -> Hardware | None:
        """The same without one of its wishes; empty: without any."""
        match part:
            case "threads":
                return replace(self, thread_policy="")
            case "pages":
                return replace(self, pages="")
            case "devices":
                return replace(self, devices=()) if self.cells else None
            case "nearness":
                return replace(self, devices=tuple(replace(it, policy=PREFERRED) for it in self.devices))
        return None


class Alias(Struct, frozen=True):
    """What an operator calls by that name. `kind`: empty for any."""

    vendor_id: str
    product_id: str
    kind: str = ""
    policy: str = LEGACY


def aliases(said: Mapping[str, str]) -> dict[str, Alias]:
    """`{"gpu": "10de:1eb8 type-PCI required"}`: the kind of device and how near may be left out. Raises ValueError."""
    found = {}
    for name, words in said.items():
        ids, *more = words.split()
        vendor_id, colon, product_id = ids.lower().partition(":")
        kinds = [it for it in more if it.startswith("type-")]
        policies = [it for it in more if it in DEVICE_POLICIES]
        if not (colon and vendor_id and product_id) or len(kinds) + len(policies) < len(more):
            raise ValueError(
                f"{name} = {words!r}: it must be like '8086:154d', 'type-VF' and 'required' after it or not"
            )
        found[name] = Alias(vendor_id, product_id, "".join(kinds[:1]), next(iter(policies), LEGACY))
    return found


def resolved(hardware: Hardware, known: Mapping[str, Alias]) -> Hardware:
    """With what its aliases mean; those that nobody defined stay names."""
    if not hardware.devices:
        return hardware
    return replace(
        hardware,
        devices=tuple(
            replace(
                it,
                vendor_id=alias.vendor_id,
                product_id=alias.product_id,
                kind=alias.kind,
                policy=it.policy or alias.policy,
            )
            if (alias := known.get(it.alias))
            else it
            for it in hardware.devices
        ),
    )


def check_aliases(hardware: Hardware | None, known: Mapping[str, object]) -> None:
    """Raises Invalid for a name that nobody defined."""
    for it in hardware.devices if hardware else ():
        if it.alias not in known:
            raise Invalid(f"PCI alias {it.alias} is not defined")


def check_rebuild(before: Hardware | None, after: Hardware | None) -> None:
    """A rebuild leaves a server where it is, on the very CPUs and pages it has. Raises Invalid."""
    if (replace(before, devices=()) if before else None) != (replace(after, devices=()) if after else None):
        raise Invalid(
            "An instance's NUMA topology cannot be changed as part of a rebuild. "
            "The image provided is invalid for this instance."
        )
