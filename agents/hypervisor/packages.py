"""What a hypervisor host needs of Debian or Ubuntu: packages, and the user that guests run as."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess

APT_PACKAGES = (
    "qemu-system-x86",
    "qemu-utils",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    # UEFI, and a TPM in software for each guest that wants one.
    "ovmf",
    "swtpm",
    "swtpm-tools",
    # libvirt-python is compiled here, against the libvirt above.
    "libvirt-dev",
    "pkg-config",
    "gcc",
    "libc6-dev",
    "python3-dev",
)
"""Installed without recommends: 145 MB. libvirt-daemon-system is left out: it wants systemd, and we start our own."""

EXTRA = "hypervisor"
"""The extra of pyproject.toml with the Python side of it."""

USER = "libvirt-qemu"
"""Guests run as this user, with a number fixed by Debian so that shared disks keep their owner across hosts."""
USER_ID = 64055


def make_user() -> None:
    """Make the user guests run as, as Debian's libvirt-daemon-system does. Nothing to do if it is there."""
    if os.geteuid() != 0:
        return
    try:
        grp.getgrnam("kvm")
    except KeyError:
        subprocess.run(["groupadd", "--system", "kvm"], check=True, capture_output=True)
    try:
        pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(["groupadd", "--system", "--gid", str(USER_ID), USER], check=False, capture_output=True)
        command = ["useradd", "--system", "--uid", str(USER_ID), "--gid", "kvm", "--groups", USER]
        command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", USER]
        subprocess.run(command, check=True, capture_output=True)
