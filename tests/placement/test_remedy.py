"""Decisions explain themselves, within limits; and the change that is named for no host would have made it fit."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.config import Scheduler as Settings
from handlers.placement.answer import NoValidHost, Placement, told
from handlers.placement.demand import Group
from handlers.placement.remedy import relaxed
from schema.compute.domain import HostFacts
from schema.compute.host import DISABLED_TRAIT
from schema.compute.topology import cpu_set, cpu_unit
from schema.placement.decision import Decision
from schema.placement.provider import Inventory
from tests.placement.clouds import Cloud, cloud_of, server

EVERY = Settings(
    filters=(
        "Compute",
        "ComputeCapabilities",
        "ImageProperties",
        "AggregateInstanceExtraSpecs",
        "AggregateMultiTenancyIsolation",
        "AggregateImagePropertiesIsolation",
        "AggregateTypeAffinity",
        "AggregateNumInstances",
        "AggregateIoOps",
        "IsolatedHosts",
        "NumInstances",
        "IoOps",
        "Json",
        "SameHost",
        "DifferentHost",
        "SimpleCIDRAffinity",
        "ServerGroupAntiAffinity",
        "ServerGroupAffinity",
    ),
    isolated_images=("secret",),
    isolated_hosts=("h0",),
    max_instances_per_host=3,
    max_io_ops_per_host=3,
)


UNITS = ("cpu", "pci")


def made_so(cloud, change):
    """The cloud with the change made."""
    host = cloud.hosts.get(change.host)
    provider = cloud.providers.get(f"p-{change.host}")
    match change.what:
        case "enable":
            cloud.change(replace(host.state, enabled=True))
            left = tuple(it for it in provider.state.traits if it != DISABLED_TRAIT)
            cloud.provider(replace(provider.state, traits=left))
        case "raise":
            cloud.change(replace(host.state, up=True))
        case "end forced down":
            cloud.change(replace(host.state, forced_down=False))
        case "trait":
            cloud.provider(replace(provider.state, traits=(*provider.state.traits, change.name)))
        case "no trait":
            left = tuple(it for it in provider.state.traits if it != change.name)
            cloud.provider(replace(provider.state, traits=left))
        case "room":
            inventories = provider.state.inventories
            more = replace(inventories[change.name], total=inventories[change.name].total + int(change.value))
            cloud.provider(replace(provider.state, inventories={**inventories, change.name: more}))
        case "units":
            its = (
                change.value.split(",")
                if change.name == "pci"
                else cpu_set(change.value)
                if change.name == "cpu"
                else ()
            )
            more = (
                {f"{change.name} {it}": 1 for it in its} if change.name in UNITS else {change.name: int(change.value)}
            )
            there = {unit: provider.state.units.get(unit, 0) + n for unit, n in more.items()}
            cloud.provider(replace(provider.state, units={**provider.state.units, **there}))
        case "dedicated":
            cpus = tuple(sorted(cpu_set(change.value)))
            facts = replace(host.state.facts, dedicated_cpus=(*host.state.facts.dedicated_cpus, *cpus))
            cloud.change(replace(host.state, facts=facts))
            there = {cpu_unit(cpu): 1 for cpu in cpus}
            cloud.provider(replace(provider.state, units={**provider.state.units, **there}))
        case "unit":
            gives = Inventory(total=int(change.value) + provider.state.used.get(change.name, 0) + 100)
            cloud.provider(replace(provider.state, inventories={**provider.state.inventories, change.name: gives}))
        case "no metadata" | "metadata":
            for name, it in list(cloud.aggregates.items()):
                if change.host in it.state.hosts:
                    left = {key: value for key, value in it.state.metadata.items() if key != change.name}
                    said = {change.name: change.value} if change.what == "metadata" else {}
                    cloud.aggregate(name, it.state.hosts, left | said)
            if change.what == "metadata" and not any(change.host in it.state.hosts for it in cloud.aggregates.values()):
                cloud.aggregate("new", (change.host,), {change.name: change.value})
        case "metric":
            measured = cloud.index.metrics(list(cloud.hosts).index(change.host))
            cloud.scheduler.measured(change.host, {**measured, change.name: 0.5})
        case "physical network":
            there = cloud.network_hosts.get(change.host)
            names = there.state.facts.physical_networks if there else ()
            cloud.network_host(change.host, *names, change.name)
        case "filter off":
            kept = [it for it in cloud.scheduler.filters if it.name != change.name]
            cloud.scheduler.filters = tuple(kept)
            cloud.scheduler._choices.clear()
        case "host":
            pytest.fail("another host is no change to this cloud")


def fits_then(cloud, request):
    """Whether the named changes, all of them, make the request fit."""
    [answer] = cloud.ask(request)
    assert isinstance(answer, NoValidHost)
    for change in answer.decision.remedy:
        made_so(cloud, change)
        request = relaxed(request, change)
    [again] = cloud.ask(request)
    return isinstance(again, Placement)


def story(cloud, request):
    """The change in words, once it has been seen to help."""
    [answer] = cloud.ask(request)
    words = told(answer.decision.remedy)
    assert fits_then(cloud, request)
    return words


def test_more_room():
    words = story(cloud_of("h1", "h2", memory_mb=4096), server("c", resources={"MEMORY_MB": 20480}))
    assert words == "It would have fitted with 16 GB more RAM on host h1."


def test_more_room_counts_the_allocation_ratio():
    cloud = Cloud()
    cloud.host("h1", inventories={"VCPU": Inventory(total=4, allocation_ratio=1.5)})
    assert story(cloud, server("c", resources={"VCPU": 8})) == "It would have fitted with 2 more CPUs on host h1."


def test_a_host_that_is_disabled():
    cloud = cloud_of("h1", "h2", vcpus=1)
    cloud.claimed("h2", "other", {"VCPU": 1})
    cloud.change(replace(cloud.hosts["h1"].state, enabled=False, disabled_reason="new disks"))
    [answer] = cloud.ask(server("c"))
    assert [(it.why, it.hosts) for it in answer.decision.reasons] == [
        ("is disabled: new disks", ("h1",)),
        ("has too little VCPU free", ("h2",)),
    ]
    assert story(cloud, server("c")) == "It would have fitted with host h1 enabled."


def test_an_aggregate_without_a_property():
    cloud = cloud_of("h1")
    cloud.aggregate("a", ("h1",), filter_tenant_id="others")
    words = story(cloud, server("c", project_id="us"))
    assert words == "It would have fitted with aggregates of h1 without the property filter_tenant_id."


def test_several_things_at_once_where_one_will_not_do():
    cloud = cloud_of("h1", vcpus=1)
    cloud.change(replace(cloud.hosts["h1"].state, up=False))
    words = story(cloud, server("c", resources={"VCPU": 2}))
    assert words == "It would have fitted with host h1 up and 1 more CPUs on host h1."


def test_another_zone():
    words = story(cloud_of("h1"), server("c", zone="north"))
    assert words == "It would have fitted with asked for in the availability zone nova."


def test_no_hosts():
    [answer] = Cloud().ask(server("c", resources={"VCPU": 2}))
    assert told(answer.decision.remedy) == "It would have fitted with a hypervisor host with 2 VCPU."


def test_a_metric_that_is_not_measured():
    cloud = Cloud(Settings(filters=("Metrics",), metrics={"cpu.percent": "-1", "cpu.idle.percent": "1"}))
    cloud.host("h1")
    cloud.scheduler.measured("h1", {"cpu.percent": 0.1})
    [answer] = cloud.ask(server("c"))
    assert answer.decision.reasons[0].why == "does not measure cpu.idle.percent"
    assert story(cloud, server("c")) == "It would have fitted with the metric cpu.idle.percent from host h1."


HOSTS = st.fixed_dictionaries(
    {
        "vcpus": st.integers(1, 3),
        "traits": st.sampled_from([(), ("CUSTOM_A",), ("COMPUTE_STATUS_DISABLED", "CUSTOM_B")]),
        "enabled": st.booleans(),
        "up": st.booleans(),
        "forced_down": st.booleans(),
        "zones": st.sampled_from([{}, {"1": "north"}]),
        "facts": st.sampled_from(
            [HostFacts(hypervisor_type="QEMU", arch="x86_64"), HostFacts(hypervisor_type="Xen", arch="aarch64")]
        ),
    }
)
METADATA = st.dictionaries(
    st.sampled_from(["filter_tenant_id", "instance_type", "os_distro", "disk", "trait:CUSTOM_A"]),
    st.sampled_from(["us", "small", "debian", "ssd", "required"]),
    max_size=3,
)
SPECS = (
    "trait:CUSTOM_A",
    "trait:CUSTOM_B",
    "trait:COMPUTE_NET_VIRTIO_PACKED",
    "accel:device_profile",
    "aggregate_instance_extra_specs:disk",
    "capabilities:vcpus",
    "hw:ephemeral_encryption",
    "hw:ephemeral_encryption_format",
    "hw:tpm_secret_security",
    "hw:tpm_version",
    "hw:virtio_packed_ring",
)
PROPERTIES = (
    "trait:CUSTOM_A",
    "hw_architecture",
    "hw_ephemeral_encryption",
    "hw_sound_model",
    "hw_vif_model",
    "hw_virtio_packed_ring",
    "img_hv_type",
    "os_distro",
    "vm_mode",
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "resources": st.sampled_from([{"VCPU": 2}, {"VCPU": 9, "MEMORY_MB": 9000}, {"CUSTOM_GPU": 1, "VCPU": 1}]),
        "project_id": st.sampled_from(["us", "them"]),
        "zone": st.sampled_from(["north", "south"]),
        "host": st.sampled_from(["h0", "h9"]),
        "forced": st.booleans(),
        "tried": st.sampled_from([frozenset({"h0"}), frozenset({"h1", "h0"})]),
        "cut_off": st.just(frozenset({"h0"})),
        "vnic_types": st.sampled_from([frozenset({"direct"}), frozenset({"remote-managed", "macvtap"})]),
        "reach": st.lists(st.frozensets(st.sampled_from(["rack1", "rack2", "out"]), min_size=1), max_size=2).map(tuple),
        "image_format": st.sampled_from(["qcow2", "iso"]),
        "flavor": st.sampled_from(["small", "large"]),
        "image_id": st.sampled_from(["secret", "open"]),
        "extra_specs": st.dictionaries(
            st.sampled_from(SPECS),
            st.sampled_from(["required", "forbidden", "ssd", "true"]),
        ),
        "image_properties": st.dictionaries(
            st.sampled_from(PROPERTIES),
            st.sampled_from(["required", "aarch64", "xen", "fedora", "true", "virtio"]),
        ),
        "same_host": st.sampled_from([("o0",), ("nobody",)]),
        "different_host": st.just(("o0", "o1")),
        "near_ip": st.sampled_from(["127.0.0.9", "10.1.1.1"]),
        "query": st.sampled_from(['["=", "$host", "h1"]', "{"]),
        "group": st.sampled_from(
            [Group(id="g", policy=policy, members=("o0", "o1")) for policy in ("affinity", "anti-affinity")]
        ),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(HOSTS, min_size=1, max_size=4), st.lists(METADATA, max_size=2), REQUESTS, st.integers(0, 4))
def test_the_change_that_is_named_always_helps(hosts, aggregates, asked, others):
    cloud = Cloud(
        replace(
            EVERY,
            isolate_aggregates=others % 2 == 0,
            require_tenant_aggregate=others == 1,
            limit_tenants_to_aggregates=others == 2,
            require_image_type_support=others == 3,
            image_metadata_prefilter=others > 1,
        )
    )
    for number, it in enumerate(hosts):
        up = it["up"]
        cloud.host(f"h{number}", **{key: value for key, value in it.items() if key != "up"})
        cloud.change(replace(cloud.hosts[f"h{number}"].state, up=up))
    for number, metadata in enumerate(aggregates):
        cloud.aggregate(str(number), ("h0", "h1"), metadata)
        cloud.network_host(f"h{number}", "rack1")
    for number in range(others):
        name = f"h{number % len(hosts)}"
        cloud.claimed(name, f"o{number}", {"VCPU": 1})
        cloud.scheduler.work_on(f"o{number}", name)
    request = server("c", **asked)
    [answer] = cloud.ask(request)
    if isinstance(answer, NoValidHost):
        assert answer.decision.remedy
        assert fits_then(cloud, request), told(answer.decision.remedy)


def test_a_decision_stays_small_however_large_the_cloud():
    cloud = cloud_of(*(f"compute-{n:05}.rack-7.example.org" for n in range(2000)), vcpus=1)
    for name in list(cloud.hosts)[:1500]:
        cloud.change(replace(cloud.hosts[name].state, enabled=False, disabled_reason=f"since {name}"))
    found, none = cloud.ask(server("c1"), server("c2", resources={"VCPU": 2}))
    assert (none.decision.hosts, sum(it.hosts for it in none.decision.turned_down)) == (2000, 2000)
    assert none.decision.unnamed == 1950
    assert sum(len(it.hosts) for it in none.decision.reasons) == 50
    assert len(msgspec.json.encode(found.decision)) < 3000
    assert len(msgspec.json.encode(none.decision)) < 8000
    assert msgspec.json.decode(msgspec.json.encode(none.decision), type=Decision) == none.decision


def test_reasons_with_endless_words_are_cut():
    cloud = cloud_of(*(f"h{n}" for n in range(50)))
    for name in cloud.hosts:
        cloud.change(replace(cloud.hosts[name].state, enabled=False, disabled_reason=name + "x" * 10_000))
    [none] = cloud.ask(server("c"))
    assert len(msgspec.json.encode(none.decision)) < 30_000


def test_a_dry_run_says_the_same_and_takes_nothing():
    cloud = cloud_of("h1", vcpus=1)
    [one, two] = cloud.scheduler.consider([server("d1"), server("d2")])
    assert (isinstance(one, Placement), isinstance(two, NoValidHost)) == (True, True)
    assert cloud.where("c1") == "h1"
