"""The words between the control plane and a host's network agent: what the host must have, piece by piece.

    control plane ── Wiring, Lease, InstanceData ──▶ agent
    agent ── WiringReport, NetworkHeartbeat, InstanceDataWanted, PasswordPosted ──▶ control plane

What a host must have is a map of keys to pieces, each as of a position of the log; a projection keeps it. An agent
that holds everything up to a position is told what changed since, however long it was away. No event holds these words;
they travel on the bus as JSON and may be lost, doubled and late: a delta that does not follow what the agent holds is
asked for again.

    port/<id>      a port bound to this host            network/<id>   a network some piece here lies in
    router/<id>    a router that lives here             group/<id>     a security group of a port here
    members/<id>   a group or address group that a rule here names

What all hosts that have a network, or somebody's members, must have is common to them and told by element, `News`; it
goes from a host with the piece it is of:

    peer/<id>                 a port elsewhere in such a network
    endpoint/<network>/<host> a host that has it, too
    member/<id>/<address>     an address of a group or address group
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec
from msgspec import field

from schema.compute.domain import Lease, Secret, Seed, Word

NetworkType = Literal["vxlan", "vlan", "flat", "local"]
Direction = Literal["ingress", "egress"]


class Address(Word):
    """One address of a port, with what its subnet says."""

    ip: str
    subnet_id: str
    prefix_length: int


class AddressPair(Word):
    """What a port may send from besides its own. `ip` may be a CIDR."""

    ip: str
    mac_address: str


class BandwidthLimit(Word):
    direction: Direction
    """As the guest sees it: egress is what it sends."""
    max_kbps: int
    max_burst_kbps: int = 0


class Quality(Word):
    """What QoS policies say of one port or address."""

    limits: tuple[BandwidthLimit, ...] = ()
    dscp_mark: int | None = None


class DhcpOption(Word):
    name: str
    value: str
    ip_version: int = 4


class Subport(Word):
    """A port that reaches its guest tagged, over the tap of the trunk's parent."""

    port_id: str
    segmentation_id: int


class WiredPort(Word, tag="port"):
    """A port bound to this host: a guest's, whose tap the agent makes."""

    id: str
    network_id: str
    generation: int
    """The version of the port's stream; what is reported names it."""
    tap: str
    mac_address: str
    addresses: tuple[Address, ...] = ()
    address_pairs: tuple[AddressPair, ...] = ()
    admin_up: bool = True
    secured: bool = True
    """Port security: anti-spoofing and groups. Without it everything passes."""
    group_ids: tuple[str, ...] = ()
    device_id: str = ""
    device_owner: str = ""
    project_id: str = ""
    hostname: str = ""
    """Its DNS name in the network's domain."""
    dhcp_options: tuple[DhcpOption, ...] = ()
    quality: Quality = field(default_factory=Quality)
    subports: tuple[Subport, ...] = ()
    """It is a trunk's parent. The subports are pieces of their own, with `parent_id` set and no tap of their own."""
    parent_id: str = ""
    segmentation_id: int = 0
    bound_for: tuple[str, ...] = ()
    """A live migration may take it to other hosts: where they take tunnels (empty: nowhere)."""


class Peer(Word, tag="peer"):
    """A port elsewhere in a network that is here: where its frames go, and its name for DNS."""

    id: str
    network_id: str
    mac_address: str
    ips: tuple[str, ...] = ()
    endpoint_ip: str = ""
    """The tunnel endpoint of its host; empty while it has none."""
    hostname: str = ""
    more_macs: tuple[str, ...] = ()
    """Others it may send from (address pairs). Several ports may have one: who has it now, only they know."""
    host: str = ""
    """Where it is: there it is no peer."""


class Endpoint(Word, tag="endpoint"):
    """Where another host that has the network takes tunnels."""

    network_id: str
    host: str
    ip: str


class HostRoute(Word):
    destination: str
    nexthop: str


class WiredSubnet(Word):
    id: str
    cidr: str
    ip_version: int
    gateway_ip: str | None = None
    dhcp: bool = True
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[HostRoute, ...] = ()
    ipv6_address_mode: str | None = None
    """`slaac`, `dhcpv6-stateful`, `dhcpv6-stateless` or None."""
    ipv6_ra_mode: str | None = None


class WiredNetwork(Word, tag="network"):
    id: str
    project_id: str = ""
    network_type: NetworkType = "vxlan"
    segmentation_id: int | None = None
    physical_network: str | None = None
    mtu: int = 1450
    external: bool = False
    dns_domain: str = ""
    subnets: tuple[WiredSubnet, ...] = ()
    endpoints: tuple[str, ...] = ()
    """Tunnel endpoints of the other hosts that have this network: broadcasts go to each. Told as `Endpoint`s."""
    dhcp_port_id: str = ""
    """The one `network:dhcp` port of the network: each host that has the network answers DHCP, DNS, metadata at it."""
    dhcp_mac: str = ""
    dhcp_addresses: tuple[Address, ...] = ()


class WiredRule(Word):
    """A security group's rule. Ports and protocols as Neutron has them; None is any."""

    id: str
    direction: Direction
    ethertype: Literal["IPv4", "IPv6"]
    protocol: str | None = None
    """A name as Neutron keeps it (`tcp`, `icmp`, `ipv6-icmp`, …) or a number as text."""
    port_min: int | None = None
    """For icmp: the type."""
    port_max: int | None = None
    """For icmp: the code."""
    remote_prefix: str | None = None
    remote_members: str | None = None
    """Id of a security group or address group: its `members/<id>` piece."""


class WiredGroup(Word, tag="group"):
    id: str
    stateful: bool = True
    rules: tuple[WiredRule, ...] = ()


class Members(Word, tag="members"):
    """Addresses (or CIDRs) of a remote group or address group, of both families, sorted. Told as `Member`s."""

    id: str
    addresses: tuple[str, ...] = ()


class Member(Word, tag="member"):
    """One address (or CIDR) of a remote group or address group."""

    id: str
    """The group's."""
    address: str


class RouterPort(Word):
    """A router's foot in a network."""

    port_id: str
    network_id: str
    mac_address: str
    addresses: tuple[Address, ...]
    mtu: int = 1450


class FloatingAddress(Word):
    id: str
    floating_ip: str
    fixed_ip: str
    port_id: str = ""
    quality: Quality = field(default_factory=Quality)


class Forwarding(Word):
    """A floating IP's port (or range of them, equally long on both sides) forwarded inwards."""

    id: str
    floating_ip: str
    protocol: Literal["tcp", "udp"]
    external_port: int
    external_port_end: int
    internal_ip: str
    internal_port: int
    internal_port_end: int


class PreSharedKey(Secret):
    key: str = ""


class IkePolicyWords(Word):
    version: Literal["v1", "v2"] = "v2"
    phase1_mode: str = "main"
    auth_algorithm: str = "sha256"
    encryption_algorithm: str = "aes-256"
    pfs: str = "group14"
    lifetime_seconds: int = 3600


class IpsecPolicyWords(Word):
    transform_protocol: str = "esp"
    encapsulation_mode: str = "tunnel"
    auth_algorithm: str = "sha256"
    encryption_algorithm: str = "aes-256"
    pfs: str = "group14"
    lifetime_seconds: int = 3600


class SiteConnection(Word):
    """One IPsec connection of a router to a peer."""

    id: str
    local_ip: str
    local_id: str
    peer_address: str
    peer_id: str
    local_cidrs: tuple[str, ...]
    peer_cidrs: tuple[str, ...]
    initiator: Literal["bi-directional", "response-only"] = "bi-directional"
    dpd_action: str = "hold"
    dpd_interval_seconds: int = 30
    dpd_timeout_seconds: int = 120
    mtu: int = 1500
    admin_up: bool = True
    ike: IkePolicyWords = field(default_factory=IkePolicyWords)
    ipsec: IpsecPolicyWords = field(default_factory=IpsecPolicyWords)
    secret_id: str = ""
    """Where the vault keeps the key; `psk` is filled in when it is told, and is in no table."""
    psk: PreSharedKey = field(default_factory=PreSharedKey)


class WiredRouter(Word, tag="router"):
    """A router that lives on this host: a network namespace."""

    id: str
    generation: int
    admin_up: bool = True
    ports: tuple[RouterPort, ...] = ()
    gateway: RouterPort | None = None
    gateway_ips: tuple[str, ...] = ()
    """Next hops of the default routes, one per family at most."""
    snat: bool = True
    floating: tuple[FloatingAddress, ...] = ()
    forwardings: tuple[Forwarding, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    quality: Quality = field(default_factory=Quality)
    """Of the gateway."""
    connections: tuple[SiteConnection, ...] = ()
    scopes: dict[str, str] = field(default_factory=dict)
    """Subnet → address scope, of those its feet lie in that are in one."""


Piece = WiredPort | Peer | Endpoint | WiredNetwork | WiredGroup | Members | Member | WiredRouter


class NetworkHostFacts(Word):
    """What a host can do for networks. Only what seldom changes: each change is an event."""

    driver: str = "linuxbridge"
    """`linuxbridge`, `ovs` or `simulated`."""
    endpoint_ip: str = ""
    """Where it takes tunnels."""
    physical_networks: tuple[str, ...] = ()
    routes: bool = True
    """It may hold routers."""
    capabilities: tuple[str, ...] = ()
    """`vlan`, `trunk`, `vpn`, …: what not every driver and kernel can."""


class Wiring(Word, tag=True):
    """To a host: pieces as of `position`. A delta is for who has everything up to `since`; a full one for anybody."""

    epoch: int
    position: int
    since: int = 0
    full: bool = False
    pieces: dict[str, Piece] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    common: tuple[msgspec.Raw, ...] = ()
    """`News`, in their order and before all else; the same for many hosts, and written once for all of them."""


class News(Word):
    """What changed of what hosts have in common. Some of it may be of the very host that is told."""

    of: str
    """What it is of: the key of a network, or of a group's members."""
    pieces: dict[str, Piece] = field(default_factory=dict)
    gone: tuple[str, ...] = ()


class InstanceData(Secret, tag=True):
    """To a host: what the guest behind a port may learn of itself."""

    port_id: str
    server_id: str = ""
    """Empty: no server is behind that port."""
    seed: Seed | None = None


ToNetworkHost = Wiring | Lease | InstanceData


class PortSeen(Word):
    port_id: str
    generation: int
    up: bool
    """Its tap is in its bridge, its rules are in and its DHCP is ready."""
    fault: str | None = None


class RouterSeen(Word):
    router_id: str
    generation: int
    up: bool
    fault: str | None = None
    connections: dict[str, str] = field(default_factory=dict)
    """IPsec site connection → Neutron's status (`ACTIVE`, `DOWN`, `ERROR`)."""


class WiringReport(Word, tag=True):
    """From a host: what became of its pieces. Only what changed, or was asked for."""

    host: str
    epoch: int
    position: int
    """Carried out up to here."""
    ports: tuple[PortSeen, ...] = ()
    routers: tuple[RouterSeen, ...] = ()


class NetworkHeartbeat(Word, tag=True):
    """From a host: it lives, and holds everything up to `position`. Answered by a `Lease` and by what it lacks.

    Position 0: it holds nothing.
    """

    host: str
    epoch: int
    facts: NetworkHostFacts
    beat: int = 0
    position: int = 0
    missed: bool = False
    """It was told of something that does not follow what it holds."""


class InstanceDataWanted(Word, tag=True):
    """From a host: a guest asks who it is.

    Answered only for ports that are bound to that host, or lie in a network that a router there has a foot in.
    """

    host: str
    port_id: str
    router_id: str = ""
    """The router through which it asks, of a guest that is elsewhere."""


class PasswordPosted(Secret, tag=True):
    """From a host: a guest has told a password, which it has encrypted for its owner.

    Answered as `InstanceDataWanted` is, and as seldom refused: the seed says which password is kept.
    """

    host: str
    port_id: str
    password: str
    router_id: str = ""
    """The router through which it posted, of a guest that is elsewhere."""


FromNetworkHost = WiringReport | NetworkHeartbeat | InstanceDataWanted | PasswordPosted

_encoder = msgspec.json.Encoder()
_to_host = msgspec.json.Decoder(ToNetworkHost)
_from_host = msgspec.json.Decoder(FromNetworkHost)
_piece: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Piece)
_news = msgspec.json.Decoder(News)


def encode(message: ToNetworkHost | FromNetworkHost | Piece | News) -> bytes:
    return _encoder.encode(message)


def decode_to_host(message: bytes) -> ToNetworkHost:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return cast(ToNetworkHost, _to_host.decode(message))


def decode_news(message: bytes) -> News:
    """Raises as `decode_to_host`."""
    return _news.decode(message)


def decode_from_host(message: bytes) -> FromNetworkHost:
    return cast(FromNetworkHost, _from_host.decode(message))


def decode_piece(message: bytes | str) -> Piece:
    return cast(Piece, _piece.decode(message))


def link_name(host: str) -> str:
    """The name under which a host's network agent has its end of the bus, beside its hypervisor agent's."""
    return f"{host}.network"


def tap_name(port_id: str) -> str:
    """Interface of a port: `tap` and what fits of its id, as Neutron names it."""
    return f"tap{port_id[:11]}"
