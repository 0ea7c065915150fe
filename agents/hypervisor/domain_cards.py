"""A guest's network cards, in libvirt's words. Their taps are the network agent's."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from agents.hypervisor.wishes import Wishes
from schema.compute.domain import Nic

MODELS = ("virtio", "e1000", "e1000e", "rtl8139", "vmxnet3", "ne2k_pci", "pcnet")


def card(devices: ET.Element, nic: Nic, wishes: Wishes) -> None:
    interface = ET.SubElement(devices, "interface", type="ethernet")
    ET.SubElement(interface, "mac", address=nic.mac_address)
    ET.SubElement(interface, "target", dev=nic.tap, managed="no")
    model = wishes.one_of("hw_vif_model", MODELS, nic.model)
    ET.SubElement(interface, "model", type=model)
    if model == "virtio" and wishes.on("virtio_packed_ring"):
        ET.SubElement(interface, "driver", packed="on")
    ET.SubElement(interface, "mtu", size=str(nic.mtu))


def nic_xml(nic: Nic, properties: Mapping[str, str]) -> str:
    """One card, as it is plugged into a domain that is there."""
    above = ET.Element("devices")
    card(above, nic, Wishes(properties))
    return ET.tostring(above[0], encoding="unicode")


def cards(xml: str) -> dict[str, str]:
    """The network cards of a definition: tap → the card's own XML."""
    found = ET.fromstring(xml).findall("devices/interface")  # noqa: S314  libvirt's own words, on its own socket
    named = [(interface.find("target"), interface) for interface in found]
    return {
        target.get("dev", ""): ET.tostring(interface, encoding="unicode")
        for target, interface in named
        if target is not None
    }
