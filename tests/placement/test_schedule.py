"""The scheduler: who goes where, evenly, within limits, and why not when not."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bus import clock
from bus.config import Scheduler as Weights
from handlers.placement.answer import NoValidHost, Placement
from handlers.placement.capacity import PICK_SECONDS
from handlers.placement.demand import Group, demanded, matches
from schema.compute.domain import HostFacts
from schema.placement.provider import Inventory, ResourcesReleased
from tests.placement.clouds import Cloud, cloud_of, server


def test_a_batch_is_spread_evenly():
    cloud = cloud_of("h1", "h2", "h3", "h4")
    answers = cloud.ask(*(server(f"c{n}") for n in range(12)))
    assert Counter(answer.host for answer in answers) == {"h1": 3, "h2": 3, "h3": 3, "h4": 3}


def test_requests_one_by_one_are_spread_too_before_any_claim_shows():
    cloud = cloud_of("h1", "h2", "h3")
    assert Counter(cloud.where(f"c{n}") for n in range(6)) == {"h1": 2, "h2": 2, "h3": 2}


def test_negative_weights_pack():
    cloud = Cloud(Weights(ram_weight=-1, cpu_weight=-1, disk_weight=-1))
    for name in ("h1", "h2"):
        cloud.host(name, vcpus=3)
    hosts = [cloud.where(f"c{n}") for n in range(6)]
    assert len(set(hosts[:3])) == 1
    assert Counter(hosts) == {"h1": 3, "h2": 3}


def test_a_batch_never_exceeds_what_is_there():
    cloud = cloud_of("h1", "h2", vcpus=2)
    answers = cloud.ask(*(server(f"c{n}") for n in range(6)))
    assert [type(answer) for answer in answers] == [Placement] * 4 + [NoValidHost] * 2
    assert answers[-1].reason == (
        "No valid host was found. Of 2 hosts, 2 have too little VCPU free (1 asked, 0 left at most)."
    )
    assert answers[-1].rejected == {"VCPU": 2}


def test_a_claim_takes_the_place_of_its_pick():
    cloud = cloud_of("h1", vcpus=2)
    assert cloud.where("c1") == "h1"
    cloud.claimed("h1", "c1")
    assert cloud.where("c2") == "h1"
    assert cloud.where("c3") is None
    cloud.happens("h1", ResourcesReleased(consumer_id="c1"))
    assert cloud.where("c3") == "h1"


def test_a_forgotten_pick_is_free_again():
    cloud = cloud_of("h1", vcpus=1)
    assert cloud.where("c1") == "h1"
    assert cloud.where("c2") is None
    cloud.scheduler.forget("c1")
    assert cloud.where("c2") == "h1"


def test_a_pick_nobody_claims_is_forgotten():
    seconds = 0.0
    real = clock.use(clock.SeededClock(1, lambda: seconds))
    try:
        cloud = cloud_of("h1", vcpus=1)
        assert cloud.where("c1") == "h1"
        assert cloud.where("c2") is None
        seconds = PICK_SECONDS + 1.0
        assert cloud.where("c2") == "h1"
    finally:
        clock.use(real)


def test_asking_again_for_the_same_server_counts_once():
    cloud = cloud_of("h1", vcpus=1)
    assert [cloud.where("c1"), cloud.where("c1")] == ["h1", "h1"]


def test_no_hosts_at_all():
    assert "no hypervisor host yet" in Cloud().ask(server("c"))[0].reason


@pytest.mark.parametrize("change", [{"up": False}, {"enabled": False}, {"forced_down": True}])
def test_hosts_that_cannot_be_used_are_left_alone(change):
    cloud = cloud_of("h1", "h2")
    cloud.change(replace(cloud.hosts["h1"].state, **change))
    assert {cloud.where(f"c{n}") for n in range(4)} == {"h2"}
    cloud.change(replace(cloud.hosts["h2"].state, **change))
    [answer] = cloud.ask(server("c"))
    assert answer.rejected == {"Compute": 2}
    assert "Of 2 hosts, 2 are down or disabled" in answer.reason


def test_an_operator_may_force_a_disabled_host_but_not_a_dead_one():
    cloud = cloud_of("h1", "h2")
    cloud.change(replace(cloud.hosts["h1"].state, enabled=False))
    assert cloud.where(host="h1") is None
    assert cloud.where(host="h1", forced=True) == "h1"
    cloud.change(replace(cloud.hosts["h1"].state, up=False))
    assert cloud.where(host="h1", forced=True) is None


def test_zones():
    cloud = cloud_of("h1")
    cloud.host("h2", zones={"1": "north"})
    assert cloud.where(zone="north") == "h2"
    assert cloud.where(zone="nova") == "h1"
    [answer] = cloud.ask(server("c", zone="south"))
    assert answer.reason.endswith("2 are not in the availability zone south.")


def test_a_host_asked_for_by_name():
    cloud = cloud_of("h1", "h2")
    assert cloud.where(host="h2") == "h2"
    assert cloud.where(host="nowhere") is None


def test_traits():
    cloud = cloud_of("h1")
    cloud.host("h2", traits=("CUSTOM_FAST",))
    assert cloud.where(extra_specs={"trait:CUSTOM_FAST": "required"}) == "h2"
    assert cloud.where(extra_specs={"trait:CUSTOM_FAST": "forbidden"}) == "h1"
    assert cloud.where(image_properties={"trait:CUSTOM_FAST": "required"}) == "h2"
    assert cloud.where(extra_specs={"trait:CUSTOM_SLOW": "required"}) is None


def test_images_run_where_they_can():
    cloud = cloud_of("h1")
    cloud.host("h2", facts=HostFacts(hypervisor_type="Xen", arch="aarch64"))
    assert cloud.where(image_properties={"hw_architecture": "aarch64"}) == "h2"
    assert cloud.where(image_properties={"img_hv_type": "xen"}) == "h2"
    assert cloud.where(image_properties={"hypervisor_type": "kvm"}) == "h1"
    assert cloud.where(image_properties={"hw_architecture": "s390x"}) is None


def test_capabilities():
    cloud = cloud_of("h1")
    assert cloud.where(extra_specs={"capabilities:cpu_info:vendor": "Intel"}) == "h1"
    assert cloud.where(extra_specs={"capabilities:cpu_info:vendor": "<or> AMD <or> Arm"}) is None
    assert cloud.where(extra_specs={"capabilities:no_such_thing": "1"}) is None
    assert cloud.where(extra_specs={"hide_hypervisor_id": "true"}) == "h1"


def test_aggregates():
    cloud = cloud_of("h1", "h2", "h3")
    cloud.aggregate("ssd", ("h2",), disk="ssd,nvme")
    cloud.aggregate("ours", ("h3",), filter_tenant_id="us, them")
    assert cloud.where(extra_specs={"aggregate_instance_extra_specs:disk": "ssd"}) == "h2"
    assert {cloud.where(f"c{n}", project_id="others") for n in range(6)} == {"h1", "h2"}
    assert "h3" in {cloud.where(f"d{n}", project_id="them") for n in range(6)}


def test_sizes_a_host_does_not_give():
    cloud = Cloud()
    cloud.host(
        "h1", inventories={"VCPU": Inventory(total=8, max_unit=2), "CUSTOM_GPU": Inventory(total=8, step_size=4)}
    )
    assert cloud.where(resources={"VCPU": 2, "CUSTOM_GPU": 4}) == "h1"
    assert cloud.where(resources={"VCPU": 3}) is None
    assert cloud.where(resources={"VCPU": 1, "CUSTOM_GPU": 2}) is None
    assert cloud.where(resources={"CUSTOM_NONE": 1}) is None


def test_hosts_of_other_servers():
    cloud = cloud_of("h1", "h2")
    cloud.claimed("h1", "other")
    assert {cloud.where(f"s{n}", same_host=("other",)) for n in range(2)} == {"h1"}
    assert {cloud.where(f"d{n}", different_host=("other",)) for n in range(2)} == {"h2"}
    assert cloud.where(same_host=("unknown",)) is None


def test_hosts_that_were_tried_are_not_tried_again():
    cloud = cloud_of("h1", "h2")
    assert cloud.where(tried=frozenset({"h1"})) == "h2"
    [answer] = cloud.ask(server("c", tried=frozenset({"h1", "h2"})))
    assert answer.rejected == {"Retry": 2}


def test_servers_with_ports_go_where_somebody_wires_them():
    cloud = cloud_of("h1", "h2")
    assert cloud.where(cut_off=frozenset({"h1"})) == "h2"
    [answer] = cloud.ask(server("c", tried=frozenset({"h2"}), cut_off=frozenset({"h1"})))
    assert answer.rejected == {"Retry": 1, "Network": 1}


def test_anti_affinity_holds_within_a_batch():
    cloud = cloud_of("h1", "h2", "h3")
    group = Group(id="g", policy="anti-affinity")
    answers = cloud.ask(*(server(f"c{n}", group=group) for n in range(4)))
    assert sorted(answer.host for answer in answers[:3]) == ["h1", "h2", "h3"]
    assert answers[3].rejected == {"ServerGroupAntiAffinity": 3}
    two = Group(id="g2", policy="anti-affinity", max_per_host=2)
    answers = cloud.ask(*(server(f"d{n}", group=two, host="h1") for n in range(3)))
    assert [isinstance(answer, Placement) for answer in answers] == [True, True, False]


def test_affinity_holds_within_a_batch_and_with_those_already_there():
    cloud = cloud_of("h1", "h2", "h3")
    answers = cloud.ask(*(server(f"c{n}", group=Group(id="g", policy="affinity")) for n in range(3)))
    assert len({answer.host for answer in answers}) == 1
    cloud = cloud_of("h1", "h2", "h3")
    cloud.claimed("h2", "elsewhere")
    assert cloud.where("d", group=Group(id="g2", policy="affinity", members=("elsewhere",))) == "h2"


def test_soft_policies_are_wishes():
    cloud = cloud_of("h1", "h2", vcpus=2)
    together = Group(id="g", policy="soft-affinity")
    hosts = [answer.host for answer in cloud.ask(*(server(f"c{n}", group=together) for n in range(3)))]
    assert Counter(hosts).most_common(1)[0][1] == 2
    cloud = cloud_of("h1", "h2", vcpus=2)
    apart = Group(id="g", policy="soft-anti-affinity")
    hosts = [answer.host for answer in cloud.ask(*(server(f"c{n}", group=apart) for n in range(4)))]
    assert Counter(hosts) == {"h1": 2, "h2": 2}


def test_hosts_where_builds_fail_come_last():
    cloud = cloud_of("h1", "h2", vcpus=3)
    cloud.scheduler.failed("h1")
    assert [cloud.where(f"c{n}") for n in range(4)] == ["h2", "h2", "h2", "h1"]
    cloud.scheduler.succeeded("h1")
    cloud.scheduler.forget("c0")
    assert cloud.where("d") == "h1"


def test_the_same_chance_gives_the_same_hosts():
    def hosts(chance):
        cloud = cloud_of(*(f"h{n}" for n in range(20)))
        return [it.host for it in cloud.scheduler.place([server(f"c{n}") for n in range(5)], random=lambda: chance)]

    assert hosts(0.3) == hosts(0.3)
    assert len({tuple(hosts(chance / 10)) for chance in range(10)}) > 1


def test_flavors_become_resources():
    assert demanded(2, 512, 0) == {"VCPU": 2, "MEMORY_MB": 512}
    specs = {"resources:VCPU": "0", "resources:CUSTOM_IRON": "1", "hw:cpu_policy": "shared"}
    assert demanded(2, 512, 1, specs) == {"MEMORY_MB": 512, "DISK_GB": 1, "CUSTOM_IRON": 1}


@pytest.mark.parametrize(
    "have, wanted, fits",
    [
        ("4", ">= 4", True),
        ("3", ">= 4", False),
        ("4", "= 3", True),
        ("x", ">= 4", False),
        ("abc", "s== abc", True),
        ("abc", "s< abd", True),
        ("aes sse", "<in> sse", True),
        ("aes sse", "<all-in> aes avx", False),
        ("b", "<or> a <or> b", True),
        ("true", "true", True),
        ("true", "false", False),
    ],
)
def test_the_language_of_extra_specs(have, wanted, fits):
    assert matches(have, wanted) is fits


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=6),
    st.lists(
        st.tuples(st.sampled_from(["ask", "ask", "claim", "release", "forget"]), st.integers(0, 9), st.integers(1, 3)),
        max_size=40,
    ),
)
def test_the_index_always_equals_a_count_from_scratch(vcpus, steps):
    cloud = Cloud()
    for number, total in enumerate(vcpus):
        cloud.host(f"h{number}", vcpus=total)
    picks, claims = {}, {}
    for step, number, amount in steps:
        consumer, resources = f"c{number}", {"VCPU": amount}
        if step == "ask" and consumer not in claims:
            picks.pop(consumer, None)
            [answer] = cloud.ask(server(consumer, resources=resources))
            if isinstance(answer, Placement):
                picks[consumer] = (answer.host, amount)
        elif step == "claim" and consumer in picks:
            host, picked = claims[consumer] = picks.pop(consumer)
            cloud.claimed(host, consumer, {"VCPU": picked})
        elif step == "release" and consumer in claims:
            cloud.happens(claims.pop(consumer)[0], ResourcesReleased(consumer_id=consumer))
        elif step == "forget":
            picks.pop(consumer, None)
            cloud.scheduler.forget(consumer)
        held = [*picks.values(), *claims.values()]
        for slot, total in enumerate(vcpus):
            assert cloud.index.slots[slot].provider_id == f"p-h{slot}"
            left = total - sum(amount for host, amount in held if host == f"h{slot}")
            assert cloud.index.free["VCPU"][slot] == left >= 0
