"""The rules of resource providers; first of all, that no claim exceeds what there is."""

from __future__ import annotations

from collections.abc import Mapping

from bus.execute import Aggregate, Wish
from schema.compute.topology import Units
from schema.event import Command
from schema.placement.provider import (
    PROVIDER,
    AddChildProvider,
    CheckProvider,
    ChildProviderAdded,
    ChildProviderRemoved,
    Claim,
    CreateProvider,
    DeleteProvider,
    InventoriesSet,
    Inventory,
    MoveProvider,
    Provider,
    ProviderAggregatesSet,
    ProviderCreated,
    ProviderDeleted,
    ProviderEvent,
    ProviderMoved,
    ProviderRenamed,
    ProviderTraitsSet,
    Release,
    RemoveChildProvider,
    RemoveInventory,
    RenameProvider,
    ReportTraits,
    ResourcesClaimed,
    ResourcesReleased,
    SetInventories,
    SetInventory,
    SetProviderAggregates,
    SetProviderTraits,
    SetUnits,
    TakeOver,
    UnitsSet,
)
from schema.placement.resource_class import in_order
from schema.refusal import Conflict, Invalid, NotFound

ABSENT, THERE = "absent", "there"

ALLOWED: dict[type[Command], set[str]] = {
    CreateProvider: {ABSENT},
    RenameProvider: {THERE},
    MoveProvider: {THERE},
    AddChildProvider: {THERE},
    RemoveChildProvider: {THERE},
    CheckProvider: {THERE},
    SetInventories: {THERE},
    SetInventory: {THERE},
    RemoveInventory: {THERE},
    SetUnits: {THERE},
    SetProviderTraits: {THERE},
    ReportTraits: {THERE},
    SetProviderAggregates: {THERE},
    Claim: {THERE},
    TakeOver: {THERE},
    Release: {THERE},
    DeleteProvider: {THERE},
}


class NoRoom(Conflict):
    """The provider cannot give what is claimed, not now or not in this size. Another one may."""

    def __init__(self, provider_id: str, reason: str) -> None:
        super().__init__(f"Unable to allocate inventory: resource provider {provider_id}: {reason}")
        self.provider_id = provider_id


class ConcurrentUpdate(Conflict):
    """Somebody else changed it first; read it again and decide anew."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="placement.concurrent_update")


class InUse(Conflict):
    """What is to go is claimed."""

    def __init__(self, message: str, code: str = "placement.inventory.inuse") -> None:
        super().__init__(message, code=code)


def decide(provider: Provider, command: Command) -> list[ProviderEvent]:
    if _already_so(provider, command):
        return []
    status = THERE if provider.living else ABSENT
    if status not in ALLOWED[type(command)]:
        if isinstance(command, Claim):
            raise NoRoom(provider.id, "it does not exist (any more).")
        if status == ABSENT:
            raise NotFound(f"No resource provider with uuid {provider.id} found")
        raise Conflict(f"Resource provider {provider.id} already exists.", code="placement.duplicate_name")
    match command:
        case CreateProvider():
            root_id = command.root_id or provider.id
            return [ProviderCreated(name=command.name, parent_id=command.parent_id, root_id=root_id)]
        case RenameProvider():
            return [ProviderRenamed(name=command.name)]
        case MoveProvider():
            return [ProviderMoved(parent_id=command.parent_id, root_id=command.root_id)]
        case AddChildProvider():
            if command.root_id != provider.root_id:
                raise ConcurrentUpdate(f"Resource provider {provider.id} moved to another tree meanwhile; try again.")
            return [ChildProviderAdded(child_id=command.child_id)]
        case RemoveChildProvider():
            return [ChildProviderRemoved(child_id=command.child_id)]
        case CheckProvider():
            must_be_at(provider, command.generation)
            return []
        case SetInventories():
            must_be_at(provider, command.generation)
            _not_in_use(provider, provider.inventories.keys() - command.inventories.keys())
            return [InventoriesSet(inventories=command.inventories)]
        case SetInventory():
            must_be_at(provider, command.generation)
            return [InventoriesSet(inventories=_with(provider, command))]
        case RemoveInventory():
            if command.resource_class not in provider.inventories:
                raise NotFound(f"No inventory of class {command.resource_class} found for delete on {provider.id}")
            _not_in_use(provider, {command.resource_class})
            rest = {name: it for name, it in provider.inventories.items() if name != command.resource_class}
            return [InventoriesSet(inventories=rest)]
        case SetUnits():
            return [UnitsSet(units=command.units)]
        case SetProviderTraits():
            must_be_at(provider, command.generation)
            return [ProviderTraitsSet(traits=command.traits)]
        case ReportTraits():
            return [ProviderTraitsSet(traits=_with_custom(provider, command))]
        case SetProviderAggregates():
            must_be_at(provider, command.generation)
            return [ProviderAggregatesSet(aggregates=command.aggregates, counted=command.counted)]
        case Claim():
            _room(provider, command)
            _units_free(provider, command)
            return [
                ResourcesClaimed(
                    consumer_id=command.consumer_id,
                    resources=command.resources,
                    units=command.units,
                    counted=command.counted is not False,
                )
            ]
        case TakeOver():
            resources, units = provider.claims[command.of], provider.held.get(command.of)
            return [
                ResourcesReleased(consumer_id=command.of),
                ResourcesClaimed(consumer_id=command.consumer_id, resources=resources, units=units),
            ]
        case Release():
            return [ResourcesReleased(consumer_id=command.consumer_id, counted=command.counted)]
        case DeleteProvider():
            _deletable(provider)
            return [ProviderDeleted()]
    raise TypeError(f"providers know no {type(command).__name__}")


def offering(
    provider_id: str,
    name: str,
    inventories: Mapping[str, Inventory],
    traits: tuple[str, ...] = (),
    units: Units | None = None,
) -> tuple[Wish, ...]:
    """A provider that stands by itself, with all it has: what registering a host appends.

    Repeated, it brings inventories and traits up to date; an operator's own traits stay.
    """
    return (
        Wish(PROVIDERS, provider_id, CreateProvider(name=name)),
        Wish(PROVIDERS, provider_id, SetInventories(inventories=dict(inventories))),
        Wish(PROVIDERS, provider_id, ReportTraits(traits=traits)),
        *((Wish(PROVIDERS, provider_id, SetUnits(units=units)),) if units is not None else ()),
    )


def _already_so(provider: Provider, command: Command) -> bool:
    match command:
        case CreateProvider():
            return provider.living and (provider.name, provider.parent_id) == (command.name, command.parent_id)
        case DeleteProvider():
            return provider.deleted_at is not None
        case Release():
            return not provider.living or command.consumer_id not in provider.claims
        case RemoveChildProvider() if not provider.living:
            return True
    if not provider.living:
        return False
    match command:
        case RenameProvider():
            return provider.name == command.name
        case MoveProvider():
            return (provider.parent_id, provider.root_id) == (command.parent_id, command.root_id)
        case AddChildProvider():
            return command.child_id in provider.children
        case RemoveChildProvider():
            return command.child_id not in provider.children
        case SetInventories():
            same = provider.inventories == command.inventories and _had(provider, command.generation)
            return same and not command.counted
        case SetInventory():
            same = provider.inventories.get(command.resource_class) == command.inventory
            return same and _had(provider, command.generation)
        case SetUnits():
            return provider.units == command.units
        case SetProviderTraits():
            return provider.traits == command.traits
        case ReportTraits():
            return provider.traits == _with_custom(provider, command)
        case SetProviderAggregates():
            moved = command.counted and not _had(provider, command.generation)
            return provider.aggregates == command.aggregates and not moved
        case TakeOver():
            return command.consumer_id == command.of or command.of not in provider.claims
        case Claim():
            held = provider.held.get(command.consumer_id, {})
            there = provider.claims.get(command.consumer_id, {}) == command.resources
            same = there and (command.units is None or command.units == held)
            return same and not command.counted
    return False


def _had(provider: Provider, generation: int | None) -> bool:
    """Whether a wish made for that generation has had its move, or asks for none."""
    return generation is None or generation == provider.generation - 1


def _with_custom(provider: Provider, command: ReportTraits) -> tuple[str, ...]:
    own = (trait for trait in provider.traits if trait.startswith("CUSTOM_"))
    return tuple(sorted({*command.traits, *own}, key=lambda trait: (trait.startswith("CUSTOM_"), trait)))


def must_be_at(provider: Provider, generation: int | None) -> None:
    """Refuse what was asked for another generation than there is. Raises ConcurrentUpdate."""
    if generation is not None and generation != provider.generation:
        raise ConcurrentUpdate(
            f"resource provider generation conflict: Resource provider's generation already changed. Please update the "
            f"generation and try again. {provider.id} is at generation {provider.generation}, the request was made for "
            f"{generation}."
        )


def _with(provider: Provider, command: SetInventory) -> dict[str, Inventory]:
    there = command.resource_class in provider.inventories
    if command.fresh and there:
        raise Conflict(f"Resource provider {provider.id} has an inventory of {command.resource_class} already.")
    if not command.fresh and not there:
        raise Invalid(f"No inventory record with resource class {command.resource_class} to update on {provider.id}.")
    return provider.inventories | {command.resource_class: command.inventory}


def _not_in_use(provider: Provider, classes: set[str]) -> None:
    claimed = [name for name in in_order(classes) if provider.used.get(name)]
    if claimed:
        raise InUse(
            f"Inventory for '{', '.join(claimed)}' on resource provider '{provider.id}' in use. "
            f"{len(provider.claims)} consumers hold something here."
        )


def _room(provider: Provider, command: Claim) -> None:
    """Refuse what does not fit. A claim that only shrinks is granted even where the inventory has become too small."""
    held = provider.claims.get(command.consumer_id, {})
    for name, amount in command.resources.items():
        mine = held.get(name, 0)
        inventory = provider.inventories.get(name)
        if inventory is None:
            raise NoRoom(provider.id, f"Inventory for '{name}' on it is missing.")
        if not inventory.fits(amount):
            raise NoRoom(
                provider.id,
                f"{amount} of {name} is not a size it gives: from {inventory.min_unit} to {inventory.max_unit} "
                f"in steps of {inventory.step_size}.",
            )
        free = provider.free(name) + mine
        if amount > free and amount > mine:
            raise NoRoom(
                provider.id,
                f"The requested amount would exceed the capacity: {amount} of {name} asked, {free} left.",
            )


def _units_free(provider: Provider, command: Claim) -> None:
    """Refuse a CPU, memory of a cell or a device that another has; this is the one place where that is decided."""
    if not command.units:
        return
    mine = provider.held.get(command.consumer_id, {})
    for unit, amount in command.units.items():
        taken = sum(units.get(unit, 0) for units in provider.held.values()) - mine.get(unit, 0)
        if amount > mine.get(unit, 0) and taken + amount > provider.units.get(unit, 0):
            left = max(0, provider.units.get(unit, 0) - taken)
            raise NoRoom(provider.id, f"{amount} of {unit} asked, {left} left.")


def _deletable(provider: Provider) -> None:
    if provider.children:
        raise Conflict(
            f"Unable to delete parent resource provider {provider.id}: It has child resource providers. Delete them "
            f"first ({len(provider.children)}).",
            code="placement.resource_provider.cannot_delete_parent",
        )
    if provider.claims:
        raise InUse(
            f"Unable to delete resource provider {provider.id}: Resource provider has allocations. "
            f"{len(provider.claims)} consumers hold something here.",
            code="placement.resource_provider.inuse",
        )


PROVIDERS = Aggregate(PROVIDER, decide, ALLOWED)
