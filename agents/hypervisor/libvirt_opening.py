"""Which libvirt a host of this machine has: the system's, or one of our own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import libvirt

from agents.hypervisor.kvm import kvm_works
from agents.hypervisor.libvirt import LibvirtDriver
from agents.hypervisor.libvirtd import PrivateLibvirtd
from bus.config import Settings


async def open_driver(settings: Settings, host: str, namespace: str | None = None, turn: int = 0) -> LibvirtDriver:
    """The driver for one host of this machine, the `turn`th.

    `namespace`: the network namespace that is the host; its guests are in it, so libvirtd is one of our own that runs
    in it. None: the host is the machine, with the system's libvirt where it has one.
    """
    folder = host_folder(settings, host) if namespace else settings.home / "hypervisor"
    image = settings.home / "guest" / "cumulog-guest.qcow2"
    works = await asyncio.to_thread(kvm_works, settings.home / "hypervisor", image if image.exists() else None)
    system = namespace is None and await asyncio.to_thread(system_libvirt_works, settings.libvirt_uri)
    own = None if system else PrivateLibvirtd(folder / "libvirtd", kvm=works, namespace=namespace)
    return LibvirtDriver(
        host,
        own.uri if own else settings.libvirt_uri,
        folder,
        kvm=works,
        revive=own.start if own else None,
        namespace=namespace,
        share=settings.hosts if namespace else 1,
        turn=turn,
        hardware=settings.hardware,
        sockets=own.sockets if own else None,
        shared=settings.shared_storage,
    )


def host_folder(settings: Settings, host: str) -> Path:
    """Where a host that is a namespace of this machine keeps its guests, images and libvirtd."""
    return settings.home / "hosts" / host


def system_libvirt_works(uri: str) -> bool:
    """Whether the machine runs a libvirt that takes us. Blocks."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        libvirt.open(uri).close()
    except libvirt.libvirtError:
        return False
    return True
