"""Weighers: what each prefers, what aggregates say to it, and that a ranking that is kept is as good as a new one."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.config import ConfigurationError
from bus.config import Scheduler as Settings
from handlers.placement.answer import Placement
from handlers.placement.demand import Group
from handlers.placement.weighers import BUILT_IN
from schema.compute.domain import HostFacts
from schema.placement.provider import ResourcesReleased
from tests.placement.clouds import Cloud, cloud_of, server


def only(*names, **weights):
    return Settings(weighers=names, **weights)


def test_all_of_novas_weighers_are_there_and_chosen():
    novas = {
        "RAM",
        "CPU",
        "Disk",
        "Metrics",
        "IoOps",
        "PCI",
        "ServerGroupSoftAffinity",
        "ServerGroupSoftAntiAffinity",
        "BuildFailure",
        "CrossCell",
        "HypervisorVersion",
        "NumInstances",
        "ImageProperties",
    }
    assert set(BUILT_IN) == set(Settings().weighers) == novas


@pytest.mark.parametrize("name, size", [("RAM", "memory_mb"), ("CPU", "vcpus"), ("Disk", "disk_gb")])
def test_free_capacity(name, size):
    cloud = Cloud(only(name))
    cloud.host("h1")
    cloud.host("h2", **{size: 8192})
    assert cloud.where("c1") == "h2"
    cloud = Cloud(only(f"{name}Weigher", **{f"{name.lower()}_weight": -1.0}))
    cloud.host("h1")
    cloud.host("h2", **{size: 8192})
    assert cloud.where("c1") == "h1"


def test_an_aggregate_turns_a_weigher_round_for_its_hosts():
    cloud = Cloud(only("RAM"))
    for name, memory_mb in (("h1", 8192), ("h2", 4096), ("h3", 2048)):
        cloud.host(name, memory_mb=memory_mb)
    cloud.aggregate("a", ("h1", "h2", "h3"), ram_weight_multiplier="-2")
    assert cloud.where("c1") == "h3"
    cloud.aggregate("a", ("h1",), ram_weight_multiplier="-2")
    assert cloud.where("c2") == "h2"


def test_of_several_multipliers_the_smallest_counts_and_words_count_nothing():
    cloud = Cloud(only("RAM"))
    cloud.host("h1", memory_mb=8192)
    cloud.host("h2", memory_mb=4096)
    cloud.aggregate("a", ("h1",), ram_weight_multiplier="much")
    assert cloud.where("c1") == "h1"
    cloud.aggregate("b", ("h1",), ram_weight_multiplier="5")
    cloud.aggregate("c", ("h1",), ram_weight_multiplier="0.1")
    assert cloud.where("c2") == "h2"


def test_newer_hypervisors_first():
    cloud = Cloud(only("HypervisorVersion"))
    cloud.host("h1", facts=HostFacts(hypervisor_type="QEMU", hypervisor_version=6_000_000))
    cloud.host("h2", facts=HostFacts(hypervisor_type="QEMU", hypervisor_version=8_000_000))
    assert [cloud.where(f"c{n}") for n in range(3)] == ["h2"] * 3


def test_few_servers_at_work_first():
    cloud = cloud_of("h1", "h2", settings=only("IoOps", io_ops_weight=-1))
    for number in range(2):
        cloud.scheduler.work_on(f"b{number}", "h1")
    assert [cloud.where(f"c{n}") for n in range(2)] == ["h2", "h2"]
    for number in range(2):
        cloud.scheduler.work_on(f"b{number}", None)
    assert cloud.where("c3") == "h1"


def test_few_servers_first():
    cloud = cloud_of("h1", "h2", settings=only("NumInstances", num_instances_weight=-1))
    assert Counter(cloud.where(f"c{n}") for n in range(4)) == {"h1": 2, "h2": 2}
    cloud = cloud_of("h1", "h2", settings=only("NumInstances", num_instances_weight=1))
    assert set(Counter(cloud.where(f"c{n}") for n in range(4)).values()) == {4}


def test_soft_policies_outweigh_capacity():
    cloud = cloud_of("h1", "h2", "h3", vcpus=8)
    together = Group(id="g", policy="soft-affinity")
    answers = cloud.ask(*(server(f"c{n}", group=together) for n in range(6)))
    assert set(Counter(it.host for it in answers).values()) == {6}
    apart = Group(id="h", policy="soft-anti-affinity")
    answers = cloud.ask(*(server(f"d{n}", group=apart) for n in range(6)))
    assert set(Counter(it.host for it in answers).values()) == {2}


def test_the_best_are_told_with_what_each_weigher_said():
    cloud = cloud_of("h1", "h2", "h3", "h4", "h5", "h6", "h7")
    [answer] = cloud.ask(server("c"))
    first, *others = answer.decision.best
    assert (first.host, first.weights) == (answer.host, {"RAM": 1.0, "CPU": 1.0, "Disk": 1.0})
    assert len(others) == 2
    assert all(it.weight == first.weight == 3.0 for it in others)


def test_few_rankings_are_kept_and_those_in_use(monkeypatch):
    monkeypatch.setattr("handlers.placement.choice.RANKED", 6)
    cloud = cloud_of("h1", "h2", vcpus=8)
    hosts = [cloud.where(f"c{n}", resources={"VCPU": 1, "MEMORY_MB": 1 + n % 5}) for n in range(16)]
    assert Counter(hosts) == {"h1": 8, "h2": 8}
    assert cloud.where("more", resources={"VCPU": 1}) is None
    assert cloud.scheduler._choices.rankings == 3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from(["ask", "ask", "claim", "release", "forget"]), st.integers(0, 9)), max_size=40),
)
def test_the_kept_ranking_always_gives_the_emptiest_host_that_fits(sizes, steps):
    """By one weigher, so that what is best is known without it."""
    cloud = Cloud(only("CPU"))
    for number, total in enumerate(sizes):
        cloud.host(f"h{number}", vcpus=total)
    picks, claims = {}, {}
    for step, number in steps:
        consumer, resources = f"c{number}", {"VCPU": 1}
        if step == "ask" and consumer not in claims:
            cloud.scheduler.forget(consumer)
            most = max(cloud.index.free["VCPU"])
            [answer] = cloud.ask(server(consumer, resources=resources))
            assert isinstance(answer, Placement) == (most > 0)
            if most > 0:
                picks[consumer] = answer.host
                assert cloud.index.free["VCPU"][int(answer.host[1:])] == most - 1
            else:
                picks.pop(consumer, None)
        elif step == "claim" and consumer in picks:
            claims[consumer] = picks.pop(consumer)
            cloud.claimed(claims[consumer], consumer, resources)
        elif step == "release" and consumer in claims:
            cloud.happens(claims.pop(consumer), ResourcesReleased(consumer_id=consumer))
        elif step == "forget" and consumer in picks:
            picks.pop(consumer)
            cloud.scheduler.forget(consumer)


def test_hosts_that_are_less_busy():
    cloud = Cloud(only("Metrics", metrics={"cpu.percent": "-1", "cpu.iowait.percent": "-2"}))
    for name in ("h1", "h2", "h3"):
        cloud.host(name)
    cloud.scheduler.measured("h1", {"cpu.percent": 0.9, "cpu.iowait.percent": 0.0})
    cloud.scheduler.measured("h2", {"cpu.percent": 0.2, "cpu.iowait.percent": 0.1})
    assert [cloud.where(f"c{n}") for n in range(2)] == ["h2", "h2"]
    cloud.scheduler.measured("h1", {"cpu.percent": 0.1, "cpu.iowait.percent": 0.0})
    assert cloud.where("c3") == "h1"
    cloud.aggregate("a", ("h1", "h2", "h3"), metrics_weight_multiplier="-1")
    assert cloud.where("c4") == "h3"
    with pytest.raises(ConfigurationError, match="each metric needs a number"):
        Cloud(only("Metrics", metrics={"cpu.percent": "much"}))


def test_without_metrics_to_weigh_nothing_is_weighed():
    cloud = Cloud(only("Metrics", "RAM"))
    cloud.host("h1")
    cloud.host("h2", memory_mb=8192)
    cloud.scheduler.measured("h1", {"cpu.percent": 0.1})
    cloud.scheduler.measured("nobody", {"cpu.percent": 0.1})
    assert cloud.where("c1") == "h2"


WINDOWS, LINUX = {"os_type": "windows", "hw_firmware_type": "uefi"}, {"os_type": "linux"}


def test_servers_of_like_images_come_together_or_apart():
    cloud = cloud_of("h1", "h2", settings=only("ImageProperties", image_props_weight=1), vcpus=50, memory_mb=99_999)
    first = {cloud.where("w0", image_properties=WINDOWS)}
    assert {cloud.where(f"w{n}", image_properties=WINDOWS) for n in range(1, 9)} == first
    apart = only("ImagePropertiesWeigher", image_props_weight=-1)
    cloud = cloud_of("h1", "h2", settings=apart, vcpus=50, memory_mb=99_999)
    assert Counter(cloud.where(f"w{n}", image_properties=WINDOWS) for n in range(8)) == {"h1": 4, "h2": 4}


def test_a_property_counts_as_the_setting_says():
    weights = {"os_type": "1", "hw_firmware_type": "0"}
    cloud = cloud_of(
        "h1", "h2", settings=only("ImageProperties", image_props_weight=2, image_props_weight_setting=weights)
    )
    for number in range(3):
        cloud.claimed("h1", f"u{number}")
        cloud.scheduler.made_from(f"u{number}", {"hw_firmware_type": "uefi", "os_type": "linux"})
    cloud.claimed("h2", "w")
    cloud.scheduler.made_from("w", WINDOWS)
    [answer] = cloud.ask(server("c", image_properties=WINDOWS))
    assert answer.decision.best[0].host == "h2"
    assert answer.decision.best[0].weights == {"ImageProperties": 2.0}
    with pytest.raises(ConfigurationError, match="each property needs a number"):
        Cloud(only("ImageProperties", image_props_weight=1, image_props_weight_setting={"os_type": "much"}))


def test_an_aggregate_says_what_like_images_count_for_its_hosts():
    cloud = cloud_of("h1", "h2", "h3", settings=only("ImageProperties", image_props_weight=1))
    cloud.aggregate("a", ("h1",), image_props_weight_multiplier="-1")
    for name in ("h1", "h2"):
        cloud.claimed(name, f"on-{name}")
        cloud.scheduler.made_from(f"on-{name}", LINUX)
    best = cloud.ask(server("c", image_properties=LINUX))[0].decision.best
    assert [it.host for it in best] == ["h2", "h3", "h1"]


def test_what_weighs_nothing_is_not_counted():
    for settings_ in (Settings(), only("RAM", image_props_weight=1)):
        cloud = cloud_of("h1", "h2", settings=settings_)
        cloud.aggregate("a", ("h1",), image_props_weight_multiplier="5")
        cloud.claimed("h1", "u")
        cloud.scheduler.made_from("u", LINUX)
        assert not cloud.index.images.on
        assert cloud.where("c", image_properties=LINUX) == "h2"


def test_a_dry_run_leaves_nothing_counted():
    cloud = cloud_of("h1", "h2", settings=only("ImageProperties", image_props_weight=1))
    cloud.scheduler.consider([server("d", image_properties=LINUX)])
    assert [cloud.index.images.weight(slot, LINUX) for slot in range(2)] == [0, 0]
    assert not cloud.index.images._properties


def test_with_one_cell_crossing_cells_weighs_nothing():
    cloud = Cloud(only("CrossCellWeigher", "RAM", cross_cell_move_weight=1e6))
    cloud.host("h1")
    cloud.host("h2", memory_mb=8192)
    cloud.aggregate("a", ("h1",), cross_cell_move_weight_multiplier="1e9")
    [answer] = cloud.ask(server("c"))
    assert answer.host == "h2"
    assert answer.decision.best[0].weights == {"RAM": 1.0}


STEPS = st.sampled_from(["pick", "claim", "release", "forget", "image", "gone"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(0, 4), st.integers(0, 2)), max_size=50))
def test_what_is_counted_is_what_a_look_at_every_server_finds(steps):
    """Whatever comes first: the claim, the pick, or the word about the image."""
    images = (LINUX, WINDOWS, {})
    cloud = cloud_of("h0", "h1", settings=only("ImageProperties", image_props_weight=1), vcpus=99, memory_mb=99_999)
    made = {}
    for step, number, which in steps:
        consumer = f"c{number}"
        match step:
            case "pick":
                cloud.where(consumer, image_properties=images[which])
                made[consumer] = images[which]
            case "claim":
                if not any(consumer in it.state.claims for it in cloud.providers.values()):
                    cloud.claimed(f"h{which % 2}", consumer)
            case "release":
                cloud.happens(f"h{which % 2}", ResourcesReleased(consumer_id=consumer))
            case "forget":
                cloud.scheduler.forget(consumer)
            case "image":
                cloud.scheduler.made_from(consumer, images[which])
                made[consumer] = images[which]
            case "gone":
                cloud.scheduler.made_from(consumer, None)
                made.pop(consumer, None)
    for slot in cloud.index.slots:
        there = [*slot.picks, *slot.provider.claims]
        for name, value in (*LINUX.items(), *WINDOWS.items()):
            expected = sum(made.get(it, {}).get(name) == value for it in there)
            assert cloud.index.images.weight(cloud.index._slot(slot.provider_id), {name: value}) == expected
