"""Real guests that are more than a processor and a disk: what flavor and image say, seen inside and by libvirt."""

import pytest

from agents.hypervisor.host_abilities import cpu_controller
from schema.compute.topology import GuestCell, Topology

from .test_libvirt import BOOT_SECONDS, domain_of, driver, image, order, says  # noqa: F401

pytestmark = [pytest.mark.live, pytest.mark.slow]

LOOK = """#!/bin/sh
[ -d /sys/firmware/efi ] && echo firmware UEFI
echo sockets $(grep 'physical id' /proc/cpuinfo | sort -u | wc -l) of $(nproc)
echo nodes $(ls -d /sys/devices/system/node/node* | wc -l)
grep -l 0x25ab /sys/bus/pci/devices/*/device > /dev/null && echo a watchdog
echo random $(cat /sys/class/misc/hw_random/rng_current)
[ -e /sys/firmware/acpi/tables/TPM2 ] && echo a TPM
echo hypervisor $(grep -c -w hypervisor /proc/cpuinfo)
echo lines $(grep -c 16550A /proc/tty/driver/serial)
"""
MANY = {
    "hw_machine_type": "q35",
    "hw_firmware_type": "uefi",
    "hw:cpu_sockets": "2",
    "hw:hide_hypervisor_id": "true",
    "hw:watchdog_action": "poweroff",
    "hw_rng:rate_bytes": "4096",
    "hw:tpm_version": "2.0",
    "hw:tpm_model": "tpm-crb",
    "hw:serial_port_count": "2",
    "hw:locked_memory": "false",
    "hw_pointer_model": "usbtablet",
    "hw_input_bus": "virtio",
    "hw_video_model": "virtio",
    "quota:disk_read_iops_sec": "100000",
    "quota:disk_write_bytes_sec": "100000000",
    "quota:cpu_shares": "512",
    "quota:cpu_period": "100000",
    "quota:cpu_quota": "100000",
}


async def test_a_guest_is_what_flavor_and_image_say(control, driver, order, libvirtd, hypervisor_folder):  # noqa: F811
    if not cpu_controller():
        MANY.update({key: "" for key in MANY if key.startswith("quota:cpu_")})
    await control.start_agent(driver())
    id, wish = order(LOOK, properties=MANY, vcpus=2, ram_mb=320, topology=two_cells())
    await control.tell(wish())
    word = await control.until(
        lambda: (it := control.observed.get(id)) and (it.fault or it.power == "running") and it, 60
    )
    assert word.fault is None
    text = await says(control, id, "login:", 2 * BOOT_SECONDS)
    lines = text.splitlines()
    for said in (
        *("firmware UEFI", "sockets 2 of 2", "nodes 2", "a watchdog", "random virtio_rng.0", "a TPM"),
        *("hypervisor 0", "lines 2"),
    ):
        assert said in lines, text

    domain = domain_of(libvirtd, id)
    assert domain.blockIoTune("vda")["read_iops_sec"] == 100_000
    assert len({tuple(cpus) for cpus in domain.vcpuPinInfo()}) == 2
    if cpu_controller():
        assert domain.schedulerParameters()["cpu_shares"] == 512
    nvram = hypervisor_folder / "hypervisor" / "guests" / id / "nvram.fd"
    await control.tell(wish("stopped", stop_timeout_seconds=0))
    await control.seen(id, "stopped", 60)
    await control.tell(wish())
    await control.seen(id, "running", 60)
    assert nvram.stat().st_size > 0
    await control.tell(wish("absent"))
    await control.until(lambda: id in control.removed, 30)
    assert not nvram.exists()
    assert not list(hypervisor_folder.glob(f"**/swtpm/{id}"))


def two_cells():
    """Two nodes of the guest on the one of its host, each on a CPU of its own."""
    return Topology(
        cells=tuple(GuestCell(id=n, host_cell=0, cpus=(n,), memory_mb=160, pins={n: n}) for n in (0, 1)),
        cpu_policy="dedicated",
    )


async def test_secure_boot_starts_only_what_is_signed(control, driver, order):  # noqa: F811
    await control.start_agent(driver())
    id, wish = order("", ram_mb=256, properties={"hw_firmware_type": "uefi", "os:secure_boot": "required"})
    await control.tell(wish())
    await control.seen(id, "running", 60)
    assert "Access Denied" in await says(control, id, "Access Denied")
    await control.tell(wish("absent"))
    await control.until(lambda: id in control.removed, 30)
