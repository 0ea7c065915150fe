"""The guests of one libvirt host: where their files are, and how something is done with one of them.

<folder>/guests/<server id>/   disk  base (→ image)  ephemeral  swap  config-drive.iso  console.log
<folder>/images/               what disks are laid over
Hosts may share both folders. Then each notes in a guest's what it has of it (`held.<host>`), and the last one to let go
removes it.

libvirt                        the domain, named and numbered by server id, with what Cumulog remembers in its XML
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from agents.hypervisor import libvirt_host, moving
from agents.hypervisor.driver import NotRunning, OnProgress, StepFailed
from agents.hypervisor.frozen import Frozen
from agents.hypervisor.host_abilities import Abilities
from agents.hypervisor.image_cache import ImageCache
from agents.hypervisor.libvirt_connection import Connection
from agents.hypervisor.moving import Sockets

HELD = "held"


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
        shared: Path | None = None,
    ) -> None:
        self.host = host
        self.home = folder
        self.shared = shared is not None
        self.folder = (shared or folder) / "guests"
        self.images = ImageCache((shared or folder) / "images")
        self.frozen = Frozen(folder)
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

    def hold(self, id: str) -> Path:
        """Make the folder of one that this host is to have, or to have, too."""
        folder = self.of(id)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
        if self.shared:
            self.note(id, HELD).touch()
        return folder

    def holds(self, id: str) -> bool:
        """Whether this host has anything of it."""
        return self.note(id, HELD).exists() if self.shared else self.of(id).exists()

    def shares(self, id: str, host: str) -> bool:
        """Whether another host has the same files of it."""
        return self.shared and (self.of(id) / f"{HELD}.{host}").exists()

    def let_go(self, id: str) -> None:
        """Leave nothing of it but what other hosts have of it, too; disks as they found them. Blocks."""
        folder = self.of(id)
        if not self.shared_by_others(id):
            shutil.rmtree(folder, ignore_errors=True)
            return
        if self.note(id, moving.KEPT).exists():
            moving.put_back(folder)
        for what in (moving.AWAITING, moving.SENT, moving.KEPT, HELD):
            self.note(id, what).unlink(missing_ok=True)

    def shared_by_others(self, id: str) -> bool:
        mine = self.note(id, HELD)
        return self.shared and any(path != mine for path in self.of(id).glob(f"{HELD}.*"))

    def reclaim(self, id: str) -> None:
        """It is started here: what another host has made of its disks meanwhile is of no account. Blocks."""
        mine = self.note(id, moving.KEPT)
        others = [path for path in self.of(id).glob(f"{moving.KEPT}.*") if path != mine]
        if others:
            moving.put_back(self.of(id))
        for path in others:
            path.unlink(missing_ok=True)

    def note(self, id: str, what: str) -> Path:
        """Where this host notes that something is so of one of them."""
        return self.of(id) / (f"{what}.{self.host}" if self.shared else what)

    async def abilities(self) -> Abilities:
        """What the host has that makes a difference to them."""
        if self._abilities is None:
            self._abilities = await self.libvirt.call(
                lambda it: libvirt_host.abilities(it, kvm=self.kvm, dedicated_cpus=self._dedicated_cpus),
                "looking at the host",
            )
        return self._abilities

    async def on(self, id: str, doing: str, function: Callable[[Any], Any]) -> Any:
        """Do something with a domain, in a thread. A libvirtError says that there is none.

        A frozen one answers nothing that it is asked, so it is not asked: StepFailed.
        """
        if self.frozen.holds(id):
            raise StepFailed("it stands still until its host has a lease again")
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
