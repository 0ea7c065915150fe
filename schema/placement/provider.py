"""A resource provider: what it offers (inventories, traits), and what of it is claimed, by whom.

    (absent) ──ProviderCreated──▶ there ──ProviderDeleted──▶ (absent; its uuid may be used again)
                                  there:  claims come and go, each decided here against the inventory

Providers form trees (a host, its NUMA nodes, its cards): a provider knows its parent, its root and its children, so
that a parent with children cannot go. `generation` is what placement's clients compare and swap with; it moves with
everything that could take room, so neither with names nor with what is released. A wish for inventories or aggregates
that names the generation it was made for moves it even where it changes nothing else; one generation further on, it
has been had already. The document grows with the consumers a provider has, about 90 bytes for each.
"""

from __future__ import annotations

from datetime import datetime
from math import floor

from msgspec import Struct, field
from msgspec.structs import replace

from schema.compute.topology import Units
from schema.event import Command, Event, Key, Kind, State

MOST = 2**31 - 1
"""The largest amount of anything."""

Resources = dict[str, int]
"""Resource class → amount."""


class Inventory(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of one resource class there is, and in what pieces it may be claimed."""

    total: int
    reserved: int = 0
    min_unit: int = 1
    max_unit: int = MOST
    step_size: int = 1
    allocation_ratio: float = 1.0

    @property
    def capacity(self) -> int:
        """What all claims together may hold."""
        return floor((self.total - self.reserved) * self.allocation_ratio)

    def fits(self, amount: int) -> bool:
        """Whether a single claim may be of that size."""
        return self.min_unit <= amount <= self.max_unit and amount % self.step_size == 0


class Provider(State):
    name: str = ""
    parent_id: str | None = None
    root_id: str = ""
    """The top of its tree; its own id for a provider without parent."""
    children: tuple[str, ...] = ()
    generation: int = 0
    inventories: dict[str, Inventory] = field(default_factory=dict)
    used: Resources = field(default_factory=dict)
    """The sum of all claims, by resource class."""
    claims: dict[str, Resources] = field(default_factory=dict)
    """Consumer id → what it holds here."""
    units: Units = field(default_factory=dict)
    """What there is of things that are not only counted (schema/compute/topology.py)."""
    held: dict[str, Units] = field(default_factory=dict)
    """Consumer id → which of them it has."""
    traits: tuple[str, ...] = ()
    aggregates: tuple[str, ...] = ()

    def free(self, resource_class: str) -> int:
        """What is left for one more claim."""
        inventory = self.inventories.get(resource_class)
        return inventory.capacity - self.used.get(resource_class, 0) if inventory else 0


class ProviderCreated(Event):
    name: str
    root_id: str
    parent_id: str | None = None


class ProviderRenamed(Event):
    name: str


class ProviderMoved(Event):
    """It, or something above it, has another parent now."""

    parent_id: str | None
    root_id: str


class ChildProviderAdded(Event):
    child_id: str


class ChildProviderRemoved(Event):
    child_id: str


class InventoriesSet(Event):
    inventories: dict[str, Inventory]
    """All of them, by resource class."""


class UnitsSet(Event):
    units: Units
    """All of them."""


class ProviderTraitsSet(Event):
    traits: tuple[str, ...]


class ProviderAggregatesSet(Event):
    aggregates: tuple[str, ...]
    counted: bool = True
    """Whether the generation moves: it does not for clients older than 1.19."""


class ResourcesClaimed(Event):
    """From now on the consumer holds exactly this here."""

    consumer_id: str
    resources: Resources
    units: Units | None = None
    """And has these; None: those it had."""
    counted: bool = True
    """Whether the generation moves: it does once, however many consumers one write is about."""


class ResourcesReleased(Event):
    consumer_id: str
    counted: bool = False
    """Whether the generation moves: it does where a consumer is emptied by writing that it holds nothing."""


class ProviderDeleted(Event):
    pass


ProviderEvent = (
    ProviderCreated
    | ProviderRenamed
    | ProviderMoved
    | ChildProviderAdded
    | ChildProviderRemoved
    | InventoriesSet
    | UnitsSet
    | ProviderTraitsSet
    | ProviderAggregatesSet
    | ResourcesClaimed
    | ResourcesReleased
    | ProviderDeleted
)


class CreateProvider(Command):
    name: str
    parent_id: str | None = None
    root_id: str = ""
    """The parent's root; empty: it is its own."""


class RenameProvider(Command):
    name: str


class MoveProvider(Command):
    parent_id: str | None
    root_id: str


class AddChildProvider(Command):
    """Said to the parent. `root_id`: where the child was told the parent stands."""

    child_id: str
    root_id: str


class RemoveChildProvider(Command):
    child_id: str


class CheckProvider(Command):
    """Changes nothing; refuses the append unless the provider is (still) at that generation."""

    generation: int


class SetInventories(Command):
    """All inventories at once. `generation`: refuse if it is another by now; None: whatever it is."""

    inventories: dict[str, Inventory]
    generation: int | None = None
    counted: bool = False
    """Moves the generation even where nothing changes: the end of a reshape, whose beginning tells a repetition."""


class SetInventory(Command):
    """One resource class. `fresh`: refuse if there is one already (True), or if there is none (False)."""

    resource_class: str
    inventory: Inventory
    fresh: bool
    generation: int | None = None


class RemoveInventory(Command):
    resource_class: str


class SetUnits(Command):
    """What there is by now; what somebody has of what is not there any more, stays with them."""

    units: Units


class SetProviderTraits(Command):
    traits: tuple[str, ...]
    generation: int | None = None


class ReportTraits(Command):
    """What it says it can do, all of it. An operator's own traits (CUSTOM_*) stay as they are."""

    traits: tuple[str, ...]


class SetProviderAggregates(Command):
    aggregates: tuple[str, ...]
    generation: int | None = None
    counted: bool = True


class Claim(Command):
    """The consumer shall hold exactly this here, instead of what it holds here now."""

    consumer_id: str
    resources: Resources
    units: Units | None = None
    """Which units, exactly; None: those it has."""
    counted: bool | None = None
    """Whether the generation moves; None: if anything changes. Who says True has another wish in the same append that
    tells a repetition."""


class TakeOver(Command):
    """The consumer shall hold what another one holds here, and that one nothing. There is always room for it."""

    consumer_id: str
    of: str


class Release(Command):
    """The consumer shall hold nothing here."""

    consumer_id: str
    counted: bool = False


class DeleteProvider(Command):
    pass


def evolve(provider: Provider, event: ProviderEvent, at: datetime) -> Provider:
    match event:
        case ProviderCreated():
            return Provider(id=provider.id, name=event.name, parent_id=event.parent_id, root_id=event.root_id)
        case ProviderRenamed():
            return replace(provider, name=event.name)
        case ProviderMoved():
            return replace(provider, parent_id=event.parent_id, root_id=event.root_id)
        case ChildProviderAdded():
            return replace(provider, children=(*provider.children, event.child_id))
        case ChildProviderRemoved():
            return replace(provider, children=tuple(c for c in provider.children if c != event.child_id))
        case InventoriesSet():
            return replace(provider, inventories=event.inventories, generation=provider.generation + 1)
        case UnitsSet():
            return replace(provider, units=event.units)
        case ProviderTraitsSet():
            return replace(provider, traits=event.traits, generation=provider.generation + 1)
        case ProviderAggregatesSet():
            generation = provider.generation + event.counted
            return replace(provider, aggregates=event.aggregates, generation=generation)
        case ResourcesClaimed():
            held = _holding(provider, event.consumer_id, event.resources, event.units)
            return replace(held, generation=provider.generation + event.counted)
        case ResourcesReleased():
            held = _holding(provider, event.consumer_id, {}, {})
            return replace(held, generation=provider.generation + event.counted)
        case ProviderDeleted():
            return replace(provider, deleted_at=at)


def _holding(provider: Provider, consumer_id: str, resources: Resources, units: Units | None) -> Provider:
    claims, used = provider.claims.copy(), provider.used.copy()
    for name, amount in claims.pop(consumer_id, {}).items():
        used[name] = used.get(name, 0) - amount
    for name, amount in resources.items():
        used[name] = used.get(name, 0) + amount
    if resources:
        claims[consumer_id] = resources
    used = {name: amount for name, amount in used.items() if amount}
    if units is None or (not units and consumer_id not in provider.held):
        return replace(provider, claims=claims, used=used)
    held = {id: its for id, its in provider.held.items() if id != consumer_id}
    return replace(provider, claims=claims, used=used, held=held | {consumer_id: units} if units else held)


def _unique(provider: Provider) -> tuple[Key, ...]:
    return (("provider name", provider.name),)


PROVIDER = Kind("provider", Provider, ProviderEvent, evolve, unique=_unique, reborn=ProviderCreated)
