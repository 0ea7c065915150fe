from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from agents.hypervisor.domain_xml import NAMESPACE, Disk, Remembered, domain_xml, remembered
from schema.compute.domain import Domain, Nic

ID = "11111111-2222-3333-4444-555555555555"


ROOT = Disk(path=Path("/g/disk"))


def made(*, kvm=False, disks=(ROOT,), memory=None, **more):
    domain = Domain(server_id=ID, name="web <1>\n&", generation=1, power="running", ram_mb=512, vcpus=4, **more)
    xml = domain_xml(domain, kvm=kvm, disks=disks, console_log=Path("/g/console.log"), memory=memory)
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
        ({"hw_cpu_cores": "many"}, ("4", "1", "1")),
    ],
)
def test_the_topology_is_as_asked_where_it_fits(properties, topology):
    it = made(properties=properties).find("cpu/topology").attrib
    assert (it["sockets"], it["cores"], it["threads"]) == topology


@pytest.mark.parametrize("property", ["hw_disk_bus", "hw_vif_model", "hw_machine_type", "hw_video_model"])
def test_a_property_nobody_knows_is_passed_over(property):
    nic = Nic(port_id="p", mac_address="52:54:00:00:00:01", tap="tap1")
    text = ET.tostring(made(properties={property: "'/><evil"}, networks=(nic,)), encoding="unicode")
    assert "evil" not in text


def test_what_is_remembered_can_be_read_again():
    memory = Remembered(generation=7, soft=1, hard=2, position=9, fenced=True, boot="b")
    element = made(memory=memory).find(f"metadata/{{{NAMESPACE}}}server")
    assert remembered(ET.tostring(element, encoding="unicode")) == memory
    assert remembered(memory.xml()) == memory
