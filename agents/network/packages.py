"""What a network host needs of Debian or Ubuntu."""

from __future__ import annotations

APT_PACKAGES = (
    "dnsmasq-base",
    "libnftables1",
    "iproute2",
    "openvswitch-switch",
    "charon-systemd",
    "libcharon-extra-plugins",
    "libstrongswan-standard-plugins",
)
"""Installed without recommends; dnsmasq-base is the program without a service of its own.

Open vSwitch is taken for its programs: each host runs its own, and installing starts no service. charon-systemd has a
service that need not run, for routers have a daemon each; of its plugins they use kernel-libipsec and OpenSSL.
"""
