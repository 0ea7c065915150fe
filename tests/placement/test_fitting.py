"""What a server wants for itself: how flavor and image say it, and how it fits on a host."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.placement.fitting import fit
from handlers.placement.hardware import Alias, Hardware, WantedCell, aliases, check_aliases, check_rebuild, resolved
from handlers.placement.misfit import Misfit
from handlers.placement.wishes import wanted
from schema.compute.domain import HostFacts
from schema.compute.topology import (
    HostCell,
    HostDevice,
    Topology,
    cpu_unit,
    units_taken,
    units_there,
)
from schema.refusal import Invalid

PAIRS = ((0, 4), (1, 5), (2, 6), (3, 7))
"""Threads of the cores of the first node."""
NODES = (
    HostCell(id=0, cpus=tuple(range(8)), siblings=PAIRS, memory_mb=4096, pages={2048: 1024, 1048576: 4}),
    HostCell(
        id=1,
        cpus=tuple(range(8, 16)),
        siblings=tuple((a + 8, b + 8) for a, b in PAIRS),
        memory_mb=4096,
        pages={2048: 512},
        socket=1,
    ),
)
PLAIN = (HostCell(id=0, cpus=(0, 1, 2, 3), memory_mb=4096),)
DEVICES = (
    HostDevice(address="0000:01:00.0", vendor_id="8086", product_id="154d", kind="type-PF", cell=0),
    HostDevice(
        address="0000:01:10.0", vendor_id="8086", product_id="10ed", kind="type-VF", cell=0, parent="0000:01:00.0"
    ),
    HostDevice(address="0000:81:00.0", vendor_id="10de", product_id="1eb8", cell=1),
    HostDevice(address="0000:82:00.0", vendor_id="10de", product_id="1eb8"),
)
NAMES = {"gpu": Alias("10de", "1eb8"), "card": Alias("8086", "154d"), "virtual": Alias("8086", "10ed", "type-VF")}


def host(cells=NODES, dedicated=range(2, 16), devices=DEVICES):
    return HostFacts(cells=cells, dedicated_cpus=tuple(dedicated), devices=devices)


def there(facts):
    return units_there(facts.cells, facts.devices, facts.dedicated_cpus)


def asked(vcpus=2, memory_mb=1024, properties=None, **specs):
    """`cpu_policy="dedicated"` is hw:cpu_policy; `alias="gpu:1"` a device."""
    said = {f"hw:{key}": value for key, value in specs.items() if key != "alias"}
    if "alias" in specs:
        said["pci_passthrough:alias"] = specs["alias"]
    found = wanted(vcpus, memory_mb, said, properties or {})
    return resolved(found, NAMES) if found else None


def fitted(hardware, facts=None, without=()):
    facts = facts or host()
    free = {**there(facts), **dict.fromkeys(without, 0)}
    found = fit(hardware, facts, free)
    assert isinstance(found, Topology), found
    return found


def misfit(hardware, facts=None, without=()):
    facts = facts or host()
    found = fit(hardware, facts, {**there(facts), **dict.fromkeys(without, 0)})
    assert isinstance(found, Misfit), found
    return found.why


# What is wanted


def test_a_server_of_a_plain_flavor_wants_nothing():
    assert wanted(2, 512, {"quota:cpu_shares": "10"}, {"hw_disk_bus": "virtio"}) is None
    assert wanted(2, 512, {"hw:cpu_policy": "shared"}, {}) is None


def test_dedicated_cpus_are_pcpus():
    assert asked(cpu_policy="dedicated").demand({"VCPU": 2, "MEMORY_MB": 1024}) == {"PCPU": 2, "MEMORY_MB": 1024}
    isolated = asked(cpu_policy="dedicated", emulator_threads_policy="isolate")
    assert isolated.demand({"VCPU": 2}) == {"PCPU": 3}
    assert asked(4, cpu_policy="mixed", cpu_dedicated_mask="^0").demand({"VCPU": 4}) == {"VCPU": 1, "PCPU": 3}
    explicit = wanted(2, 512, {"resources:PCPU": "2"}, {})
    assert explicit.cpu_policy == "dedicated"
    assert explicit.demand({"VCPU": 2, "PCPU": 2}) == {"PCPU": 2}


def test_devices_are_counted_by_what_they_are():
    assert asked(alias="gpu:2, card:1").demand({"VCPU": 1}) == {
        "VCPU": 1,
        "CUSTOM_PCI_10DE_1EB8": 2,
        "CUSTOM_PCI_8086_154D": 1,
    }


def test_nodes_are_parted_evenly_or_as_said():
    even = asked(4, 1024, numa_nodes="2")
    assert even.cells == (WantedCell(cpus=(0, 1), memory_mb=512), WantedCell(cpus=(2, 3), memory_mb=512))
    said = {"hw:numa_nodes": "2", "hw:numa_cpus.0": "0", "hw:numa_cpus.1": "1-3", "hw:numa_mem.0": "256"}
    odd = wanted(4, 1024, {**said, "hw:numa_mem.1": "768"}, {})
    assert [(cell.cpus, cell.memory_mb) for cell in odd.cells] == [((0,), 256), ((1, 2, 3), 768)]


@pytest.mark.parametrize(
    "size,kib",
    [("2048", "2048"), ("2MB", "2048"), ("1GB", "1048576"), ("4", "4"), ("2Mi", "2048"), ("large", "large")],
)
def test_sizes_of_pages(size, kib):
    assert asked(mem_page_size=size).pages == kib


def test_the_image_says_what_the_flavor_leaves_open():
    assert wanted(2, 512, {}, {"hw_cpu_policy": "dedicated"}).cpu_policy == "dedicated"
    assert wanted(2, 512, {"hw:cpu_policy": "dedicated"}, {"hw_cpu_policy": "shared"}).cpu_policy == "dedicated"
    assert wanted(2, 512, {"hw:mem_page_size": "any"}, {"hw_mem_page_size": "2MB"}).pages == "2048"
    assert len(wanted(2, 512, {}, {"hw_numa_nodes": "2"}).cells) == 2


DEDICATED = {"hw:cpu_policy": "dedicated"}
MIXED = {"hw:cpu_policy": "mixed"}
NODE = {"hw:numa_nodes": "1"}


@pytest.mark.parametrize(
    "specs,properties,why",
    [
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "not permitted to override CPU pinning policy"),
        (MIXED, {"hw_cpu_policy": "dedicated"}, "not permitted to override CPU pinning policy"),
        ({}, {"hw_cpu_policy": "own"}, "CPU policy requested from 'image properties' is invalid, given: 'own'"),
        ({"hw:cpu_thread_policy": "isolate"}, {}, "Cannot set cpu thread pinning policy in a non dedicated"),
        (
            {**DEDICATED, "hw:cpu_thread_policy": "isolate"},
            {"hw_cpu_thread_policy": "require"},
            "override CPU thread pinning policy",
        ),
        ({"hw:emulator_threads_policy": "isolate"}, {}, "An isolated CPU emulator threads option requires a dedicated"),
        ({**DEDICATED, "hw:cpu_dedicated_mask": "0"}, {}, "only with the 'mixed' CPU policy"),
        (MIXED, {}, "Dedicated CPU set can be specified from either"),
        ({**MIXED, "hw:cpu_dedicated_mask": "0-1"}, {}, "at least 1 pinned vCPU and 1 unpinned vCPU"),
        ({**MIXED, "hw:cpu_dedicated_mask": "1-2"}, {}, "is not a subset of vCPUs in the flavor"),
        ({**DEDICATED, "hw:cpu_realtime": "yes"}, {}, "Realtime policy needs vCPU(s) mask"),
        ({"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0"}, {}, "Cannot set realtime policy in a non dedicated"),
        (NODE, {"hw_numa_nodes": "1"}, "'hw_numa_nodes' is not permitted to override NUMA configuration"),
        ({"hw:numa_nodes": "0"}, {}, "The property 'numa_nodes' cannot be '0'"),
        ({"hw:numa_nodes": "3"}, {}, "cannot be evenly distributed"),
        ({**NODE, "hw:numa_cpus.0": "0-1"}, {}, "must be provided for all NUMA nodes"),
        ({**NODE, "hw:numa_cpus.0": "0-2", "hw:numa_mem.0": "512"}, {}, "CPU number 2 is larger than max 1"),
        ({**NODE, "hw:numa_cpus.0": "0", "hw:numa_mem.0": "512"}, {}, "CPU number {1} is not assigned to any node"),
        ({**NODE, "hw:numa_cpus.0": "0,1", "hw:numa_mem.0": "99"}, {}, "99 MB of memory assigned, but expected 512 MB"),
        ({}, {"hw_mem_page_size": "2MB"}, "Page size 2MB forbidden against"),
        ({"hw:mem_page_size": "small"}, {"hw_mem_page_size": "2MB"}, "Page size 2MB forbidden against 'small'"),
        ({"hw:mem_page_size": "huge"}, {}, "Invalid memory page size 'huge'"),
        ({**DEDICATED, "resources:PCPU": "2"}, {}, "It is not possible to use the 'resources:VCPU'"),
        ({"resources:PCPU": "2", "resources:VCPU": "2"}, {}, "It is not possible to specify both"),
        ({"resources:PCPU": "1"}, {}, "must allocate exactly flavor.vcpus PCPUs"),
        (
            {"hw:pci_numa_affinity_policy": "required"},
            {"hw_pci_numa_affinity_policy": "legacy"},
            "'hw_pci_numa_affinity_policy' is not permitted to override",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_novas_words(specs, properties, why):
    with pytest.raises(Invalid) as refused:
        wanted(2, 512, specs, properties)
    assert why in str(refused.value)


def test_a_rebuild_keeps_cpus_and_pages():
    check_rebuild(asked(cpu_policy="dedicated"), asked(cpu_policy="dedicated", alias="gpu:1"))
    with pytest.raises(Invalid, match="NUMA topology cannot be changed as part of a rebuild"):
        check_rebuild(None, asked(cpu_policy="dedicated"))


def test_aliases_are_read_and_known():
    assert aliases({"nic": "8086:154D type-VF required"}) == {"nic": Alias("8086", "154d", "type-VF", "required")}
    for words in ("8086", "8086:154d often"):
        with pytest.raises(ValueError, match="it must be like"):
            aliases({"nic": words})
    with pytest.raises(Invalid, match="PCI alias fpga is not defined"):
        check_aliases(wanted(1, 512, {"pci_passthrough:alias": "fpga:1"}, {}), NAMES)


# How it fits


def test_every_vcpu_has_a_cpu_of_one_node_to_itself():
    found = fitted(asked(4, cpu_policy="dedicated"))
    [cell] = found.cells
    assert len({*found.pins.values()}) == 4
    assert set(found.pins.values()) <= {*NODES[cell.host_cell].cpus} - {0, 1}
    assert found.emulator_cpus == tuple(sorted(found.pins.values()))
    assert misfit(asked(9, cpu_policy="dedicated")) == "has 6 dedicated CPUs free in a NUMA node, 9 asked"


def test_a_node_of_the_guest_is_a_node_of_the_host():
    found = fitted(asked(12, 2048, cpu_policy="dedicated", numa_nodes="2"))
    assert {cell.host_cell for cell in found.cells} == {0, 1}
    assert misfit(asked(3, 1536, numa_nodes="3")) == "has 2 NUMA nodes, 3 asked"
    assert misfit(asked(numa_nodes="1"), host(cells=())) == "has no NUMA nodes, 1 asked"


def test_threads_of_a_core_go_together_unless_isolated():
    found = fitted(asked(2, cpu_policy="dedicated"))
    assert tuple(found.pins.values()) in {(2, 6), (3, 7)}
    assert found.cells[0].siblings == ((0, 1),)
    alone = fitted(asked(2, cpu_policy="dedicated", cpu_thread_policy="isolate"))
    assert (set(alone.pins.values()), alone.own_cpus) == ({2, 3}, (6, 7))
    assert alone.cells[0].siblings == ()
    assert set(units_taken(alone, DEVICES)) == {"cpu 2", "cpu 3", "cpu 6", "cpu 7", "memory 0"}


def test_siblings_that_are_required_must_be_there():
    require = asked(2, cpu_policy="dedicated", cpu_thread_policy="require")
    assert len(fitted(require).cells[0].siblings) == 1
    assert "siblings are required" in misfit(require, host(PLAIN, range(4), ()))
    odd = [cpu_unit(cpu) for cpu in (6, 7, 12, 13, 14, 15)]
    assert "too few cores with siblings" in misfit(require, without=[*odd, "cpu 4", "cpu 5"])
    assert fitted(asked(2, cpu_policy="dedicated"), without=odd)


def test_cores_in_use_are_filled_first():
    assert set(fitted(asked(1, cpu_policy="dedicated"), without=["cpu 6"]).pins.values()) == {2}
    assert set(fitted(asked(1, cpu_policy="dedicated"), without=["cpu 2", "cpu 4"]).pins.values()) == {5}


def test_the_emulator_may_have_a_cpu_of_its_own_or_share():
    isolated = fitted(asked(2, cpu_policy="dedicated", emulator_threads_policy="isolate"))
    assert isolated.emulator_cpus == isolated.own_cpus
    assert not set(isolated.own_cpus) & set(isolated.pins.values())
    shared = fitted(asked(2, cpu_policy="dedicated", emulator_threads_policy="share"))
    assert (shared.emulator_cpus, shared.own_cpus) == ((0, 1), ())


def test_the_emulators_cpu_is_on_the_first_node_whoever_is_pinned_there():
    mixed = asked(4, cpu_policy="mixed", cpu_dedicated_mask="2-3", numa_nodes="2", emulator_threads_policy="isolate")
    roomy = host(dedicated=(*range(2, 8), *range(10, 16)))
    found = fitted(mixed, roomy)
    assert (set(found.cells[0].pins), set(found.cells[1].pins), len(found.own_cpus)) == (set(), {2, 3}, 1)
    assert set(found.own_cpus) <= set(NODES[found.cells[0].host_cell].cpus)
    assert mixed.demand({"VCPU": 4}) == {"VCPU": 2, "PCPU": 3}


def test_mixed_guests_float_where_cpus_are_shared():
    found = fitted(asked(4, cpu_policy="mixed", cpu_dedicated_mask="2-3"))
    [cell] = found.cells
    assert (set(cell.pins), cell.floats, cell.host_cell) == ({2, 3}, (0, 1), 0)
    assert misfit(asked(3, numa_nodes="1")) == "has 2 shared CPUs in a NUMA node, 3 asked"


def test_pages():
    large = fitted(asked(1, 1024, mem_page_size="large"), host(dedicated=()))
    assert (large.cells[0].page_kib, units_taken(large, ())) == (1048576, {"pages 0 1048576": 1})
    assert fitted(asked(1, 1026, mem_page_size="large"), host(dedicated=())).cells[0].page_kib == 2048
    assert fitted(asked(1, 1026, mem_page_size="any"), host(PLAIN, (), ())).cells[0].page_kib == 4
    assert misfit(asked(1, 4096, mem_page_size="2MB")) == "has 1024 pages of 2048 KiB free in a NUMA node, 2048 asked"
    assert misfit(asked(1, 1, mem_page_size="2MB")) == "has pages of 2048 KiB, of which 1 MB is no multiple"
    assert misfit(asked(1, mem_page_size="16MB")) == "has no pages of 16384 KiB"
    assert misfit(asked(1, 8192, numa_nodes="1")) == "has 4096 MB free in a NUMA node, 8192 asked"


def test_devices_are_given_once_and_near():
    found = fitted(asked(alias="gpu:2"))
    assert [it.address for it in found.devices] == ["0000:81:00.0", "0000:82:00.0"]
    assert found.cells == ()
    assert misfit(asked(alias="gpu:3")) == "has 2 PCI devices of the alias gpu free, 3 asked"
    near = asked(cpu_policy="dedicated", alias="gpu:1", pci_numa_affinity_policy="required")
    assert fitted(near).cells[0].host_cell == 1
    taken = [cpu_unit(cpu) for cpu in range(8, 16)]
    assert misfit(near, without=taken).startswith("has 0 PCI devices of the alias gpu near")
    preferred = asked(cpu_policy="dedicated", alias="gpu:1", pci_numa_affinity_policy="preferred")
    assert fitted(preferred, without=taken).cells[0].host_cell == 0
    legacy = fitted(asked(cpu_policy="dedicated", alias="gpu:1"), without=taken)
    assert (legacy.cells[0].host_cell, legacy.devices[0].address) == (0, "0000:82:00.0")


def test_a_physical_function_is_free_if_its_virtual_ones_are():
    assert fitted(asked(alias="card:1")).devices[0].address == "0000:01:00.0"
    assert "alias card" in misfit(asked(alias="card:1"), without=["pci 0000:01:10.0"])
    assert fitted(asked(alias="virtual:1")).devices[0].address == "0000:01:10.0"
    assert "alias card" in misfit(asked(alias="virtual:1, card:1"))


def test_without_devices_nodes_that_are_near_to_some_are_kept_free():
    cells = (*NODES, HostCell(id=2, cpus=(16, 17, 18), memory_mb=4096))
    assert fitted(asked(2, cpu_policy="dedicated"), host(cells, range(2, 19))).cells[0].host_cell == 2


CELLS = st.lists(
    st.builds(
        lambda cores, threads, memory, pages: (cores, threads, memory, pages),
        st.integers(1, 4),
        st.integers(1, 2),
        st.sampled_from([256, 1024, 4096]),
        st.sampled_from([{}, {2048: 64}, {2048: 512, 1048576: 1}]),
    ),
    min_size=1,
    max_size=4,
)
WISHES = st.fixed_dictionaries(
    {"vcpus": st.sampled_from([2, 4]), "memory_mb": st.sampled_from([128, 512])},
    optional={
        "cpu_policy": st.just("dedicated"),
        "numa_nodes": st.sampled_from(["1", "2"]),
        "mem_page_size": st.sampled_from(["small", "large", "any", "2MB"]),
        "alias": st.sampled_from(["gpu:1", "gpu:2", "card:1, virtual:1", "virtual:1"]),
        "pci_numa_affinity_policy": st.sampled_from(["legacy", "required", "preferred", "socket"]),
    },
)


def cells_of(some):
    found, first = [], 0
    for id, (cores, threads, memory_mb, pages) in enumerate(some):
        cpus = tuple(range(first, first + cores * threads))
        siblings = tuple(cpus[n : n + threads] for n in range(0, len(cpus), threads)) if threads > 1 else ()
        found.append(HostCell(id=id, cpus=cpus, siblings=siblings, memory_mb=memory_mb, pages=pages, socket=id // 2))
        first += cores * threads
    return tuple(found)


@settings(max_examples=300, deadline=None)
@given(CELLS, st.integers(0, 4), st.lists(WISHES, min_size=1, max_size=6), st.data())
def test_what_fits_is_there_and_nobodys_else(some, shared, wishes, data):
    cells = cells_of(some)
    cpus = [cpu for cell in cells for cpu in cell.cpus]
    facts = host(cells, cpus[shared:])
    free = there(facts)
    for wish in wishes:
        policies = {}
        if wish.get("cpu_policy"):
            policies["cpu_thread_policy"] = data.draw(st.sampled_from(["prefer", "require", "isolate"]))
            policies["emulator_threads_policy"] = data.draw(st.sampled_from(["share", "isolate"]))
        hardware = asked(**wish, **policies)
        found = fit(hardware, facts, free) if hardware else None
        if not isinstance(found, Topology):
            continue
        for unit, amount in units_taken(found, facts.devices).items():
            assert free.get(unit, 0) >= amount
            free[unit] -= amount
        assert [cell.cpus for cell in found.cells] == [cell.cpus for cell in hardware.cells]
        assert len({cell.host_cell for cell in found.cells}) == len(found.cells)
        for cell in found.cells:
            assert set(cell.pins.values()) <= {*cells[cell.host_cell].cpus} & {*facts.dedicated_cpus}
            assert not {*cell.floats} & {*facts.dedicated_cpus}
            assert len(set(cell.pins.values())) == len(cell.pins)


@settings(max_examples=200, deadline=None)
@given(CELLS, WISHES)
def test_an_empty_host_that_fits_nobody_has_a_reason(some, wish):
    hardware = asked(**wish)
    found = fit(hardware, host(cells_of(some), (), ()), {}) if hardware else None
    assert found is None or (isinstance(found, Misfit) and found.why.startswith("has "))


def test_what_is_wanted_can_be_a_key():
    assert isinstance(hash(asked(cpu_policy="dedicated", alias="gpu:1")), int)
    assert isinstance(asked(alias="gpu:1"), Hardware)
