"""Weighers: what each prefers, what aggregates say to it, and that a ranking that is kept is as good as a new one."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.config import ConfigurationError
from bus.config import Scheduler as Settings
from handlers.placement.answer import Placement
from handlers.placement.demand import Group
from schema.compute.domain import HostFacts
from schema.placement.provider import ResourcesReleased
from tests.placement.clouds import Cloud, cloud_of, server


def only(*names, **weights):
    return Settings(weighers=names, **weights)


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
