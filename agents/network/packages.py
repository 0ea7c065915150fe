"""What a network host needs of Debian or Ubuntu."""

from __future__ import annotations

APT_PACKAGES = (
    "dnsmasq-base",
    "libnftables1",
    "iproute2",
    "openvswitch-switch",
)
"""Installed without recommends; dnsmasq-base is the program without a service of its own.

Open vSwitch is taken for its programs: each host runs its own, and installing starts no service."""
