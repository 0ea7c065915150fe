"""A flavor: a shape of server on offer, public or for some projects.

    (absent) ──FlavorCreated──▶ on offer ──FlavorDeleted──▶ (absent; its id may be used again)

The stream's id is the flavor id people use (`m1.small`, `42`, a uuid). Servers keep a copy of the flavor they were made
from, so nothing that happens here touches a server that is there already.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from schema.event import Command, Event, Key, Kind, State


class Flavor(State):
    name: str = ""
    vcpus: int = 0
    ram_mb: int = 0
    disk_gb: int = 0
    ephemeral_gb: int = 0
    swap_mb: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    description: str | None = None
    extra_specs: dict[str, str] = field(default_factory=dict)
    access: tuple[str, ...] = ()
    """Projects that may use a flavor which is not public."""

    def visible_to(self, project_id: str) -> bool:
        """Whether members of a project may see and use it."""
        return self.is_public or project_id in self.access


class FlavorCreated(Event):
    name: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    description: str | None = None
    access: tuple[str, ...] = ()


class FlavorDescribed(Event):
    description: str | None


class FlavorExtraSpecsSet(Event):
    extra_specs: dict[str, str]
    """The keys that were set; the others stay."""


class FlavorExtraSpecRemoved(Event):
    key: str


class FlavorAccessGranted(Event):
    project_id: str


class FlavorAccessRevoked(Event):
    project_id: str


class FlavorDeleted(Event):
    pass


FlavorEvent = (
    FlavorCreated
    | FlavorDescribed
    | FlavorExtraSpecsSet
    | FlavorExtraSpecRemoved
    | FlavorAccessGranted
    | FlavorAccessRevoked
    | FlavorDeleted
)


class CreateFlavor(Command):
    name: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    description: str | None = None


class DescribeFlavor(Command):
    description: str | None


class SetFlavorExtraSpecs(Command):
    extra_specs: dict[str, str]


class RemoveFlavorExtraSpec(Command):
    key: str


class GrantFlavorAccess(Command):
    project_id: str


class RevokeFlavorAccess(Command):
    project_id: str


class DeleteFlavor(Command):
    pass


def evolve(flavor: Flavor, event: FlavorEvent, at: datetime) -> Flavor:
    match event:
        case FlavorCreated():
            return Flavor(
                id=flavor.id,
                name=event.name,
                vcpus=event.vcpus,
                ram_mb=event.ram_mb,
                disk_gb=event.disk_gb,
                ephemeral_gb=event.ephemeral_gb,
                swap_mb=event.swap_mb,
                rxtx_factor=event.rxtx_factor,
                is_public=event.is_public,
                description=event.description,
                access=event.access,
            )
        case FlavorDescribed():
            return replace(flavor, description=event.description)
        case FlavorExtraSpecsSet():
            return replace(flavor, extra_specs=flavor.extra_specs | event.extra_specs)
        case FlavorExtraSpecRemoved():
            return replace(flavor, extra_specs={k: v for k, v in flavor.extra_specs.items() if k != event.key})
        case FlavorAccessGranted():
            return replace(flavor, access=(*flavor.access, event.project_id))
        case FlavorAccessRevoked():
            return replace(flavor, access=tuple(p for p in flavor.access if p != event.project_id))
        case FlavorDeleted():
            return replace(flavor, deleted_at=at)


def _unique(flavor: Flavor) -> tuple[Key, ...]:
    return (("flavor name", flavor.name),)


FLAVOR = Kind("flavor", Flavor, FlavorEvent, evolve, unique=_unique, reborn=FlavorCreated)
