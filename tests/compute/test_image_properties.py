"""Which values properties of images take when a server is made of one, and where a flavor does not let them."""

import pytest

from handlers.compute import image_properties
from schema.refusal import Invalid


@pytest.mark.parametrize(
    "properties,why",
    [
        ({"hw_disk_bus": "floppynet"}, "Field value floppynet is invalid"),
        ({"hw_firmware_type": "coreboot"}, "Field value coreboot is invalid"),
        ({"hw_watchdog_action": "explode"}, "Field value explode is invalid"),
        ({"hw_cpu_cores": "many"}, "invalid literal for int() with base 10: 'many'"),
    ],
)
def test_properties_of_images_are_checked(properties, why):
    with pytest.raises(Invalid, match="Invalid image metadata") as refused:
        image_properties.check(properties)
    assert why in str(refused.value)


def test_properties_nobody_knows_pass():
    image_properties.check({"colour": "red", "hw_disk_bus": "virtio", "os_distro": "plan9", "hw_qemu_guest_agent": "?"})


@pytest.mark.parametrize(
    "specs,properties,why",
    [
        ({"hw:serial_port_count": "1"}, {"hw_serial_port_count": "2"}, "exceed flavor value of number of serial ports"),
        ({"hw:serial_port_count": "x"}, {}, "Number of serial ports 'x'"),
        ({"hw:cpu_max_sockets": "1"}, {"hw_cpu_max_sockets": "2"}, "Image vCPU limits (sockets=2, "),
        ({"hw:cpu_max_cores": "1"}, {"hw_cpu_cores": "2"}, "Image vCPU topology (sockets=-1, cores=2, threads=-1)"),
        ({"hw:pmu": "yes"}, {"hw_pmu": "no"}, "override the PMU policy"),
        ({"hw:tpm_version": "2.0"}, {"hw_tpm_version": "1.2"}, "found in the flavor (2.0) and the image (1.2)."),
        ({"os:secure_boot": "required"}, {"os_secure_boot": "disabled"}, "Conflicting values for os_secure_boot"),
        ({"hw:locked_memory": "true"}, {}, "forbidden when mem_page_size is not set."),
    ],
)
def test_a_flavor_and_an_image_that_contradict_each_other(specs, properties, why):
    with pytest.raises(Invalid) as refused:
        image_properties.check_against(specs, properties)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "specs,properties",
    [
        ({"hw:serial_port_count": "2"}, {"hw_serial_port_count": "1"}),
        ({"hw:cpu_max_cores": "1", "hw:cpu_sockets": "2"}, {"hw_cpu_cores": "2"}),
        ({"hw:pmu": "yes"}, {"hw_pmu": "true"}),
        ({"hw:locked_memory": "true", "hw:mem_page_size": "large"}, {}),
        ({"hw:watchdog_action": "reset"}, {"hw_watchdog_action": "pause"}),
    ],
)
def test_a_flavor_and_an_image_that_agree(specs, properties):
    image_properties.check_against(specs, properties)
