"""Which extra specs there are in known namespaces, what they may say, and what is said of those that may not."""

import pytest

from handlers.compute.extra_specs import check
from schema.refusal import Invalid


@pytest.mark.parametrize(
    "spec",
    [
        "my=own",
        "my:own=thing",
        "hide_hypervisor_id=yes",
        "group_policy=isolate",
        "accel:device_profile=gpu",
        "aggregate_instance_extra_specs:any:thing=at all",
        "capabilities:cpu_info:vendor=s== Intel",
        "capabilities:vcpus=>= 4",
        "hw:boot_menu=True",
        "hw:cpu_dedicated_mask=^0-1,3",
        "hw:cpu_max_sockets=2",
        "hw:max_cpu_sockets=2",
        "hw:locked_memory=1",
        "hw:mem_page_size=2MB",
        "hw:mem_page_size=1GiB",
        "hw:mem_page_size=2048",
        "hw:numa_cpus.0=0-3,^2",
        "hw:numa_mem.11=512",
        "hw:pmem=4GB,LARGE",
        "hw:pmu=no",
        "hw:redirected_usb_ports=15",
        "hw:watchdog_action=disabled",
        "hw_rng:rate_bytes=0",
        "hw_video:ram_max_mb=16",
        "os:secure_boot=required",
        "pci_passthrough:alias=gpu:1 , nic:2",
        "powervm:shared_weight=255",
        "powervm:proc_units=0.5",
        "quota:cpu_quota=0",
        "quota:cpu_limit=-1",
        "quota:disk_total_iops_sec=10",
        "quota:vif_outbound_burst=1",
        "resources:VCPU=2",
        "resources_my-group:CUSTOM_GOLD=2",
        "resources1:VGPU=0",
        "trait:HW_CPU_X86_VMX=required",
        "trait_a1:CUSTOM_FAST=forbidden",
        "vmware:hw_version=vmx-15",
    ],
)
def test_what_is_documented_passes(spec):
    check(*spec.split("=", 1))


@pytest.mark.parametrize(
    "spec,words",
    [
        ("hw:no_such=1", "extra spec 'hw:no_such' does not appear to be a valid extra spec."),
        ("hw:numa_cpusx0=1", "extra spec 'hw:numa_cpusx0' does not appear"),
        ("hw:numa_nodes.0=1", "extra spec 'hw:numa_nodes.0' does not appear"),
        ("capabilities:no_such=1", "does not appear"),
        ("powervm:weight=1", "does not appear"),
        ("quota:cpu=1", "does not appear"),
        ("resources:NO_SUCH=1", "extra spec 'resources:NO_SUCH' does not appear"),
        ("resources_group:CUSTOM_low=1", "does not appear"),
        ("trait:NO_SUCH=required", "extra spec 'trait:NO_SUCH' does not appear"),
        ("traits:CUSTOM_A=maybe", "not one of: required, forbidden."),
        ("hw:boot_menu=perhaps", "'perhaps' is not a valid boolean-like value."),
        ("hw:cpu_sockets=two", "'two' is not a valid integer value."),
        ("hw:cpu_sockets=0", "'0' is less than the min value of '1'."),
        ("hw:redirected_usb_ports=16", "'16' is greater than the max value of '15'."),
        ("hw:cpu_policy=sometimes", "'sometimes' is not one of: dedicated, shared, mixed."),
        ("hw:mem_page_size=2 MB", "'2 MB' is not of the format '(large|small|any|"),
        ("pci_passthrough:alias=gpu", "'gpu' is not of the format '[^:]+:"),
        ("quota:cpu_quota=-1", "'-1' is less than the min value of '0'."),
        ("trait:HW_CPU_X86_VMX=maybe", "'maybe' is not one of: required, forbidden."),
        ("resources:VCPU=", "'' is not a valid integer value."),
        ("group_policy=all", "'all' is not one of: none, isolate."),
    ],
)
def test_what_is_not_is_refused_in_novas_words(spec, words):
    with pytest.raises(Invalid) as refused:
        check(*spec.split("=", 1))
    assert refused.value.message.startswith("Validation failed; ")
    assert words in refused.value.message


def test_a_long_value_takes_no_time():
    with pytest.raises(Invalid):
        check("hw:cpu_dedicated_mask", "1-2,3-4," * 31 + "!")
