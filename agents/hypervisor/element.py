"""The one thing ElementTree lacks for writing libvirt's XML: an element with a text."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET


def leaf(above: ET.Element, tag: str, text: str, /, **attributes: Any) -> ET.Element:
    element = ET.SubElement(above, tag, attributes)
    element.text = text
    return element
