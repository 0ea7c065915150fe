"""Stories of providers, consumers, classes and traits; and that no history breaks the books."""

from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.placement.consumer import CONSUMERS
from handlers.placement.provider import PROVIDERS, ConcurrentUpdate, InUse, NoRoom
from handlers.placement.resource_class import RESOURCE_CLASSES
from handlers.placement.trait import TRAITS
from schema.placement.consumer import Allocate, AllocationsEnded, EndAllocations, ResourcesAllocated
from schema.placement.provider import (
    AddChildProvider,
    ChildProviderAdded,
    ChildProviderRemoved,
    Claim,
    CreateProvider,
    DeleteProvider,
    InventoriesSet,
    Inventory,
    MoveProvider,
    ProviderAggregatesSet,
    ProviderCreated,
    ProviderDeleted,
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
)
from schema.placement.resource_class import (
    CreateResourceClass,
    DeleteResourceClass,
    ResourceClassCreated,
    ResourceClassDeleted,
)
from schema.placement.trait import CreateTrait, DeleteTrait, TraitCreated, TraitDeleted
from schema.refusal import Conflict, Invalid, NotFound, Refused
from tests.story import BEGINNING, Story

provider = Story(PROVIDERS, "p")
consumer = Story(CONSUMERS, "c")
born = ProviderCreated(name="host-1", root_id="p")
FOUR = {"VCPU": Inventory(total=4)}
offering = provider.given(born, InventoriesSet(inventories=FOUR))
claimed = offering.after(ResourcesClaimed(consumer_id="c", resources={"VCPU": 3}))


def test_a_provider_is_its_own_root_or_has_its_parents():
    provider.given().when(CreateProvider(name="host-1")).then(born)
    child = ProviderCreated(name="card", parent_id="host", root_id="host")
    provider.given().when(CreateProvider(name="card", parent_id="host", root_id="host")).then(child)
    provider.given(born).when(CreateProvider(name="other")).refused("already exists", Conflict)


def test_what_is_not_there_cannot_be_changed_nor_claimed():
    provider.given().when(RenameProvider(name="x")).refused("No resource provider with uuid p", NotFound)
    provider.given().when(Claim(consumer_id="c", resources={"VCPU": 1})).refused("does not exist", NoRoom)
    assert PROVIDERS.decide(provider.given(born, ProviderDeleted()).state, Release(consumer_id="c")) == []


def test_renaming_leaves_the_generation():
    assert provider.given(born).when(RenameProvider(name="x")).then(ProviderRenamed(name="x")).state.generation == 0


def test_trees():
    parent = (
        provider.given(born).when(AddChildProvider(child_id="q", root_id="p")).then(ChildProviderAdded(child_id="q"))
    )
    parent.when(DeleteProvider()).refused("It has child resource providers", Conflict)
    parent.when(RemoveChildProvider(child_id="q")).then(ChildProviderRemoved(child_id="q"))
    provider.given(born).when(AddChildProvider(child_id="q", root_id="z")).refused("another tree", ConcurrentUpdate)
    moved = ProviderMoved(parent_id="r", root_id="s")
    provider.given(born).when(MoveProvider(parent_id="r", root_id="s")).then(moved)


def test_inventories_need_the_generation_and_stay_while_claimed():
    provider.given(born).when(SetInventories(inventories=FOUR, generation=0)).then(InventoriesSet(inventories=FOUR))
    offering.when(SetInventories(inventories={}, generation=0)).refused("is at generation 1", ConcurrentUpdate)
    assert PROVIDERS.decide(offering.state, RemoveInventory(resource_class="VCPU")) == [InventoriesSet(inventories={})]
    claimed.when(RemoveInventory(resource_class="VCPU")).refused("in use", InUse)
    claimed.when(SetInventories(inventories={})).refused("in use", InUse)
    offering.when(SetInventories(inventories=FOUR, generation=1)).then(InventoriesSet(inventories=FOUR))
    smaller = {"VCPU": Inventory(total=2)}
    claimed.when(SetInventories(inventories=smaller)).then(InventoriesSet(inventories=smaller))


def test_one_inventory_is_new_or_it_is_there():
    more = Inventory(total=8)
    both = FOUR | {"DISK_GB": more}
    offering.when(SetInventory(resource_class="DISK_GB", inventory=more, fresh=True)).then(
        InventoriesSet(inventories=both)
    )
    offering.when(SetInventory(resource_class="DISK_GB", inventory=more, fresh=False)).refused("No inventory", Invalid)
    offering.when(SetInventory(resource_class="VCPU", inventory=more, fresh=True)).refused("already", Conflict)
    provider.given(born).when(RemoveInventory(resource_class="VCPU")).refused("No inventory of class VCPU", NotFound)


def test_traits_and_aggregates():
    given = provider.given(born)
    given.when(SetProviderTraits(traits=("A",), generation=0)).then(ProviderTraitsSet(traits=("A",)))
    given.when(SetProviderTraits(traits=("A",), generation=3)).refused(
        "update the generation and try again", ConcurrentUpdate
    )
    same = provider.given(born, ProviderTraitsSet(traits=("A",)))
    same.when(SetProviderTraits(traits=("A",), generation=1)).then()
    listed = provider.given(born, ProviderAggregatesSet(aggregates=("a",)))
    listed.when(SetProviderAggregates(aggregates=("a",), generation=1)).then(ProviderAggregatesSet(aggregates=("a",)))
    tagged = provider.given(born, ProviderTraitsSet(traits=("OLD", "CUSTOM_RACK")))
    tagged.when(ReportTraits(traits=("NEW",))).then(ProviderTraitsSet(traits=("NEW", "CUSTOM_RACK")))
    quiet = given.when(SetProviderAggregates(aggregates=("a",), counted=False)).then(
        ProviderAggregatesSet(aggregates=("a",), counted=False)
    )
    assert quiet.state.generation == 0


def test_claims_within_what_is_left():
    offering.when(Claim(consumer_id="c", resources={"VCPU": 4})).then(
        ResourcesClaimed(consumer_id="c", resources={"VCPU": 4})
    )
    claimed.when(Claim(consumer_id="d", resources={"VCPU": 2})).refused("2 of VCPU asked, 1 left", NoRoom)
    claimed.when(Claim(consumer_id="c", resources={"VCPU": 4})).then(
        ResourcesClaimed(consumer_id="c", resources={"VCPU": 4})
    )
    assert claimed.when(Release(consumer_id="c")).then(ResourcesReleased(consumer_id="c")).state.used == {}


def test_a_claim_may_shrink_on_a_provider_that_became_too_small():
    tight = claimed.after(InventoriesSet(inventories={"VCPU": Inventory(total=1)}))
    tight.when(Claim(consumer_id="c", resources={"VCPU": 2})).then(
        ResourcesClaimed(consumer_id="c", resources={"VCPU": 2})
    )
    tight.when(Claim(consumer_id="c", resources={"VCPU": 4})).refused("exceed the capacity", NoRoom)


def test_sizes():
    odd = {"DISK_GB": Inventory(total=100, reserved=20, allocation_ratio=1.5, min_unit=10, max_unit=50, step_size=5)}
    given = provider.given(born, InventoriesSet(inventories=odd))
    for amount, fits in ((10, True), (50, True), (5, False), (55, False), (12, False)):
        command = Claim(consumer_id="c", resources={"DISK_GB": amount})
        if fits:
            given.when(command).then(ResourcesClaimed(consumer_id="c", resources={"DISK_GB": amount}))
        else:
            given.when(command).refused("not a size it gives", NoRoom)
    assert given.state.inventories["DISK_GB"].capacity == 120


def test_a_claimed_provider_stays():
    claimed.when(DeleteProvider()).refused("has allocations", InUse)
    offering.when(DeleteProvider()).then(ProviderDeleted())


def test_consumers_compare_and_swap():
    hold = Allocate(allocations={"p": {"VCPU": 1}}, project_id="x", user_id="y", generation=0)
    event = ResourcesAllocated(allocations={"p": {"VCPU": 1}}, project_id="x", user_id="y")
    held = consumer.given().when(hold).then(event)
    assert held.state.generation == 1
    other = Allocate(allocations={"p": {"VCPU": 2}}, project_id="x", user_id="y", generation=0)
    held.when(other).refused("expected 1 but got null", ConcurrentUpdate)
    held.when(EndAllocations(generation=7)).refused("generation conflict", ConcurrentUpdate)
    held.when(EndAllocations(providers=("q",))).refused("holds something elsewhere", ConcurrentUpdate)
    ended = held.when(EndAllocations(generation=1)).then(AllocationsEnded())
    assert ended.when(hold).then(event).state.generation == 1


def test_names_of_ones_own_come_and_go():
    given = Story(RESOURCE_CLASSES, "CUSTOM_IRON").given()
    there = given.when(CreateResourceClass()).then(ResourceClassCreated())
    there.when(DeleteResourceClass()).then(ResourceClassDeleted()).when(CreateResourceClass()).then(
        ResourceClassCreated()
    )
    there = Story(TRAITS, "CUSTOM_FAST").given().when(CreateTrait()).then(TraitCreated())
    there.when(DeleteTrait()).then(TraitDeleted()).when(CreateTrait()).then(TraitCreated())


amounts = st.dictionaries(st.sampled_from(["VCPU", "MEMORY_MB"]), st.integers(1, 12), min_size=1)
inventories = st.dictionaries(
    st.sampled_from(["VCPU", "MEMORY_MB"]),
    st.builds(
        Inventory,
        total=st.integers(1, 30),
        reserved=st.integers(0, 3),
        allocation_ratio=st.sampled_from([1.0, 1.5, 4.0]),
    ),
)
commands = st.one_of(
    st.builds(Claim, consumer_id=st.sampled_from("abcd"), resources=amounts),
    st.builds(Claim, consumer_id=st.sampled_from("abcd"), resources=amounts),
    st.builds(Release, consumer_id=st.sampled_from("abcd")),
    st.builds(SetInventories, inventories=inventories),
    st.just(DeleteProvider()),
    st.just(CreateProvider(name="p")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(commands, max_size=40))
def test_after_any_history_the_books_balance_and_no_claim_made_them_too_full(history):
    state = PROVIDERS.kind.unborn("p")
    for command in [CreateProvider(name="p"), *history]:
        before = state
        try:
            events = PROVIDERS.decide(state, command)
        except Refused:
            continue
        for event in events:
            state = PROVIDERS.kind.fold(state, event, BEGINNING)
        sums: dict[str, int] = {}
        for held in state.claims.values():
            for name, amount in held.items():
                sums[name] = sums.get(name, 0) + amount
        assert state.used == sums
        if isinstance(command, Claim):
            grown = {n for n, amount in state.used.items() if amount > before.used.get(n, 0)}
            assert all(state.used[name] <= state.inventories[name].capacity for name in grown)
        assert PROVIDERS.decide(state, command) == []
