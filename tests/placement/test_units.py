"""CPUs, memory of a cell and devices that only one claim can have: decided where the claim is."""

from hypothesis import given
from hypothesis import strategies as st

from handlers.placement.provider import PROVIDERS, NoRoom
from schema.compute.topology import (
    GuestCell,
    GuestDevice,
    HostCell,
    HostDevice,
    Topology,
    cpu_set,
    ranges,
    units_taken,
    units_there,
)
from schema.placement.provider import (
    PROVIDER,
    Claim,
    InventoriesSet,
    Inventory,
    Provider,
    ProviderCreated,
    Release,
    ResourcesClaimed,
    ResourcesReleased,
    SetUnits,
    UnitsSet,
)
from tests.story import BEGINNING, Story

provider = Story(PROVIDERS, "p1")

CELLS = (
    HostCell(id=0, cpus=(0, 1, 2, 3), memory_mb=4096, pages={2048: 512}),
    HostCell(id=1, cpus=(4, 5, 6, 7), memory_mb=4096),
)
CARD = HostDevice(address="0000:01:00.0", vendor_id="8086", product_id="154d", kind="type-PF", cell=0)
VIRTUAL = HostDevice(address="0000:01:10.0", vendor_id="8086", product_id="10ed", kind="type-VF", parent=CARD.address)
THERE = units_there(CELLS, (CARD, VIRTUAL), (2, 3, 6, 7))
born = ProviderCreated(name="h1", root_id="p1")
offers = InventoriesSet(inventories={"PCPU": Inventory(total=4)})
has = UnitsSet(units=THERE)


def claim(consumer, **units):
    return Claim(consumer_id=consumer, resources={"PCPU": 1}, units={f"cpu {cpu}": 1 for cpu in units["cpus"]})


def claimed(consumer, cpus):
    return ResourcesClaimed(consumer_id=consumer, resources={"PCPU": 1}, units={f"cpu {cpu}": 1 for cpu in cpus})


def test_a_host_says_what_there_is():
    assert THERE["memory 1"] == 4096
    assert THERE["pages 0 2048"] == 512
    assert sorted(it for it in THERE if it.startswith("cpu")) == ["cpu 2", "cpu 3", "cpu 6", "cpu 7"]
    provider.given(born).when(SetUnits(units=THERE)).then(has)


def test_a_cpu_is_one_guests():
    provider.given(born, offers, has).when(claim("a", cpus=[2])).then(claimed("a", [2]))
    provider.given(born, offers, has, claimed("a", [2])).when(claim("b", cpus=[2])).refused("0 left")
    provider.given(born, offers, has, claimed("a", [2])).when(claim("b", cpus=[3])).then(claimed("b", [3]))
    released = ResourcesReleased(consumer_id="a")
    provider.given(born, offers, has, claimed("a", [2])).when(Release(consumer_id="a")).then(released)
    provider.given(born, offers, has, claimed("a", [2]), released).when(claim("b", cpus=[2])).then(claimed("b", [2]))


def test_a_shared_cpu_is_nobodys():
    provider.given(born, offers, has).when(claim("a", cpus=[0])).refused("1 of cpu 0 asked, 0 left")


def test_a_claim_without_a_word_of_units_keeps_them():
    again = Claim(consumer_id="a", resources={"PCPU": 2})
    grown = ResourcesClaimed(consumer_id="a", resources={"PCPU": 2})
    provider.given(born, offers, has, claimed("a", [2])).when(again).then(grown)
    provider.given(born, offers, has, claimed("a", [2]), grown).when(claim("b", cpus=[2])).refused("0 left")


def test_with_a_physical_function_go_its_virtual_ones():
    given_card = Topology(devices=(GuestDevice(address=CARD.address),))
    assert units_taken(given_card, (CARD, VIRTUAL)) == {"pci 0000:01:00.0": 1, "pci 0000:01:10.0": 1}
    given_virtual = Topology(devices=(GuestDevice(address=VIRTUAL.address),))
    assert units_taken(given_virtual, (CARD, VIRTUAL)) == {"pci 0000:01:10.0": 1}


def test_a_guest_takes_what_its_cells_take():
    cells = (
        GuestCell(id=0, host_cell=0, cpus=(0, 1), memory_mb=1024, page_kib=2048, pins={0: 2, 1: 3}),
        GuestCell(id=1, host_cell=1, cpus=(2,), memory_mb=256),
    )
    taken = units_taken(Topology(cells=cells, emulator_cpus=(0, 6), own_cpus=(6,)), ())
    assert taken == {"cpu 2": 1, "cpu 3": 1, "cpu 6": 1, "pages 0 2048": 512, "memory 1": 256}


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.dictionaries(st.sampled_from(sorted(THERE)), st.just(1))))
)
def test_no_history_gives_anything_twice(steps):
    state = Provider(id="p1")
    for event in (born, InventoriesSet(inventories={"PCPU": Inventory(total=100)}), has):
        state = PROVIDER.fold(state, event, BEGINNING)
    for consumer, ends, units in steps:
        wanted = Release(consumer_id=f"c{consumer}")
        if not ends:
            wanted = Claim(consumer_id=f"c{consumer}", resources={"PCPU": 1}, units=units)
        try:
            events = PROVIDERS.decide(state, wanted)
        except NoRoom:
            continue
        for event in events:
            state = PROVIDER.fold(state, event, BEGINNING)
        for unit, there in state.units.items():
            assert sum(its.get(unit, 0) for its in state.held.values()) <= there
        assert state.held.keys() <= state.claims.keys()


@given(st.frozensets(st.integers(0, 300)))
def test_sets_of_cpus_are_read_as_they_are_written(cpus):
    assert cpu_set(ranges(cpus)) == cpus


def test_a_set_of_cpus_may_leave_some_out():
    assert cpu_set("0-3,^2, 7") == {0, 1, 3, 7}
