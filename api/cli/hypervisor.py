"""Which hypervisor `up` uses, and why: said plainly, installed where that may be; and the image guests start from."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
from pathlib import Path

import msgspec

from agents.hypervisor import packages
from agents.network.packages import APT_PACKAGES as NETWORK_PACKAGES
from api.cli.install import apt, extra, may_apt
from api.cli.screen import Failure, done, note, step
from bus.config import Settings

PROGRAMS = ("libvirtd", "qemu-system-x86_64", "qemu-img")
PLACEHOLDER_BYTES = 1024 * 1024


class Unusable(Exception):
    """libvirt cannot be used here; the text says why."""


def choose(settings: Settings) -> Settings:
    """The settings with `auto` made up, all it needs installed. Raises Failure when libvirt was asked for in vain."""
    chosen = settings.hypervisor
    if chosen in {"auto", "libvirt"}:
        try:
            _prepare_libvirt()
        except (Unusable, Failure) as reason:
            if chosen == "libvirt":
                raise Failure(
                    f"libvirt cannot be used: {reason}", "`./cumulog up --hypervisor simulated` starts without it."
                ) from None
            note(f"Hypervisor: simulated, because {reason}.")
            chosen = "simulated"
        else:
            done("Hypervisor: libvirt with QEMU")
            chosen = "libvirt"
    else:
        done(f"Hypervisor: {chosen}, as asked")
    _remember(settings, chosen)
    return msgspec.structs.replace(settings, hypervisor=chosen)


def last(settings: Settings) -> str:
    """What the last `up` settled on; empty when there was none."""
    try:
        return _file(settings).read_text()
    except OSError:
        return ""


def image(settings: Settings) -> Path:
    """Where the image that every cloud begins with is kept."""
    suffix = "qcow2" if settings.hypervisor == "libvirt" else "raw"
    return settings.home / "guest" / f"cumulog-guest.{suffix}"


def make_image(settings: Settings) -> None:
    """The image guests start from: built from Debian's packages for libvirt, a blank one for pretended guests."""
    from agents.image import builtin

    path = image(settings)
    if settings.hypervisor == "none":
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if settings.hypervisor == "simulated":
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(PLACEHOLDER_BYTES)
        return
    if builtin.current(path):
        return
    try:
        apt(builtin.APT_PACKAGES, "the built-in image")
        with step("Building the image cumulog-guest from Debian packages (once, about a minute)"):
            builtin.build(path)
    except (Failure, builtin.BuildFailed) as reason:
        note(f"The built-in image could not be built: {reason}.")
        note("Upload one of your own: openstack --os-cloud cumulog image create --disk-format qcow2 --file …")


def _prepare_libvirt() -> None:
    """Raises Unusable or Failure."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Unusable(f"guests are x86-64 machines on Linux, and this is {platform.machine()} {platform.system()}")
    if os.geteuid() != 0:
        raise Unusable("real guests need root, and this is an ordinary user")
    if may_apt():
        apt([*packages.APT_PACKAGES, *NETWORK_PACKAGES], "the hypervisor (QEMU and libvirt) and its networks")
    lacking = [program for program in PROGRAMS if not shutil.which(program)]
    if lacking:
        raise Unusable(f"{', '.join(lacking)} cannot be found, and only on Debian or Ubuntu can they be installed here")
    extra(packages.EXTRA)
    importlib.invalidate_caches()
    if importlib.util.find_spec("libvirt") is None:
        raise Unusable("the Python package libvirt-python is not installed")
    packages.make_user()


def _file(settings: Settings) -> Path:
    return settings.run_folder / "hypervisor"


def _remember(settings: Settings, chosen: str) -> None:
    if last(settings) != chosen:
        _file(settings).write_text(chosen)
