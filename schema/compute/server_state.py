"""What is so of a server, and the steps that every story of one is made of."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import field
from msgspec.structs import replace

from schema.compute.move import Move
from schema.compute.nic import ServerNic
from schema.compute.server_parts import Fault, Order, Rebuild, ServerFlavor, ServerImage
from schema.compute.shelf import Shelf
from schema.compute.snapshot import Snapshot
from schema.compute.task import PowerState, Task, VmState
from schema.compute.topology import Topology
from schema.event import State

_NO_ORDER = Order(user_id="")
_NO_FLAVOR = ServerFlavor(id="", name="", vcpus=0, ram_mb=0, disk_gb=0)


class Server(State):
    name: str = ""
    project_id: str = ""
    order: Order = _NO_ORDER
    flavor: ServerFlavor = _NO_FLAVOR
    image: ServerImage | None = None
    description: str | None = None
    hostname: str = ""
    access_ipv4: str = ""
    access_ipv6: str = ""
    disk_config: Literal["MANUAL", "AUTO"] = "MANUAL"
    metadata: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    nics: tuple[ServerNic, ...] = ()
    nics_since: datetime | None = None
    """When the newest change of its cards that its host has yet to carry out was asked for."""

    vm_state: VmState = VmState.BUILDING
    task: Task | None = None
    task_since: datetime | None = None
    request_id: str = ""
    """The request that began the task: what follows it through goes by the same name."""
    power_state: PowerState = PowerState.NOSTATE
    fault: Fault | None = None
    unbidden: bool = False
    """It is where it is because its guest was found so; nobody had wished it."""
    launched_at: datetime | None = None
    """When it first ran."""

    parent_id: str | None = None
    """Its host: where its claim and (built) its disks are."""
    provider_id: str = ""
    """The host's, in placement."""
    zone: str = ""
    topology: Topology | None = None
    """The CPUs, memory and devices of its host that it has for itself."""
    left: str = ""
    """The host it came from last, until something else is wanted of it: it must keep nothing."""
    resizes: int = 0
    """How often it has become of another size where it is, but for those it went back from."""
    failed_hosts: tuple[str, ...] = ()
    """Where building it was tried in vain."""
    move: Move | None = None
    """It is on its way to another host."""
    rescue_image: ServerImage | None = None
    """What it boots from while it is rescued; its own root disk is the second one then."""
    rebuilds: int = 0
    """How often its root disk was to be made anew, ever."""
    rebuilt: int = 0
    """The newest of them that was."""
    rebuild: Rebuild | None = None
    """What its root disk is to be made from now."""
    snapshot: Snapshot | None = None
    """What its root disk is being copied into."""
    shelf: Shelf | None = None
    """It is shelved, or on the way there or back."""
    reclaim_seconds: int = 0
    """How long its deletion may be taken back."""
    soft_deleted_at: datetime | None = None
    generation: int = 0
    """Rises with every event that changes what the host should hold."""
    soft_reboots: int = 0
    hard_reboots: int = 0

    locked_by: Literal["owner", "admin"] | None = None
    locked_reason: str | None = None
    errand: str = ""
    """The request of the newest errand that was run in its guest."""
    password_id: str = ""
    """Where the vault keeps what the guest has posted for its owner."""

    @property
    def host(self) -> str | None:
        return self.parent_id

    @property
    def pinned_zone(self) -> str | None:
        """The only availability zone it may be in, if there is such a one."""
        return self.order.zone

    def nic(self, port_id: str) -> ServerNic | None:
        """The card of that port, if it has one."""
        return next((nic for nic in self.nics if nic.port_id == port_id), None)

    @property
    def unsettled(self) -> bool:
        """Cards are being plugged in or out."""
        return any(nic.standing != "plugged" for nic in self.nics)

    @property
    def built(self) -> bool:
        """It has run: its disks are on its host, or (moved) made anew there."""
        made_anew = self.task is Task.REBUILD_SPAWNING or self.vm_state is VmState.SHELVED_OFFLOADED
        return self.launched_at is not None and not made_anew

    @property
    def wants_host(self) -> bool:
        """The scheduler is to find it one."""
        return self.task is Task.SCHEDULING or (self.task is Task.UNSHELVING and self.host is None)


def placed_at(server: Server, host: str | None, provider_id: str, zone: str, topology: Topology | None) -> Server:
    """On that host, whose guest nothing is known of yet."""
    return replace(
        server,
        parent_id=host,
        provider_id=provider_id,
        zone=zone,
        topology=topology,
        power_state=PowerState.NOSTATE,
    )


def towards(server: Server, task: Task, request_id: str, at: datetime) -> Server:
    generation = server.generation + 1
    return replace(server, task=task, task_since=at, request_id=request_id, generation=generation, left="")


def at_rest(server: Server, vm_state: VmState) -> Server:
    return replace(server, vm_state=vm_state, task=None, task_since=None, request_id="")


def faulted(server: Server, fault: Fault, at: datetime) -> Server:
    return replace(server, fault=replace(fault, at=at))
