"""The words between the control plane and a hypervisor's agent: what a host should hold, and what it does hold.

    control plane ── Desired, Lease ──▶ agent ── Report, Heartbeat ──▶ control plane
    control plane ── a question ──▶ agent ── its answer        (schema/compute/question.py)

No event holds these; they travel on the bus as JSON and may be lost, doubled and late. Three numbers make that
harmless: a domain's `generation`, the lease's `epoch`, and the `position` of the log a manifest was read at.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast, dataclass_transform

import msgspec
from msgspec import Meta, field

from schema.compute.server_parts import GuestFile
from schema.compute.task import Power
from schema.compute.topology import HostCell, HostDevice, Topology

PowerSeen = Literal["running", "stopped", "paused", "suspended", "crashed", "absent"]

Count = Annotated[int, Meta(ge=0)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a message. Unknown fields are ignored, so that either end may be the newer one."""


class Secret(Word):
    """A part of a message that no log and no error text may show."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class ImageTicket(Secret):
    """Leave to read one image: sent as the header `X-Auth-Token`."""

    token: str = ""


class ImageRef(Word):
    """Where the root disk comes from."""

    id: str
    url: str
    """http, https or file."""
    checksum: str = ""
    """sha512 of the file, hexadecimal. Empty: taken on trust."""
    disk_format: str = "qcow2"
    """`qcow2` or `raw`."""
    size_bytes: Count = 0
    ticket: ImageTicket = field(default_factory=ImageTicket)


class Seed(Secret):
    """What a guest is told of itself: on its config drive, and by the metadata service of its host."""

    name: str = ""
    hostname: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    user_data: str = ""
    """Base64, as the API took it."""
    public_keys: dict[str, str] = field(default_factory=dict)
    """Name of the keypair → one line of OpenSSH."""
    admin_password: str = ""
    files: tuple[GuestFile, ...] = ()
    """Told on the config drive only."""
    network_data: dict[str, Any] = field(default_factory=dict)
    """As OpenStack's network_data.json: links, networks, services."""
    devices: list[dict[str, Any]] = field(default_factory=list)
    """As in meta_data.json: the tagged ones."""
    project_id: str = ""
    availability_zone: str = "nova"
    instance_type: str = ""
    """Name of its flavor."""
    image_id: str = ""
    reservation_id: str = ""
    launch_index: int = 0
    security_groups: tuple[str, ...] = ()
    """Their names."""
    local_ipv4: str = ""
    public_ipv4: str = ""
    """An address outside that leads to the guest, if there is one."""
    posted_password: str = ""
    """What it has posted for its owner, encrypted by itself; only the metadata service tells it again."""


class Passage(Secret):
    """A way to another host, for one server: TLS to its relay, with a secret for each channel made of this one."""

    host: str
    address: str = ""
    port: int = 0
    fingerprint: str = ""
    """SHA-256 of its certificate."""
    secret: str = ""
    """64 hexadecimal digits; empty: the way is not known as yet, and told later."""
    folder: str = ""
    """Where that host keeps the server's files."""
    disks: dict[str, int] = field(default_factory=dict)
    """Its disks there, by name, and how large each of them is, in bytes."""


class Nic(Word):
    """A network card. The tap exists when the domain starts; whoever made the port made it."""

    port_id: str
    mac_address: str
    tap: str
    mtu: int = 1500
    model: str = "virtio"


class Reboots(Word):
    """How often a reboot was asked for, ever. A reboot is a higher number, so saying it twice reboots once."""

    soft: Count = 0
    hard: Count = 0


class Snapshot(Word):
    """A copy of its root disk, as it is now, is to be sent to `url` by PUT with the ticket."""

    image_id: str
    url: str
    ticket: ImageTicket = field(default_factory=ImageTicket)


class Domain(Word):
    """What one host should hold of one server."""

    server_id: str
    name: str
    generation: int
    """The version of the server's stream this was read at. A host never goes back to a lower one."""
    power: Power
    vcpus: int = 1
    ram_mb: int = 64
    disk_gb: Count = 0
    """0: as large as the image."""
    ephemeral_gb: Count = 0
    swap_mb: Count = 0
    image: ImageRef | None = None
    built: bool = False
    """It has run before: its disks are on this host, and are never made anew from the image if they are gone."""
    config_drive: bool = False
    seed: Seed | None = None
    """May be left out once `built`."""
    reboots: Reboots = field(default_factory=Reboots)
    stop_timeout_seconds: Count = 60
    """How long a guest may take to shut down when asked to, before its power is cut. 0: cut it at once."""
    properties: dict[str, str] = field(default_factory=dict)
    """hw_*, os_* properties of the image, then hw:*, hw_rng:*, hw_video:*, os:*, quota:* extra specs of the flavor."""
    topology: Topology | None = None
    """The CPUs, memory and devices of the host that it has for itself."""
    networks: tuple[Nic, ...] = ()
    remade: Count = 0
    """How often its root disk was to be made anew from its image, ever. A rebuild is a higher number."""
    keep_ephemeral: bool = False
    """A rebuild leaves the other disks as they are."""
    resized: Count = 0
    """How often it has become of another size on this host, but for those it went back from."""
    kept: bool = False
    """It may go back to what it was before: its disks of then are kept."""
    copy_from: Passage | None = None
    """Its disks are made of those it has on another host, where it is off."""
    awaited: dict[str, int] | None = None
    """It comes from another host while it runs: make ready disks of these names and bytes, and wait."""
    send_to: Passage | None = None
    """Send it there while it runs; what is left of it here afterwards is told to go later. `topology`: of there."""
    rescue: ImageRef | None = None
    """Boot from a fresh copy of this image; its own root disk is the second one meanwhile."""
    snapshot: Snapshot | None = None


class Observed(Word):
    """What a host does hold of one server."""

    server_id: str
    power: PowerSeen = "absent"
    generation: int = 0
    """The newest generation the host has carried out, or (with a fault) has tried to."""
    reboots: Reboots = field(default_factory=Reboots)
    """Those done."""
    fault: str | None = None
    """Why the host is not where it should be, for a person to read."""
    progress: str | None = None
    """What it is doing, if that takes long."""
    position: int = 0
    """The log's position when it was built: an older manifest does not know it, and must not remove it."""
    fenced: bool = False
    """Paused because the host's lease lapsed."""
    interrupted: bool = False
    """It ran when the host went down, and has not been started since."""
    taps: tuple[str, ...] = ()
    """Of the network cards it has."""
    severed: tuple[str, ...] = ()
    """Those of them that were made anew behind its back, so that the card leads nowhere."""
    remade: Count = 0
    """As often its root disk has been made anew."""
    rescued: bool = False
    """It boots from a rescue image."""
    resized: Count = 0
    """As often it has become of another size here."""
    kept: bool = False
    """Its disks of before that are here, too."""
    awaiting: bool = False
    """Nothing of it is here, but all is ready for it to come."""
    sent: bool = False
    """It has gone to another host; only what it left behind is here."""
    snapshot: str = ""
    """The image that a copy of its root disk was sent to last."""


class HostFacts(Word):
    """What a host is. Only what seldom changes: each change is an event."""

    hostname: str = ""
    """The host's own name for itself; the control plane knows it by the name of its stream."""
    hypervisor_type: str = ""
    """`QEMU`, `KVM`, `Xen` or `simulated`."""
    hypervisor_version: int = 0
    """major * 1,000,000 + minor * 1,000 + release."""
    arch: str = ""
    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0
    cpu_info: dict[str, Any] = field(default_factory=dict)
    """`{"arch", "model", "vendor", "topology": {"sockets", "cores", "threads"}, "features": [...]}`"""
    host_ip: str = "127.0.0.1"
    ip_addresses: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    """Placement's names for what it can do."""
    fences: bool = False
    """Its guests are paused when its lease lapses, whatever becomes of its agent, so that they may run elsewhere."""
    cells: tuple[HostCell, ...] = ()
    """Its NUMA nodes."""
    dedicated_cpus: tuple[int, ...] = ()
    """Its CPUs that are for one guest at a time; all others are shared."""
    devices: tuple[HostDevice, ...] = ()
    """PCI devices it gives to guests."""
    booted_at: int = 0
    """When the machine was started, in Unix seconds; 0: not told."""


class Desired(Word, tag=True):
    """To a host: what it should hold. A nudge: it holds the whole truth about each domain in it."""

    epoch: int
    position: int
    """The log's position this was read at."""
    domains: tuple[Domain, ...] = ()
    full: bool = False
    """It is the whole manifest: what else the host holds of Cumulog goes, unless made known later than this."""


class Lease(Word, tag=True):
    """To a host: the answer to a heartbeat. It may work for `lease_seconds` from when it sent that one."""

    epoch: int
    beat: int


ToHost = Desired | Lease


class Report(Word, tag=True):
    """From a host: what changed there, or what was asked for, together."""

    host: str
    epoch: int
    observed: tuple[Observed, ...] = ()
    removed: tuple[str, ...] = ()
    """Servers it was told to hold no longer, and of which nothing is left."""
    incarnation: str = ""
    """Which life of the agent this is from; drawn at its start."""
    serial: int = 0
    """Counts up within a life: what an older one says of a server is of no account after a newer one. 0: uncounted."""


class Heartbeat(Word, tag=True):
    """From a host: it lives. Each one is answered by a `Lease`."""

    host: str
    epoch: int
    """Of its lease; 0 when it has none yet."""
    facts: HostFacts
    beat: int = 0
    """Counts up; the lease runs from the sending of the beat it answers."""
    observed_count: int = 0
    manifest_wanted: bool = False
    """It has just started, or its lease had lapsed: tell it everything it should hold (`Desired(full=True)`)."""
    uptime_seconds: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """How busy it is, by Nova's names: `cpu.percent`, between 0 and 1."""
    version: str = ""


FromHost = Report | Heartbeat


_encoder = msgspec.json.Encoder()
_to_host = msgspec.json.Decoder(ToHost)
_from_host = msgspec.json.Decoder(FromHost)


def encode(message: ToHost | FromHost) -> bytes:
    return _encoder.encode(message)


def decode_to_host(message: bytes) -> ToHost:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return cast(ToHost, _to_host.decode(message))


def decode_from_host(message: bytes) -> FromHost:
    return cast(FromHost, _from_host.decode(message))
