"""What a network host needs of Debian or Ubuntu."""

from __future__ import annotations

APT_PACKAGES = (
    "dnsmasq-base",
    "libnftables1",
    "iproute2",
)
"""Installed without recommends; dnsmasq-base is the program without a service of its own."""
