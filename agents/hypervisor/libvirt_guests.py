"""The guests of one libvirt host: where their files are, and how something is done with one of them.

<folder>/guests/<server id>/   disk  base (→ image)  ephemeral  swap  config-drive.iso  console.log
<folder>/images/               what disks are laid over
libvirt                        the domain, named and numbered by server id, with what Cumulog remembers in its XML
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from agents.hypervisor import libvirt_host
from agents.hypervisor.driver import NotRunning, OnProgress
from agents.hypervisor.host_abilities import Abilities
from agents.hypervisor.image_cache import ImageCache
from agents.hypervisor.libvirt_connection import Connection
from agents.hypervisor.moving import Sockets


class Guests:
    """`boot`: changes when the host starts anew. `dedicated_cpus`: as configured. `on_progress` hears of long acts."""

    def __init__(
        self,
        host: str,
        folder: Path,
        connection: Connection,
        sockets: Sockets,
        *,
        kvm: bool,
        boot: str,
        dedicated_cpus: str = "",
    ) -> None:
        self.host = host
        self.home = folder
        self.folder = folder / "guests"
        self.images = ImageCache(folder / "images")
        self.libvirt = connection
        self.sockets = sockets
        self.kvm = kvm
        self._dedicated_cpus = dedicated_cpus
        self._abilities: Abilities | None = None
        self.boot = boot
        self.on_progress: OnProgress = lambda id, words: None

    def make_folders(self) -> None:
        for folder in (self.home, self.folder, self.images.folder):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)

    def of(self, id: str) -> Path:
        """The folder of one of them."""
        return self.folder / id

    async def abilities(self) -> Abilities:
        """What the host has that makes a difference to them."""
        if self._abilities is None:
            self._abilities = await self.libvirt.call(
                lambda it: libvirt_host.abilities(it, kvm=self.kvm, dedicated_cpus=self._dedicated_cpus),
                "looking at the host",
            )
        return self._abilities

    async def on(self, id: str, doing: str, function: Callable[[Any], Any]) -> Any:
        """Do something with a domain, in a thread. A libvirtError says that there is none."""
        return await self.libvirt.call(lambda connection: function(connection.lookupByUUIDString(id)), doing)

    async def ask(self, id: str, function: Callable[[Any], Any]) -> Any:
        """Something that takes a guest. Raises NotRunning if there is none."""
        try:
            return await self.on(id, "looking into the guest", function)
        except libvirt.libvirtError:
            raise NotRunning(f"host {self.host} holds no server {id}") from None


def is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
