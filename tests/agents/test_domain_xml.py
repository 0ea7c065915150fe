import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from agents.hypervisor.domain_disks import Disk, rescue_disk
from agents.hypervisor.domain_pins import placed_anew
from agents.hypervisor.domain_xml import domain_xml
from agents.hypervisor.driver import Unsupported
from agents.hypervisor.host_abilities import Abilities
from agents.hypervisor.remembered import NAMESPACE, Remembered, remembered
from agents.hypervisor.wishes import Wishes
from schema.compute.domain import Domain, Nic
from schema.compute.topology import GuestCell, GuestDevice, Topology

ID = "11111111-2222-3333-4444-555555555555"


ROOT = Disk(path=Path("/g/disk"))


HOST = Abilities(uefi=True, secure_boot=True, tpm=True, cpu_time=True, cells={0: (0, 1), 1: (2, 3)})


def made(*, kvm=False, host=HOST, disks=(ROOT,), memory=None, **more):
    shape = {"ram_mb": 512, "vcpus": 4} | more
    domain = Domain(server_id=ID, name="web <1>\n&", generation=1, power="running", **shape)
    xml = domain_xml(domain, host=replace(host, kvm=kvm), disks=disks, folder=Path("/g"), memory=memory)
    return ET.fromstring(xml)  # noqa: S314  our own


def test_a_domain_is_named_and_numbered_by_its_server():
    root = made()
    assert (root.findtext("name"), root.findtext("uuid")) == (ID, ID)
    assert root.findtext("title") == "web <1> &"
    assert root.find("memory").text == "512"
    assert root.findtext("sysinfo/system/entry[@name='product']") == "OpenStack Nova"


def test_without_kvm_the_translation_cache_is_bounded():
    root = made()
    assert root.get("type") == "qemu"
    assert root.findtext("features/tcg/tb-cache") == "64"
    assert made(kvm=True).get("type") == "kvm"
    assert made(kvm=True).find("features/tcg") is None


def test_no_nic_unless_given():
    assert made().findall("devices/interface") == []
    nic = Nic(port_id="p", mac_address="52:54:00:00:00:01", tap="tap1", mtu=1450)
    [interface] = made(networks=(nic,)).findall("devices/interface")
    assert interface.find("target").attrib == {"dev": "tap1", "managed": "no"}
    assert interface.find("mtu").get("size") == "1450"


def test_the_console_goes_to_a_pty_and_a_file():
    serial = made().find("devices/serial")
    assert serial.get("type") == "pty"
    assert serial.find("log").attrib == {"file": "/g/console.log", "append": "on"}


def test_disks_are_in_the_guests_order():
    disks = [Disk(path=Path(f"/g/{n}")) for n in range(28)]
    disks[-1] = Disk(path=Path("/g/config"), format="raw", readonly=True)
    targets = made(disks=disks).findall("devices/disk/target")
    assert [targets[n].get("dev") for n in (0, 1, 25, 26, 27)] == ["vda", "vdb", "vdz", "vdaa", "vdab"]
    assert made(disks=disks).findall("devices/disk")[-1].find("readonly") is not None


@pytest.mark.parametrize(
    "properties,topology",
    [
        ({}, ("4", "1", "1")),
        ({"hw_cpu_cores": "2"}, ("2", "2", "1")),
        ({"hw_cpu_sockets": "1"}, ("1", "4", "1")),
        ({"hw_cpu_sockets": "8", "hw:cpu_sockets": "2", "hw:cpu_threads": "2"}, ("2", "1", "2")),
        ({"hw_cpu_cores": "3"}, ("4", "1", "1")),
    ],
)
def test_the_topology_is_as_asked_where_it_fits(properties, topology):
    it = made(properties=properties).find("cpu/topology").attrib
    assert (it["sockets"], it["cores"], it["threads"]) == topology


def test_what_is_remembered_can_be_read_again():
    memory = Remembered(generation=7, soft=1, hard=2, position=9, fenced=True, boot="b")
    element = made(memory=memory).find(f"metadata/{{{NAMESPACE}}}server")
    assert remembered(ET.tostring(element, encoding="unicode")) == memory
    assert remembered(memory.xml()) == memory


NIC = Nic(port_id="p", mac_address="52:54:00:00:00:01", tap="tap1")
SEEN = Topology(
    cells=(
        GuestCell(id=0, host_cell=1, cpus=(0, 1), memory_mb=256, pins={0: 6, 1: 7}, page_kib=2048),
        GuestCell(id=1, host_cell=0, cpus=(2, 3), memory_mb=256),
    ),
    emulator_cpus=(8,),
    devices=(GuestDevice(address="0000:0a:1f.3"),),
)


@pytest.mark.parametrize(
    "properties,where,expected",
    [
        # Board and firmware
        ("", "os/type@machine", "pc"),
        ("hw_machine_type=q35", "os/type@machine", "q35"),
        ("hw_machine_type=pc-i440fx-7.2", "os/type@machine", "pc-i440fx-7.2"),
        ("", "os/loader", None),
        ("hw_firmware_type=uefi", "os/loader", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
        ("hw_firmware_type=uefi", "os/loader@type", "pflash"),
        ("hw_firmware_type=uefi", "os/nvram", "/g/nvram.fd"),
        ("hw_firmware_type=uefi os_secure_boot=required", "os/loader@secure", "yes"),
        ("hw_firmware_type=uefi os_secure_boot=required", "os/type@machine", "q35"),
        ("hw_firmware_type=uefi os:secure_boot=required os_secure_boot=disabled", "features/smm@state", "on"),
        ("hw_firmware_type=uefi os_secure_boot=optional", "os/loader@secure", "yes"),
        ("hw_firmware_type=bios os_secure_boot=optional", "os/loader", None),
        ("hw:boot_menu=true", "os/bootmenu@enable", "yes"),
        ("hw:boot_menu=true hw_boot_menu=false", "os/bootmenu", None),
        # Clock and features
        ("", "clock@offset", "utc"),
        ("os_type=windows", "clock@offset", "localtime"),
        ("", "clock/timer[@name='hpet']@present", "no"),
        ("hw_time_hpet=true", "clock/timer[@name='hpet']@present", "yes"),
        ("hide_hypervisor_id=true", "cpu/feature[@name='hypervisor']@policy", "disable"),
        ("hw:hide_hypervisor_id=true", "cpu/feature[@name='hypervisor']@policy", "disable"),
        ("img_hide_hypervisor_id=true", "cpu/feature[@name='hypervisor']@policy", "disable"),
        ("hw:pmu=false hw_pmu=true", "features/pmu@state", "off"),
        # Memory and CPU time
        ("hw:locked_memory=true", "memoryBacking/locked", ""),
        ("quota:cpu_shares=512", "cputune/shares", "512"),
        ("quota:cpu_period=10000 quota:cpu_quota=5000", "cputune/quota", "5000"),
        ("hw:cpu_realtime=yes hw:cpu_realtime_mask=^0", "cputune/vcpusched@vcpus", "1-3"),
        # Disks
        ("hw_disk_bus=scsi", "devices/disk/target@dev", "sda"),
        ("hw_disk_bus=scsi hw_scsi_model=lsilogic", "devices/controller[@type='scsi']@model", "lsilogic"),
        ("quota:disk_read_iops_sec=10", "devices/disk/iotune/read_iops_sec", "10"),
        ("quota:disk_total_bytes_sec=1000", "devices/disk/iotune/total_bytes_sec", "1000"),
        ("quota:disk_total_bytes_sec=0", "devices/disk/iotune", None),
        # Cards
        ("", "devices/interface/model@type", "virtio"),
        ("hw_vif_model=e1000", "devices/interface/model@type", "e1000"),
        ("hw:virtio_packed_ring=true", "devices/interface/driver@packed", "on"),
        # Devices
        ("", "devices/watchdog", None),
        ("hw:watchdog_action=reset", "devices/watchdog@action", "reset"),
        ("hw:watchdog_action=reset hw_watchdog_action=pause", "devices/watchdog@action", "pause"),
        ("hw:watchdog_action=disabled", "devices/watchdog", None),
        ("", "devices/rng@model", "virtio"),
        ("hw_rng:allowed=false", "devices/rng", None),
        ("hw_rng:rate_bytes=100", "devices/rng/rate@period", "1000"),
        ("hw_rng:rate_bytes=100 hw_rng:rate_period=50", "devices/rng/rate@bytes", "100"),
        ("hw_video_model=bochs", "devices/video/model@type", "bochs"),
        ("hw_video_ram=16 hw_video:ram_max_mb=16", "devices/video/model@vram", "16384"),
        ("", "devices/controller[@type='usb']@model", "none"),
        ("hw_pointer_model=usbtablet", "devices/input[@type='tablet']@bus", "usb"),
        ("hw_pointer_model=usbtablet", "devices/controller[@type='usb']@model", "qemu-xhci"),
        ("hw_input_bus=virtio", "devices/input[@type='keyboard']@bus", "virtio"),
        ("hw_input_bus=virtio", "devices/controller[@type='usb']@model", "none"),
        ("hw:usb_model=nec-xhci", "devices/controller[@type='usb']@model", "nec-xhci"),
        ("hw:sound_model=ich6", "devices/sound@model", "ich6"),
        ("hw_qemu_guest_agent=yes", "devices/channel/target@name", "org.qemu.guest_agent.0"),
        ("hw:tpm_version=2.0", "devices/tpm@model", "tpm-tis"),
        ("hw:tpm_version=2.0 hw:tpm_model=tpm-crb", "devices/tpm/backend@version", "2.0"),
        ("hw:serial_port_count=3", "devices/serial[3]/target@port", "2"),
        ("hw:serial_port_count=3 hw_serial_port_count=1", "devices/serial[2]", None),
        ("hw_serial_port_count=0", "devices/serial", None),
    ],
)
def test_what_flavor_and_image_say_is_what_the_guest_gets(properties, where, expected):
    root = made(properties=dict(it.split("=", 1) for it in properties.split()), networks=(NIC,))
    assert _at(root, where) == expected


def _at(root, where):
    """A path's text, or an attribute of it; None: there is no such element."""
    path, _, attribute = where.partition("@") if "[@" not in where else _parted(where)
    element = root.find(path)
    if element is None:
        return None
    return element.get(attribute) if attribute else (element.text or "")


def _parted(where):
    path, bracket, attribute = where.partition("]")
    return path + bracket, "", attribute.removeprefix("@")


@pytest.mark.parametrize(
    "properties,words",
    [
        ("hw_disk_bus=xen", "hw_disk_bus=xen"),
        ("hw_vif_model=hyperv", "hw_vif_model=hyperv"),
        ("hw_video_model='/><evil", "hw_video_model="),
        ("hw_machine_type=virt", "only pc and q35"),
        ("hw_machine_type=pc hw_firmware_type=uefi os:secure_boot=required", "secure boot needs q35"),
        ("os:secure_boot=required", "needs hw_firmware_type=uefi"),
        ("hw:mem_encryption=true", "do not encrypt"),
        ("hw:pmem=4GB", "no persistent memory"),
        ("hw_cpu_cores=many", "hw_cpu_cores=many: it must be a whole number"),
        ("hw:serial_port_count=two", "hw:serial_port_count=two: it must be a whole number"),
        ("hw:boot_menu=perhaps", "hw_boot_menu=perhaps: it must be yes or no"),
        ("quota:disk_read_bytes_sec=1.5", "it must be a whole number"),
        ("hw_video_ram=64 hw_video:ram_max_mb=32", "video memory 64 is higher than the maximum allowed by flavor 32."),
        ("hw_video_ram=64", "allowed by flavor 0."),
        ("hw:vif_multiqueue_enabled=true", "have one queue"),
        ("quota:vif_inbound_peak=10", "needs quota:vif_inbound_average"),
        ("quota:vif_outbound_burst=10 quota:vif_inbound_average=5", "needs quota:vif_outbound_average"),
        ("quota:vif_limit=10", "VMware"),
        ("quota:memory_limit=10", "VMware"),
        ("hw:tpm_model=tpm-crb", "hw_tpm_version"),
        ("hw:tpm_version=1.2 hw:tpm_model=tpm-crb", "not for TPM 1.2"),
        ("hw_serial_port_count=5", "at most 4 serial ports"),
        ("hw:cpu_max_sockets=1 hw:cpu_max_cores=1 hw:cpu_max_threads=1", "no topology of 4 CPUs"),
    ],
)
def test_what_it_cannot_get_is_said(properties, words):
    with pytest.raises(Unsupported, match=re.escape(words)):
        made(properties=dict(it.split("=", 1) for it in properties.split()), networks=(NIC,))


@pytest.mark.parametrize(
    "properties,words",
    [
        ({"hw_firmware_type": "uefi"}, "ovmf"),
        ({"hw:tpm_version": "2.0"}, "swtpm"),
        ({"quota:cpu_shares": "10"}, "no cgroups"),
    ],
)
def test_what_its_host_lacks_is_said(properties, words):
    with pytest.raises(Unsupported, match=words):
        made(host=Abilities(), properties=properties)


@pytest.mark.parametrize(
    "properties,topology",
    [
        ({"hw:cpu_max_sockets": "2"}, ("2", "2", "1")),
        ({"hw:max_cpu_sockets": "1", "hw_cpu_threads": "2"}, ("1", "2", "2")),
        ({"hw_cpu_max_cores": "1", "hw_cpu_max_sockets": "1"}, ("1", "1", "4")),
    ],
)
def test_limits_bound_the_topology(properties, topology):
    it = made(properties=properties).find("cpu/topology").attrib
    assert (it["sockets"], it["cores"], it["threads"]) == topology


def test_a_guest_has_what_the_host_keeps_for_it():
    root = made(topology=SEEN)
    pins = {it.get("vcpu"): it.get("cpuset") for it in root.findall("cputune/vcpupin")}
    assert pins == {"0": "6", "1": "7", "2": "0-1", "3": "0-1"}
    assert root.find("cputune/emulatorpin").get("cpuset") == "8"
    assert root.find("numatune/memory").attrib == {"mode": "strict", "nodeset": "0-1"}
    assert [it.get("nodeset") for it in root.findall("numatune/memnode")] == ["1", "0"]
    assert [it.get("cpus") for it in root.findall("cpu/numa/cell")] == ["0-1", "2-3"]
    assert root.find("memoryBacking/hugepages/page").attrib == {"size": "2048", "unit": "KiB", "nodeset": "0"}
    address = root.find("devices/hostdev/source/address").attrib
    assert address == {"domain": "0x0000", "bus": "0x0a", "slot": "0x1f", "function": "0x3"}


def test_what_was_said_of_shared_cpus_counts_before_what_is_near():
    floating = GuestCell(id=0, host_cell=0, cpus=(0, 1, 2, 3), memory_mb=512, floats=(1, 4))
    root = made(topology=Topology(cells=(floating,)))
    assert {it.get("cpuset") for it in root.findall("cputune/vcpupin")} == {"1,4"}


def test_guests_keep_off_the_cpus_that_are_for_one_at_a_time():
    assert made(host=replace(HOST, shared_cpus=(0, 1, 4))).find("vcpu").attrib == {
        "placement": "static",
        "cpuset": "0-1,4",
    }
    assert made().find("vcpu").attrib == {}


def test_threads_of_one_core_are_threads_of_the_guest():
    core = GuestCell(id=0, host_cell=0, cpus=(0, 1, 2, 3), memory_mb=512, siblings=((0, 1), (2, 3)))
    assert made(topology=Topology(cells=(core,))).find("cpu/topology").get("threads") == "2"
    asked = made(topology=Topology(cells=(core,)), properties={"hw:cpu_threads": "1"})
    assert asked.find("cpu/topology").get("threads") == "1"


def test_on_q35_cards_may_be_plugged_in_while_it_runs():
    ports = made(properties={"hw_machine_type": "q35"}).findall("devices/controller[@model='pcie-root-port']")
    assert len(ports) == 16
    assert made().find("devices/controller[@type='pci']") is None


def test_cells_may_only_say_where_it_is():
    root = made(topology=replace(SEEN, numa=False))
    assert root.find("cpu/numa") is None
    assert root.find("numatune/memnode") is None
    assert root.find("memoryBacking/hugepages/page").get("nodeset") is None


def test_a_config_drive_may_be_a_cdrom():
    drive = Disk(path=Path("/g/config"), format="raw", readonly=True, serial="config-drive")
    disk = made(disks=(ROOT, drive), properties={"hw_cdrom_bus": "ide"}).findall("devices/disk")[1]
    assert (disk.get("device"), disk.find("target").attrib) == ("cdrom", {"dev": "hda", "bus": "ide"})
    assert made(disks=(ROOT, drive)).findall("devices/disk")[1].get("device") == "disk"


@pytest.mark.parametrize(
    "properties, device, target",
    [
        ({"hw_rescue_bus": "virtio"}, "disk", {"dev": "vdb", "bus": "virtio"}),
        ({"hw_rescue_device": "disk"}, "disk", {"dev": "vdb", "bus": "virtio"}),
        ({"hw_rescue_bus": "scsi", "hw_rescue_device": "disk"}, "disk", {"dev": "sda", "bus": "scsi"}),
        ({"hw_rescue_device": "cdrom"}, "cdrom", {"dev": "sda", "bus": "sata"}),
        ({"hw_rescue_device": "cdrom", "hw_cdrom_bus": "ide"}, "cdrom", {"dev": "hda", "bus": "ide"}),
    ],
)
def test_a_rescue_disk_may_stand_last_and_is_booted_from(properties, device, target):
    last = rescue_disk(Path("/g/rescue"), Wishes(properties))
    root = made(disks=(ROOT, last), properties=properties)
    own, disk = root.findall("devices/disk")
    assert own.find("target").get("dev") == "vda"
    assert (disk.get("device"), disk.find("target").attrib) == (device, target)
    assert disk.find("boot").get("order") == "1"
    assert (disk.find("readonly") is not None) == (device == "cdrom")
    assert root.find("os/boot") is None
    controllers = [it.get("type") for it in root.findall("devices/controller")]
    assert ("scsi" in controllers) == (target["bus"] == "scsi")


def test_what_a_rescue_disk_cannot_be_is_refused():
    assert rescue_disk(Path("/g/rescue"), Wishes({})) is None
    for properties in (
        {"hw_rescue_device": "lun"},
        {"hw_rescue_bus": "fdc"},
        {"hw_rescue_device": "cdrom", "hw_rescue_bus": "virtio"},
    ):
        with pytest.raises(Unsupported, match="hw_rescue"):
            rescue_disk(Path("/g/rescue"), Wishes(properties))


def test_on_another_host_it_is_on_that_ones_cpus():
    root = made(topology=SEEN, properties={"quota:cpu_shares": "7"})
    there = Topology(cells=(GuestCell(id=0, host_cell=2, cpus=(0, 1, 2, 3), memory_mb=512, pins={0: 9}),), numa=False)
    placed_anew(root, there)
    pins = {it.get("vcpu"): it.get("cpuset") for it in root.findall("cputune/vcpupin")}
    assert (pins, root.find("cputune/emulatorpin").get("cpuset")) == ({"0": "9"}, "9")
    assert root.findtext("cputune/shares") == "7"
    [memory] = root.findall("numatune")
    assert [it.attrib for it in memory] == [{"mode": "strict", "nodeset": "2"}]
    placed_anew(root, None)
    assert root.find("numatune") is None
    assert [it.tag for it in root.find("cputune")] == ["shares"]
