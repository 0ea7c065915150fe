"""Servers that want hardware for themselves, in the scheduler: theirs alone, or why not and what would help."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.config import Scheduler as Settings
from handlers.placement.answer import NoValidHost, Placement, told
from handlers.placement.hardware import PREFERRED
from handlers.placement.wishes import wanted
from schema.compute.domain import HostFacts
from schema.compute.topology import HostCell, HostDevice, units_taken
from schema.placement.provider import Inventory, ResourcesReleased
from tests.placement.clouds import Cloud, server
from tests.placement.test_remedy import fits_then, story

CELLS = (
    HostCell(id=0, cpus=(0, 1, 2, 3), memory_mb=2048, pages={2048: 256}),
    HostCell(id=1, cpus=(4, 5, 6, 7), memory_mb=2048, socket=1),
)
GPU = HostDevice(address="0000:81:00.0", vendor_id="10de", product_id="1eb8", cell=1)
PINNED = {"hw:cpu_policy": "dedicated"}


def facts(cells=CELLS, dedicated=(2, 3, 6, 7), devices=(GPU,)):
    return HostFacts(
        hypervisor_type="QEMU", arch="x86_64", cells=cells, dedicated_cpus=tuple(dedicated), devices=devices
    )


def inventories(it):
    offered = {
        "VCPU": Inventory(total=16),
        "MEMORY_MB": Inventory(total=8192),
        "DISK_GB": Inventory(total=100),
        "PCPU": Inventory(total=len(it.dedicated_cpus)),
        "CUSTOM_PCI_10DE_1EB8": Inventory(total=len(it.devices)),
    }
    return {name: inventory for name, inventory in offered.items() if inventory.total}


def cloud_with(**hosts):
    cloud = Cloud(pci_aliases={"gpu": "10de:1eb8"})
    for name, its in hosts.items():
        cloud.host(name, facts=its, inventories=inventories(its))
    return cloud


def asking(consumer="c", vcpus=2, memory_mb=512, **specs):
    said = {f"hw:{key}": value for key, value in specs.items() if key != "alias"}
    if "alias" in specs:
        said["pci_passthrough:alias"] = specs["alias"]
    resources = {"VCPU": vcpus, "MEMORY_MB": memory_mb}
    return server(consumer, resources=resources, hardware=wanted(vcpus, memory_mb, said, {}), extra_specs=said)


def pinned(consumer="c", vcpus=2, **specs):
    return asking(consumer, vcpus, cpu_policy="dedicated", **specs)


def claims(cloud, answer):
    cloud.claimed(answer.host, answer.consumer_id, answer.resources, answer.units)


def test_each_pick_has_cpus_of_its_own():
    cloud = cloud_with(h1=facts())
    one, two, three = cloud.ask(pinned("c1"), pinned("c2"), pinned("c3"))
    assert (one.resources, one.units.keys() & two.units.keys()) == ({"PCPU": 2, "MEMORY_MB": 512}, set())
    assert isinstance(three, NoValidHost)
    claims(cloud, one)
    claims(cloud, two)
    assert isinstance(cloud.ask(pinned("c4"))[0], NoValidHost)
    cloud.happens("h1", ResourcesReleased(consumer_id="c1"))
    [again] = cloud.ask(pinned("c4"))
    assert again.units == one.units
    cloud.scheduler.forget("c4")
    assert cloud.ask(pinned("c5"))[0].units == one.units


def test_the_last_device_is_one_servers():
    cloud = cloud_with(h1=facts(), h2=facts())
    answers = cloud.ask(*(asking(f"c{n}", alias="gpu:1") for n in range(3)))
    assert {it.host for it in answers[:2]} == {"h1", "h2"}
    assert answers[0].resources["CUSTOM_PCI_10DE_1EB8"] == 1
    assert answers[0].topology.devices[0].alias == "gpu"
    assert answers[2].rejected["PciPassthrough"] == 2
    assert answers[2].decision.reasons[0].why == "has 0 PCI devices of the alias gpu free, 1 asked"


def test_others_go_on_as_if_nothing_were():
    cloud = cloud_with(h1=facts())
    [answer] = cloud.ask(server("c"))
    assert (answer.topology, answer.units) == (None, {})


def test_a_kept_ranking_sees_what_is_given_back():
    cloud = cloud_with(h1=facts(), h2=facts())
    answers = [cloud.ask(pinned(f"c{n}"))[0] for n in range(5)]
    assert [isinstance(it, Placement) for it in answers] == [True] * 4 + [False]
    cloud.scheduler.forget("c2")
    assert cloud.ask(pinned("c9"))[0].host == answers[2].host


def test_a_dry_run_holds_nothing():
    cloud = cloud_with(h1=facts())
    for _ in range(3):
        assert len(cloud.scheduler.consider([pinned("d1"), pinned("d2")])) == 2
    assert isinstance(cloud.ask(pinned("c", 2))[0], Placement)


def test_an_alias_nobody_defined_is_nowhere():
    [answer] = cloud_with(h1=facts()).ask(asking(alias="fpga:1"))
    assert answer.reason.endswith("1 have too few of the PCI devices free that are asked for.")


# Why not, and what would help


def test_cpus_that_others_have():
    cloud = cloud_with(h1=facts(devices=()))
    claims(cloud, cloud.ask(pinned("c1", 1))[0])
    claims(cloud, cloud.ask(pinned("c2", 2))[0])
    [answer] = cloud.ask(pinned())
    assert [it.why for it in answer.decision.reasons] == ["has 1 dedicated CPUs free in a NUMA node, 2 asked"]
    words = story(cloud, pinned())
    assert words == (
        "It would have fitted with CPU 2 of host h1 given back by those who have them and 1 more PCPU on host h1."
    )


def test_cpus_that_are_shared():
    cloud = cloud_with(h1=facts(dedicated=(2, 3), devices=()))
    words = story(cloud, pinned(vcpus=4))
    assert words == "It would have fitted with CPUs 0-1 of host h1 dedicated and 2 more PCPU on host h1."


def test_pages_and_memory():
    cloud = cloud_with(h1=facts())
    words = story(cloud, asking(memory_mb=1024, mem_page_size="2MB"))
    assert words == "It would have fitted with 256 more pages of 2048 KiB free in NUMA node 0 of host h1."
    words = story(cloud_with(h1=facts()), asking(memory_mb=3072, numa_nodes="1"))
    assert words == "It would have fitted with 1024 more MB of memory free in NUMA node 0 of host h1."


def test_a_device_somebody_has():
    cloud = cloud_with(h1=facts())
    claims(cloud, cloud.ask(asking("c1", alias="gpu:1"))[0])
    words = story(cloud, asking(alias="gpu:1"))
    assert words == (
        "It would have fitted with PCI device 0000:81:00.0 of host h1 given back by those who have them "
        "and 1 more CUSTOM_PCI_10DE_1EB8 on host h1."
    )


def test_devices_that_are_not_near_enough():
    far = replace(GPU, cell=None)
    cloud = cloud_with(h1=facts(devices=(far,)))
    request = pinned(alias="gpu:1", pci_numa_affinity_policy="required")
    [answer] = cloud.ask(request)
    assert answer.rejected == {"NUMATopology": 1}
    assert "near the guest's NUMA nodes" in answer.decision.reasons[0].why
    words = "It would have fitted with PCI devices preferred near the guest's NUMA nodes, not required."
    assert story(cloud, request) == words
    assert request.hardware.without("nearness").devices[0].policy == PREFERRED


def test_what_no_host_can_have():
    cloud = cloud_with(h1=facts())
    assert story(cloud, asking(mem_page_size="1GB", memory_mb=1024)) == (
        "It would have fitted with a flavor and an image without a memory page size."
    )
    words = story(cloud, asking(vcpus=3, memory_mb=768, numa_nodes="3"))
    assert "ask for no NUMA nodes" in words


HOSTS = st.builds(
    facts,
    cells=st.sampled_from([(), CELLS[:1], CELLS]),
    dedicated=st.sampled_from([(), (2, 3), (2, 3, 6, 7), range(8)]),
    devices=st.sampled_from([(), (GPU,), (GPU, replace(GPU, address="0000:01:00.0", cell=0))]),
)
WISHES = st.fixed_dictionaries(
    {"vcpus": st.sampled_from([1, 2, 4]), "memory_mb": st.sampled_from([512, 1024, 4096])},
    optional={
        "cpu_policy": st.just("dedicated"),
        "mem_page_size": st.sampled_from(["large", "any", "2MB", "1GB"]),
        "alias": st.sampled_from(["gpu:1", "gpu:2"]),
        "pci_numa_affinity_policy": st.sampled_from(["required", "preferred", "socket"]),
    },
)
PREPARED = st.lists(WISHES, max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.lists(HOSTS, min_size=1, max_size=3), PREPARED, WISHES, st.sampled_from(["", "1", "2"]))
def test_the_change_that_is_named_always_helps(hosts, before, wish, nodes):
    hosts = [replace(it, dedicated_cpus=it.dedicated_cpus if it.cells else ()) for it in hosts]
    cloud = cloud_with(**{f"h{n}": it for n, it in enumerate(hosts)})
    for number, it in enumerate(before):
        [answer] = cloud.ask(asking(f"o{number}", **it))
        if isinstance(answer, Placement):
            claims(cloud, answer)
            held = cloud.providers[f"p-{answer.host}"].state
            for unit in units_taken(answer.topology, ()) if answer.topology else ():
                assert sum(its.get(unit, 0) for its in held.held.values()) <= held.units[unit]
    if nodes and wish["vcpus"] >= int(nodes):
        wish = {**wish, "numa_nodes": nodes}
    request = asking(**wish)
    [answer] = cloud.ask(request)
    if isinstance(answer, NoValidHost):
        assert answer.decision.remedy
        assert fits_then(cloud, request), told(answer.decision.remedy)


def test_servers_without_devices_keep_away_from_them():
    cloud = Cloud(Settings(weighers=("PCI",), pci_aliases={"gpu": "10de:1eb8"}))
    two = facts(devices=(GPU, replace(GPU, address="0000:82:00.0")))
    for name, its in {"h1": facts(), "h2": two, "h3": facts(devices=())}.items():
        cloud.host(name, facts=its, inventories=inventories(its))
    assert cloud.where("c1") == "h3"
    assert [cloud.ask(asking(f"d{n}", alias="gpu:1"))[0].host for n in range(3)].count("h2") == 2
    for number in range(3):
        cloud.scheduler.forget(f"d{number}")
    cloud.aggregate("a", ("h1", "h2", "h3"), pci_weight_multiplier="-1")
    assert cloud.where("c2") in {"h1", "h2"}
