"""What one server demands of a host: the request the scheduler answers, and how flavor and image write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from handlers.placement.hardware import Hardware
from schema.placement.provider import Resources

REQUIRED, FORBIDDEN = "required", "forbidden"


class Group(Struct, frozen=True, kw_only=True):
    """A server group's wish. `members`: consumers already in it, wherever they are."""

    id: str
    policy: str
    """`affinity`, `anti-affinity`, `soft-affinity`, `soft-anti-affinity`."""
    members: tuple[str, ...] = ()
    max_per_host: int = 1
    """Anti-affinity: how many members one host may have."""


class Request(Struct, frozen=True, kw_only=True):
    """One server looking for a host."""

    consumer_id: str
    resources: Resources
    project_id: str = ""
    zone: str = ""
    """Availability zone; empty: any."""
    host: str = ""
    """This host and no other."""
    forced: bool = False
    """An operator named the host: it need only be alive and have room."""
    tried: frozenset[str] = frozenset()
    """Hosts that are not to be tried again."""
    cut_off: frozenset[str] = frozenset()
    """Hosts that could not wire its ports now."""
    vnic_types: frozenset[str] = frozenset()
    """Types of its ports, besides `normal`."""
    reach: tuple[frozenset[str], ...] = ()
    """Physical networks that its ports are in: of each set, the host must be on one."""
    flavor: str = ""
    """Its name."""
    extra_specs: Mapping[str, str] = field(default_factory=dict)
    hardware: Hardware | None = None
    """What it wants of its host for itself."""
    image_id: str = ""
    image_format: str = ""
    """`qcow2`, `raw` …"""
    image_properties: Mapping[str, str] = field(default_factory=dict)
    same_host: tuple[str, ...] = ()
    """Be where one of these servers is."""
    different_host: tuple[str, ...] = ()
    """Be where none of these servers is."""
    group: Group | None = None
    near_ip: str = ""
    """Be where hosts have addresses like this one, up to the mask `near_cidr`."""
    near_cidr: str = ""
    query: str = ""
    """A question about hosts, in JSON (handlers/placement/filters/capability.py)."""
    hints: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Hints that nobody here knows, for filters and weighers of third parties."""
    near: frozenset[str] = frozenset()
    """Hosts of `same_host`, and of `different_host`: the scheduler knows them, nobody else need say so."""
    far: frozenset[str] = frozenset()
    neighbours: dict[str, int] = field(default_factory=dict)
    """Host → how many of the group are there or about to be; again what the scheduler knows."""


def demanded(vcpus: int, memory_mb: int, disk_gb: int, extra_specs: Mapping[str, str] | None = None) -> Resources:
    """A flavor's resources, zeros left out. `resources:CLASS=n` of its extra specs adds to them or overrides them."""
    resources = {"VCPU": vcpus, "MEMORY_MB": memory_mb, "DISK_GB": disk_gb}
    for key, value in (extra_specs or {}).items():
        scope, _, name = key.partition(":")
        if scope == "resources" and value.strip().isdigit():
            resources[name] = int(value)
    return {name: amount for name, amount in resources.items() if amount}


def traits(*specs: Mapping[str, str]) -> tuple[frozenset[str], frozenset[str]]:
    """(required, forbidden) as `trait:NAME=required` in a flavor's extra specs or an image's properties says."""
    said = [
        (key.removeprefix("trait:"), value) for spec in specs for key, value in spec.items() if key.startswith("trait:")
    ]
    return (
        frozenset(name for name, value in said if value == REQUIRED),
        frozenset(name for name, value in said if value == FORBIDDEN),
    )


def matches(have: str, wanted: str) -> bool:
    """Whether a host's word fits what an extra spec says, in Nova's small language.

    `=` (at least, for numbers), `==`, `!=`, `>=`, `<=`; `s==`, `s!=`, `s<`, `s<=`, `s>`, `s>=` for text; `<in> part`,
    `<all-in> part part`, `<or> this <or> that`; anything else is compared as it stands.
    """
    operator, _, operand = wanted.strip().partition(" ")
    operand = operand.strip()
    if operator in _NUMBERS:
        try:
            return _NUMBERS[operator](float(have), float(operand))
        except ValueError:
            return False
    if operator in _TEXTS:
        return _TEXTS[operator](have, operand)
    if operator == "<in>":
        return operand in have
    if operator == "<all-in>":
        return all(part in have for part in operand.split())
    if operator == "<or>":
        return have in [part.strip() for part in wanted.split("<or>")[1:]]
    return have == wanted


_NUMBERS = {
    "=": float.__ge__,
    "==": float.__eq__,
    "!=": float.__ne__,
    ">=": float.__ge__,
    "<=": float.__le__,
}
_TEXTS = {
    "s==": str.__eq__,
    "s!=": str.__ne__,
    "s<": str.__lt__,
    "s<=": str.__le__,
    "s>": str.__gt__,
    "s>=": str.__ge__,
}
