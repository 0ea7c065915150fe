"""The rules of flavors."""

from __future__ import annotations

from bus.cloud import Cloud
from bus.execute import Aggregate
from schema.compute.flavor import (
    FLAVOR,
    CreateFlavor,
    DeleteFlavor,
    DescribeFlavor,
    Flavor,
    FlavorAccessGranted,
    FlavorAccessRevoked,
    FlavorCreated,
    FlavorDeleted,
    FlavorDescribed,
    FlavorEvent,
    FlavorExtraSpecRemoved,
    FlavorExtraSpecsSet,
    GrantFlavorAccess,
    RemoveFlavorExtraSpec,
    RevokeFlavorAccess,
    SetFlavorExtraSpecs,
)
from schema.event import Command
from schema.refusal import Conflict, NotFound

ABSENT, OFFERED = "absent", "offered"

ALLOWED: dict[type[Command], set[str]] = {
    CreateFlavor: {ABSENT},
    DescribeFlavor: {OFFERED},
    SetFlavorExtraSpecs: {OFFERED},
    RemoveFlavorExtraSpec: {OFFERED},
    GrantFlavorAccess: {OFFERED},
    RevokeFlavorAccess: {OFFERED},
    DeleteFlavor: {OFFERED},
}

MAX_EXTRA_SPECS = 256
"""Extra specs of one flavor, at most."""


def decide(flavor: Flavor, command: Command) -> list[FlavorEvent]:
    if _already_so(flavor, command):
        return []
    if (OFFERED if flavor.living else ABSENT) not in ALLOWED[type(command)]:
        if flavor.living:
            raise Conflict(f"Flavor with ID {flavor.id} already exists.")
        raise NotFound(f"Flavor {flavor.id} could not be found.")
    match command:
        case CreateFlavor():
            return [_created(command)]
        case DescribeFlavor():
            return [FlavorDescribed(description=command.description)]
        case SetFlavorExtraSpecs():
            changed = {k: v for k, v in command.extra_specs.items() if flavor.extra_specs.get(k) != v}
            if len(flavor.extra_specs | changed) > MAX_EXTRA_SPECS:
                raise Conflict(f"Flavor {flavor.id} would have more than {MAX_EXTRA_SPECS} extra specs.")
            return [FlavorExtraSpecsSet(extra_specs=changed)]
        case RemoveFlavorExtraSpec():
            return [FlavorExtraSpecRemoved(key=command.key)]
        case GrantFlavorAccess():
            return [FlavorAccessGranted(project_id=command.project_id)]
        case RevokeFlavorAccess():
            return [FlavorAccessRevoked(project_id=command.project_id)]
        case DeleteFlavor():
            return [FlavorDeleted()]
    raise TypeError(f"flavors know no {type(command).__name__}")


def _already_so(flavor: Flavor, command: Command) -> bool:
    match command:
        case CreateFlavor():
            return flavor.living and _created(command) == _as_created(flavor)
        case DeleteFlavor():
            return flavor.deleted_at is not None
    if not flavor.living:
        return False
    match command:
        case DescribeFlavor():
            return flavor.description == command.description
        case SetFlavorExtraSpecs():
            return flavor.extra_specs == flavor.extra_specs | command.extra_specs
        case RemoveFlavorExtraSpec():
            return command.key not in flavor.extra_specs
        case GrantFlavorAccess():
            return command.project_id in flavor.access
        case RevokeFlavorAccess():
            return command.project_id not in flavor.access
    return False


def _created(command: CreateFlavor) -> FlavorCreated:
    return FlavorCreated(
        name=command.name,
        vcpus=command.vcpus,
        ram_mb=command.ram_mb,
        disk_gb=command.disk_gb,
        ephemeral_gb=command.ephemeral_gb,
        swap_mb=command.swap_mb,
        rxtx_factor=command.rxtx_factor,
        is_public=command.is_public,
        description=command.description,
    )


def _as_created(flavor: Flavor) -> FlavorCreated:
    return FlavorCreated(
        name=flavor.name,
        vcpus=flavor.vcpus,
        ram_mb=flavor.ram_mb,
        disk_gb=flavor.disk_gb,
        ephemeral_gb=flavor.ephemeral_gb,
        swap_mb=flavor.swap_mb,
        rxtx_factor=flavor.rxtx_factor,
        is_public=flavor.is_public,
        description=flavor.description,
        access=flavor.access,
    )


FLAVORS = Aggregate(FLAVOR, decide, ALLOWED)


async def flavor_seen_by(cloud: Cloud, id: str, project_id: str | None) -> Flavor:
    """A flavor on offer, if this project may see it (None: anybody's, an administrator's). Raises NotFound.

    One that another process made a moment ago and the mirror has not heard of yet is found in the log.
    """
    document = cloud.mirror(FLAVOR).get(id)
    if document is None:
        document = (await cloud.executor.load([FLAVOR.stream(id)])).get(FLAVOR.stream(id))
    flavor: Flavor | None = document.state if document else None
    if flavor is None or not flavor.living or not (project_id is None or flavor.visible_to(project_id)):
        raise NotFound(f"Flavor {id} could not be found.")
    return flavor
