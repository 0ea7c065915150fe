"""Filters: whom each turns down, in whose words, and how a configuration chooses them."""

import json
import sys

import pytest
from msgspec.structs import replace

from bus.config import ConfigurationError, load
from bus.config import Scheduler as Settings
from handlers.compute.fate import request
from handlers.placement import filters
from handlers.placement.demand import Group
from handlers.placement.filters import BUILT_IN
from schema.compute.domain import HostFacts
from schema.compute.server_parts import Order, ServerFlavor, ServerImage
from schema.compute.server_state import Server
from schema.placement.provider import ResourcesReleased
from tests.placement.clouds import Cloud, cloud_of, server
from tests.placement.test_remedy import fits_then

QEMU_6 = HostFacts(hypervisor_type="QEMU", hypervisor_version=6_002_000, arch="x86_64", host_ip="10.0.1.7")
XEN = HostFacts(hypervisor_type="Xen", hypervisor_version=4_016_000, arch="x86_64", host_ip="10.0.2.7")


def only(*names, **more):
    return Settings(filters=names, **more)


def two(*names, **more):
    """h1 runs QEMU, h2 runs Xen."""
    cloud = Cloud(only(*names, **more))
    cloud.host("h1", facts=QEMU_6)
    cloud.host("h2", facts=XEN)
    return cloud


def fits(cloud, **fields):
    """Every host that would do, one question at a time."""
    return {host for host in cloud.hosts if cloud.where(f"c-{host}", host=host, **fields)}


def test_all_of_novas_filters_that_have_facts_here_are_there():
    assert set(BUILT_IN) == {
        "AllHosts",
        "Compute",
        "ImageProperties",
        "IsolatedHosts",
        "ComputeCapabilities",
        "Json",
        "AggregateInstanceExtraSpecs",
        "AggregateMultiTenancyIsolation",
        "AggregateImagePropertiesIsolation",
        "AggregateTypeAffinity",
        "AggregateNumInstances",
        "AggregateIoOps",
        "NumInstances",
        "IoOps",
        "Metrics",
        "NUMATopology",
        "PciPassthrough",
        "SameHost",
        "DifferentHost",
        "SimpleCIDRAffinity",
        "ServerGroupAffinity",
        "ServerGroupAntiAffinity",
    }


@pytest.mark.parametrize("name", ["Compute", "ComputeFilter"])
def test_names_are_novas_with_or_without_filter(name):
    cloud = two(name)
    cloud.change(replace(cloud.hosts["h1"].state, enabled=False))
    assert fits(cloud) == {"h2"}


def test_a_filter_that_is_not_chosen_turns_nobody_down():
    cloud = two("AllHostsFilter")
    cloud.change(replace(cloud.hosts["h1"].state, enabled=False))
    assert fits(cloud) == {"h1", "h2"}


def test_an_unknown_filter_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="no filter FancyFilter; there are Aggregate"):
        Cloud(only("FancyFilter"))


def test_filters_are_chosen_in_the_environment(tmp_path):
    settings = load({"CUMULOG_HOME": str(tmp_path), "CUMULOG_SCHEDULER_FILTERS": "ComputeFilter, JsonFilter"})
    assert settings.scheduler.filters == ("ComputeFilter", "JsonFilter")


@pytest.mark.parametrize(
    "properties, hosts",
    [
        ({"img_hv_type": "kvm"}, {"h1"}),
        ({"hw_vm_mode": "hvm"}, {"h1", "h2"}),
        ({"hw_vm_mode": "xen"}, {"h2"}),
        ({"vm_mode": "exe"}, set()),
        ({"img_hv_type": "qemu", "img_hv_requested_version": ">=6.0,<7"}, {"h1"}),
        ({"img_hv_requested_version": ">=5"}, {"h1"}),
        ({"img_hv_requested_version": "newer"}, {"h1", "h2"}),
        ({"architecture": "aarch64"}, set()),
    ],
)
def test_image_properties(properties, hosts):
    assert fits(two("ImageProperties"), image_properties=properties) == hosts


def test_isolated_hosts_and_images():
    cloud = two("IsolatedHosts", isolated_images=("i1",), isolated_hosts=("h1",))
    assert fits(cloud, image_id="i1") == {"h1"}
    assert fits(cloud, image_id="i2") == {"h2"}
    cloud = two("IsolatedHosts", isolated_images=("i1",), isolated_hosts=("h1",), restrict_isolated_hosts=False)
    assert fits(cloud, image_id="i1") == {"h1"}
    assert fits(cloud, image_id="i2") == {"h1", "h2"}


@pytest.mark.parametrize(
    "wanted, hosts",
    [
        (">= 6002000", {"h1"}),
        ("<= 5000000", {"h2"}),
        ("s== 6002000", {"h1"}),
        ("!= 6002000", {"h2"}),
        ("<or> 4016000 <or> 6002000", {"h1", "h2"}),
    ],
)
def test_capabilities_have_operators(wanted, hosts):
    assert fits(two("ComputeCapabilities"), extra_specs={"capabilities:hypervisor_version": wanted}) == hosts


@pytest.mark.parametrize(
    "question, hosts",
    [
        ([">=", "$free_ram_mb", 1024], {"h1", "h2"}),
        ([">", "$free_ram_mb", 4096], set()),
        (["=", "$hypervisor_hostname", "h2"], {"h2"}),
        (["and", ["=", "$vcpus_total", 4], ["in", "$hypervisor_type", "Xen", "LXC"]], {"h2"}),
        (["or", ["=", "$host", "h1"], ["<", "$num_instances", 0]], {"h1"}),
        (["not", ["=", "$host", "h1"]], {"h2"}),
        (["<", "$cpu_info.topology.cores", 4], set()),
        (["fold", 1], set()),
        (["=", "$host"], set()),
        ([], set()),
    ],
)
def test_questions_in_json(question, hosts):
    assert fits(two("Json"), query=json.dumps(question)) == hosts


@pytest.mark.parametrize("query", ["", "{", "[" * 5000, json.dumps("no question")])
def test_a_question_that_is_none(query):
    assert fits(two("Json"), query=query) == ({"h1", "h2"} if query in {"", '"no question"'} else set())


def test_near_an_address():
    cloud = two("SimpleCIDRAffinity")
    assert fits(cloud, near_ip="10.0.1.1") == {"h1"}
    assert fits(cloud, near_ip="10.0.1.1", near_cidr="/16") == {"h1", "h2"}
    assert fits(cloud, near_ip="10.0.1.1", near_cidr="24") == {"h1"}
    assert fits(cloud, near_ip="nowhere") == set()


def test_what_a_server_was_ordered_with_reaches_the_filters():
    hints = {
        "build_near_host_ip": ["10.0.1.1"],
        "cidr": ["/16"],
        "query": ['["=", "$host", "h1"]'],
        "same_host": ["a"],
        "different_host": ["b", "c"],
        "target_cell": ["elsewhere"],
    }
    flavor = ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1)
    ordered = Server(order=Order(user_id="u", scheduler_hints=hints), flavor=flavor, image=ServerImage(id="i1"))
    asked = request(ordered)
    assert (asked.near_ip, asked.near_cidr, asked.query) == ("10.0.1.1", "/16", '["=", "$host", "h1"]')
    assert (asked.same_host, asked.different_host) == (("a",), ("b", "c"))
    assert (asked.flavor, asked.image_id) == ("small", "i1")


def test_an_aggregate_for_flavors():
    cloud = two("AggregateTypeAffinity")
    cloud.aggregate("a", ("h1",), instance_type="small, tiny")
    assert fits(cloud, flavor="tiny") == {"h1", "h2"}
    assert fits(cloud, flavor="large") == {"h2"}


def test_an_aggregate_for_images():
    cloud = two("AggregateImagePropertiesIsolation")
    cloud.aggregate("a", ("h1",), os_distro="windows, debian", owner="us")
    assert fits(cloud, image_properties={"os_distro": "debian"}) == {"h1", "h2"}
    assert fits(cloud, image_properties={"os_distro": "fedora"}) == {"h2"}
    assert fits(cloud, image_properties={"owner": "them"}) == {"h1", "h2"}
    assert fits(cloud) == {"h1", "h2"}


def test_aggregates_isolated_by_traits():
    cloud = two(isolate_aggregates=True)
    cloud.provider(replace(cloud.providers["p-h1"].state, traits=("CUSTOM_LICENSED",)))
    cloud.aggregate("a", ("h1",), {"trait:CUSTOM_LICENSED": "required"})
    assert fits(cloud) == {"h2"}
    assert fits(cloud, extra_specs={"trait:CUSTOM_LICENSED": "required"}) == {"h1"}
    assert fits(cloud, image_properties={"trait:CUSTOM_LICENSED": "required"}) == {"h1"}


def test_projects_that_must_have_aggregates_of_their_own():
    cloud = two(require_tenant_aggregate=True)
    cloud.aggregate("a", ("h1",), filter_tenant_id="us", filter_tenant_id2="them")
    assert fits(cloud, project_id="us") == fits(cloud, project_id="them") == {"h1"}
    assert fits(cloud, project_id="others") == set()


def test_projects_that_stay_in_their_aggregates_if_they_have_any():
    cloud = two(limit_tenants_to_aggregates=True)
    cloud.aggregate("a", ("h1",), filter_tenant_id="us")
    assert fits(cloud, project_id="us") == {"h1"}
    assert fits(cloud, project_id="others") == {"h1", "h2"}


def test_a_limit_of_servers_counts_within_a_batch_and_after_it():
    cloud = two("NumInstances", max_instances_per_host=2)
    answers = cloud.ask(*(server(f"c{n}") for n in range(5)))
    assert [hasattr(it, "host") for it in answers] == [True] * 4 + [False]
    assert answers[-1].rejected == {"NumInstances": 2}
    cloud.claimed("h1", answers[0].consumer_id if answers[0].host == "h1" else answers[1].consumer_id)
    assert cloud.where("more") is None
    gone = next(iter(cloud.providers["p-h1"].state.claims))
    cloud.happens("h1", ResourcesReleased(consumer_id=gone))
    assert cloud.where("more") == "h1"


def test_an_aggregates_limit_of_servers_is_the_smallest():
    cloud = two("AggregateNumInstances")
    cloud.aggregate("a", ("h1", "h2"), max_instances_per_host="3")
    cloud.aggregate("b", ("h1",), max_instances_per_host="1")
    hosts = [cloud.where(f"c{n}") for n in range(5)]
    assert (hosts.count("h1"), hosts.count("h2"), hosts.count(None)) == (1, 3, 1)


@pytest.mark.parametrize("name", ["IoOps", "AggregateIoOps"])
def test_a_limit_of_servers_at_work(name):
    cloud = two(name, max_io_ops_per_host=1)
    cloud.scheduler.work_on("b1", "h1")
    assert fits(cloud) == {"h2"}
    cloud.scheduler.work_on("b1", None)
    cloud.scheduler.forget("c-h2")
    assert fits(cloud) == {"h1", "h2"}


def test_an_aggregates_limit_of_servers_at_work():
    cloud = two("AggregateIoOps")
    cloud.aggregate("a", ("h1",), max_io_ops_per_host="1")
    cloud.scheduler.work_on("b1", "h1")
    cloud.scheduler.work_on("b2", "h2")
    assert fits(cloud) == {"h2"}


def test_five_thousand_into_an_anti_affinity_group_of_seven_hosts():
    cloud = cloud_of(*(f"h{n}" for n in range(7)))
    group = Group(id="g", policy="anti-affinity")
    answers = cloud.ask(*(server(f"c{n}", group=group) for n in range(5000)))
    assert len({it.host for it in answers if hasattr(it, "host")}) == 7
    assert sum(hasattr(it, "host") for it in answers) == 7


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Somebody else's package, as pip would have installed it."""
    (tmp_path / "theirs.py").write_text(
        "from handlers.placement.filter import Filter\n"
        "from handlers.placement.weighers import Weigher\n"
        "even = Filter('Even', lambda it, request: int(it.host.id[1:]) % 2 == 0, 'are odd')\n"
        "def fewer(settings):\n"
        "    return Filter('Fewer', lambda it, request: it.servers < settings.attempts, 'have enough')\n"
        "reserved = Filter('Reserved', lambda it, request: it.host.id in request.hints['reservation'], 'are others',\n"
        "    asked=lambda request: 'reservation' in request.hints)\n"
        "last = Weigher('Last', key='last_weight_multiplier', weigh=lambda it, request: 100 * int(it.host.id[1:]))\n"
    )
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[cumulog.filters]\neven = theirs:even\nfewer = theirs:fewer\nreserved = theirs:reserved\n"
        "[cumulog.weighers]\nlast = theirs:last\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("theirs", None)


def test_filters_of_others(distribution):
    cloud = cloud_of("h1", "h2", "h3", settings=only("Compute", "even", "fewer", attempts=2))
    assert [cloud.where(f"c{n}") for n in range(3)] == ["h2", "h2", None]
    [answer] = cloud.ask(server("c"))
    assert answer.rejected == {"Even": 2, "Fewer": 1}
    assert "2 are odd, 1 have enough" in answer.reason


def test_filters_of_others_have_hints_of_their_own(distribution):
    cloud = cloud_of("h1", "h2", "h3", settings=only("Compute", "reserved"))
    hints = {"reservation": ["h2"], "same_host": ["s"], "target_cell": ["c"], "different_cell": ["d"]}
    order = Order(user_id="u", scheduler_hints=hints)
    asked = request(Server(id="c", order=order, flavor=ServerFlavor(id="1", name="f", vcpus=1, ram_mb=1, disk_gb=1)))
    assert asked.hints == {"reservation": ["h2"]}
    for consumer, hints, host in (("c1", {"reservation": ["h2"]}, "h2"), ("c2", {"reservation": ["h3"]}, "h3")):
        assert cloud.where(consumer, hints=hints) == host
    [answer] = cloud.ask(server("c3", hints={"reservation": []}))
    assert answer.rejected == {"Reserved": 3}


def test_weighers_of_others(distribution):
    cloud = cloud_of("h1", "h2", "h3", settings=Settings(weighers=("last",)))
    assert [cloud.where(f"c{n}") for n in range(5)] == ["h3", "h3", "h3", "h3", "h2"]
    cloud.aggregate("a", ("h1", "h2", "h3"), last_weight_multiplier="-1")
    assert cloud.where("c") == "h1"


def test_an_unknown_weigher_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="no weigher Fancy; there are BuildFailure"):
        Cloud(Settings(weighers=("Fancy",)))


def test_the_order_of_the_configuration_is_kept():
    chosen = [it.name for it in filters.chosen(only("ImageProperties", "Compute"))]
    assert chosen.index("ImageProperties") < chosen.index("Compute")


LIBVIRT = (
    "COMPUTE_IMAGE_TYPE_QCOW2",
    "COMPUTE_STORAGE_BUS_VIRTIO",
    "COMPUTE_SECURITY_TPM_2_0",
    "COMPUTE_SECURITY_TPM_TIS",
    "COMPUTE_SECURITY_TPM_SECRET_SECURITY_HOST",
)


@pytest.mark.parametrize(
    "asked,fits",
    [
        ({"extra_specs": {"hw:tpm_version": "2.0", "hw:tpm_model": "tpm-tis"}}, True),
        ({"extra_specs": {"hw:tpm_version": "1.2"}}, False),
        ({"extra_specs": {"hw:virtio_packed_ring": "true"}}, False),
        ({"extra_specs": {"hw:virtio_packed_ring": "false"}}, True),
        ({"image_properties": {"hw_sound_model": "ich9"}}, False),
        ({"image_properties": {"hw_sound_model": "virtio"}}, False),
        ({"extra_specs": {"hw:tpm_version": "2.0", "hw:tpm_secret_security": "host"}}, True),
        ({"extra_specs": {"hw:tpm_version": "2.0", "hw:tpm_secret_security": "user"}}, False),
        ({"extra_specs": {"hw:tpm_secret_security": "user"}}, True),
        ({"extra_specs": {"hw:ephemeral_encryption": "true"}}, False),
        ({"extra_specs": {"hw:ephemeral_encryption_format": "luks"}}, True),
        ({"image_properties": {"hw_ephemeral_encryption": "yes", "hw_ephemeral_encryption_format": "luks"}}, False),
        ({"extra_specs": {"accel:device_profile": "fpga"}}, False),
        ({"image_properties": {"hw_emulation_architecture": "aarch64"}}, False),
        ({"image_properties": {"os_secure_boot": "required"}}, False),
        ({"image_properties": {"os_secure_boot": "optional"}}, True),
        ({"image_properties": {"hw_disk_bus": "virtio"}}, True),
        ({"image_properties": {"hw_disk_bus": "scsi"}}, False),
        ({"image_format": "qcow2"}, True),
        ({"image_format": "vmdk"}, False),
    ],
)
def test_a_host_must_be_able_to_give_what_the_guest_is_to_have(asked, fits):
    cloud = Cloud(require_image_type_support=True, image_metadata_prefilter=True)
    cloud.host("h1", traits=LIBVIRT)
    assert (cloud.where(**asked) == "h1") is fits
    if not fits:
        assert fits_then(cloud, server("c", **asked))
    plain = Cloud()
    plain.host("h1", facts=HostFacts(hypervisor_type="simulated"))
    assert plain.where(**asked) == "h1"
    lenient = Cloud()
    lenient.host("h1", traits=LIBVIRT)
    by_setting = {"image_format", "hw_disk_bus", "hw_emulation_architecture"} & {
        *asked,
        *asked.get("image_properties", {}),
    }
    assert (lenient.where(**asked) == "h1") is (fits or bool(by_setting))


def test_what_a_guest_wants_of_its_devices_is_not_given_to_a_host_by_a_word():
    """What is named can be said of a host; what follows from a device is what its hypervisor can do."""
    cloud = Cloud()
    cloud.host("h1")
    for asked, words in (
        ({"extra_specs": {"hw:tpm_version": "2.0"}}, "a flavor without hw:tpm_version=2.0"),
        ({"image_properties": {"hw_sound_model": "virtio"}}, "an image without the property hw_sound_model=virtio"),
        (
            {"extra_specs": {"hw:tpm_version": "2.0", "trait:COMPUTE_SECURITY_TPM_2_0": "required"}},
            "host h1 with trait COMPUTE_SECURITY_TPM_2_0",
        ),
    ):
        [answer] = cloud.ask(server("c", **asked))
        assert [it.words for it in answer.decision.remedy] == [words]
        assert fits_then(cloud, server("c", **asked))


def test_ports_are_wired_where_their_physical_network_is():
    cloud = cloud_of("h1", "h2", "h3")
    cloud.network_host("h1", "rack1")
    cloud.network_host("h2", "rack2", "out")
    one, other = frozenset({"rack1"}), frozenset({"rack1", "rack2"})
    assert fits(cloud, reach=(one,)) == {"h1"}
    assert fits(cloud, reach=(other,)) == {"h1", "h2"}
    assert fits(cloud, reach=(other, frozenset({"out"}))) == {"h2"}
    assert fits(cloud) == {"h1", "h2", "h3"}
    [answer] = cloud.ask(server("c", reach=(one, frozenset({"rack2"}))))
    assert answer.rejected == {"RoutedNetworks": 3}
    assert {it.why: it.hosts for it in answer.decision.reasons} == {
        "is not on the physical network rack2": ("h1",),
        "is not on the physical network rack1": ("h2",),
        "is not on the physical network rack1 and is not on the physical network rack2": ("h3",),
    }
    assert [it.words for it in answer.decision.remedy] == ["host h1 on the physical network rack2"]
    assert fits_then(cloud, server("c", reach=(one, frozenset({"rack2"}))))
    cloud.network_host("h3", "rack1", "rack2")
    assert fits(cloud, reach=(one, frozenset({"rack2"}))) == {"h1", "h3"}


def test_a_host_whose_network_side_is_gone_is_on_no_physical_network():
    cloud = cloud_of("h1")
    cloud.network_host("h1", "rack1")
    assert fits(cloud, reach=(frozenset({"rack1"}),)) == {"h1"}
    cloud.index.network_host_changed(cloud.network_hosts["h1"], None)
    assert not fits(cloud, reach=(frozenset({"rack1"}),))


def test_ports_of_types_that_no_host_plugs():
    cloud = Cloud()
    cloud.host("h1")
    cloud.host("h2", traits=("COMPUTE_REMOTE_MANAGED_PORTS",))
    remote, direct = frozenset({"remote-managed"}), frozenset({"direct"})
    assert fits(cloud, vnic_types=remote) == {"h2"}
    assert not fits(cloud, vnic_types=direct)
    [answer] = cloud.ask(server("c", vnic_types=remote | direct))
    assert answer.reason.endswith("Of 2 hosts, 2 plug no ports of the type direct or remote-managed.")
    assert {it.why: it.hosts for it in answer.decision.reasons} == {
        "plugs no direct ports and plugs no remote-managed ports (lacks COMPUTE_REMOTE_MANAGED_PORTS)": ("h1",),
        "plugs no direct ports": ("h2",),
    }
    assert [it.words for it in answer.decision.remedy] == ["ports that are not direct"]
    assert fits_then(cloud, server("c", vnic_types=remote | direct))
    plain = Cloud()
    plain.host("h1", facts=HostFacts(hypervisor_type="simulated"))
    assert fits(plain, vnic_types=direct) == {"h1"}
