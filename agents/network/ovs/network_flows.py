"""Who is where, as flows: ports, feet, tunnel or wire of each network; what is answered for ports elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agents.network.ovs.flows import Flow, key
from agents.network.ovs.pipeline import (
    ABOUT,
    ADVERTISE,
    ANSWER,
    ASTRAY,
    COMMIT,
    DELIVER,
    ELSEWHERE,
    ENTRY,
    FABRIC,
    FOUND,
    LEARN,
    LEARNED,
    LOCAL,
    MAC,
    MANY,
    MARK,
    NETWORK,
    OF_RECEIVER,
    RECEIVER,
    RECEIVING,
    SECURED,
    SENDER,
    STATEFUL,
    SWITCH,
    TRACK,
    TRACKING,
    bits,
    load,
    to,
)
from agents.network.switch import Attachment
from schema.network.wiring import Peer, WiredPort

_UNTAGGED = "vlan_tci=0x0000/0x1000"
_TAGGED_BIT = 0x1000
_FROM_ELSEWHERE, _FROM_LOCAL, _FROM_HERE = bits(ABOUT, ELSEWHERE), bits(ABOUT, LOCAL), bits(ABOUT, 0, ELSEWHERE)
_SOLICITED, _OVERRIDE = 1 << 30, 1 << 29


class Place(msgspec.Struct, frozen=True):
    """Where frames enter and leave the switch."""

    number: int
    """Of the switch's port."""
    tag: int | None = None
    """Frames bear it there. 0: they bear none, and those that do are another's; None: whatever they bear."""
    meter: int = 0
    """Holds back what comes in, if not 0."""
    meter_out: int = 0
    """Holds back what goes out, if not 0."""
    mac_address: str = ""
    """Of an operator's interface: what is for it is for the host, which gets it beside the switch."""


class Receiver(msgspec.Struct, frozen=True):
    """Whom a frame may be for, in a network."""

    key: str
    macs: tuple[str, ...]
    """Its own first."""
    about: int = 0
    guest: bool = True
    moving: bool = False
    """A live migration may bring it here, or take it away: who has its MAC now, here or elsewhere, is not known."""
    local: bool = False
    """A service that every host has for itself."""

    @property
    def given(self) -> str:
        """Actions: hand the frame to it."""
        if not self.guest:
            return f"{load(RECEIVER, self.key)},{to(COMMIT)}"
        return f"{load(RECEIVER, self.key)},{load(OF_RECEIVER, self.about)},{to(RECEIVING)}"


def receiver_of_port(port: WiredPort, *, tracked: bool, moving: bool = False) -> Receiver:
    own = port.mac_address.lower()
    others = sorted({it.mac_address.lower() for it in port.address_pairs if it.mac_address} - {own})
    return Receiver(port_key(port.id), (own, *others), _about(port, tracked=tracked), moving=moving)


def receiver_of_foot(foot: Attachment) -> Receiver:
    return Receiver(port_key(foot.port_id), (foot.mac_address.lower(),), guest=False, local=foot.local)


def port_flows(port: WiredPort, place: Place, network: int, *, tracked: bool) -> list[Flow]:
    """Of a guest's port: how frames come from it, what is marked and tracked, how they are delivered to it."""
    it = receiver_of_port(port, tracked=tracked)
    flows = [
        _entry(place, it.key, network, it.about, MAC if port.secured else MARK),
        Flow(DELIVER, 10, f"{RECEIVER}={it.key}", _out(place)),
    ]
    if port.quality.dscp_mark is not None:
        marked = f"set_field:{port.quality.dscp_mark}->ip_dscp,{to(TRACK)}"
        flows += [Flow(MARK, 10, f"{SENDER}={it.key},{family}", marked) for family in ("ip", "ipv6")]
    if tracked:
        flows += [
            Flow(TRACK, 10, f"{NETWORK}={network},dl_dst={mac},{family}", TRACKING)
            for mac in it.macs
            for family in ("ip", "ipv6")
        ]
    return flows


def foot_flows(foot: Attachment, place: Place, network: int) -> list[Flow]:
    """Of a service's foot, which is trusted."""
    it = port_key(foot.port_id)
    about = LOCAL if foot.local else 0
    return [_entry(place, it, network, about, TRACK), Flow(DELIVER, 10, f"{RECEIVER}={it}", _out(place))]


def fabric_flows(place: Place, network: int) -> list[Flow]:
    """Of the network's tunnel or wire."""
    flows = [
        _entry(place, FABRIC, network, ELSEWHERE, LEARN if place.tag is None else TRACK),
        Flow(DELIVER, 10, f"{NETWORK}={network},{RECEIVER}={FABRIC}", _out(place)),
    ]
    if place.mac_address:
        flows.append(Flow(ENTRY, 20, f"in_port={place.number},dl_dst={place.mac_address}", "drop"))
    return flows


def network_flows(network: int, receivers: Sequence[Receiver], *, tunnel: bool, wire: bool) -> list[Flow]:
    """Whom frames in a network are for.

    What is for nobody known here goes out by a wire, and to ports without port security: others' MACs may be there. By
    a tunnel goes only what is for a port elsewhere, or for a MAC that came from there.
    """
    to_fabric = [f"{load(RECEIVER, FABRIC)},{to(COMMIT)}"] if tunnel or wire else []
    here = f"{NETWORK}={network}"
    flows: list[Flow] = []
    for mac, those in _by_mac(receivers).items():
        own = any(it.macs[0] == mac and not it.moving for it in those)
        given = [it.given for it in those if it.macs[0] == mac or not own]
        if own:
            only = f",{_FROM_HERE}" if all(it.local for it in those) else ""
            flows.append(Flow(SWITCH, 20, f"{here},dl_dst={mac}{only}", _all(given)))
        else:  # who has it now, only they know
            flows += _unless_from_afar(20, f"{here},dl_dst={mac}", given, to_fabric)
    everybody = [it.given for it in receivers if not it.local]
    local = [it.given for it in receivers if it.local]
    flows += _unless_from_afar(10, f"{here},{MANY}", everybody, to_fabric, local)
    open_ports = [it.given for it in receivers if it.guest and not it.about & SECURED]
    learned = [f"{load(FOUND, 0)},{to(LEARNED)},{to(ASTRAY)}"] if tunnel else []
    flows += _unless_from_afar(5, here, open_ports, to_fabric if wire else learned)
    return flows


def peer_flows(peer: Peer, network: int) -> list[Flow]:
    """What is for it goes out, and who asks for its address is answered here."""
    mac = peer.mac_address.lower()
    out = f"{load(RECEIVER, FABRIC)},{to(COMMIT)}"
    flows = [
        Flow(SWITCH, 15, f"{NETWORK}={network},{bits(ABOUT, 0, ELSEWHERE | LOCAL)},dl_dst={mac}", out),
        Flow(LEARN, 10, f"{NETWORK}={network},dl_src={mac}", to(TRACK)),
    ]
    flows += [
        Flow(SWITCH, 14, f"{NETWORK}={network},{bits(ABOUT, 0, ELSEWHERE | LOCAL)},dl_dst={it}", out)
        for it in peer.more_macs  # of several that have it, all say the same
    ]
    back = f"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:{mac}->eth_src"
    returned = f"move:NXM_NX_XXREG0[64..127]->NXM_NX_XXREG0[0..63],load:0->NXM_OF_IN_PORT[],{to(DELIVER)}"
    for ip in peer.ips if peer.endpoint_ip else ():
        asked = f"{NETWORK}={network},{_FROM_HERE}"
        if ":" in ip:
            # The target's address can only be set in what is an advertisement already.
            flows.append(
                Flow(
                    ANSWER,
                    20,
                    f"{asked},icmp6,icmp_type=135,icmp_code=0,nd_target={ip}",
                    f"set_field:136->icmpv6_type,{to(ADVERTISE)}",
                )
            )
            answer = (
                f"{back},move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[],set_field:{ip}->ipv6_src,"
                f"set_field:{_SOLICITED | _OVERRIDE:#x}->nd_reserved,"
                f"set_field:2->nd_options_type,set_field:{mac}->nd_tll,{returned}"
            )
            flows.append(
                Flow(
                    ADVERTISE,
                    10,
                    f"{NETWORK}={network},icmp6,icmp_type=136,icmp_code=0,nd_target={ip}",
                    answer,
                )
            )
        else:
            answer = (
                f"{back},set_field:2->arp_op,move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],set_field:{mac}->arp_sha,"
                f"move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],set_field:{ip}->arp_spa,{returned}"
            )
            flows.append(Flow(ANSWER, 20, f"{asked},arp,arp_op=1,arp_tpa={ip}", answer))
    return flows


def port_key(id: str) -> str:
    return key("port", id)


def _about(port: WiredPort, *, tracked: bool) -> int:
    return (SECURED if port.secured else 0) | (STATEFUL if tracked else 0)


def _entry(place: Place, sender: str, network: int, about: int, table: int) -> Flow:
    match, first = f"in_port={place.number}", ""
    if place.tag == 0:
        match += f",{_UNTAGGED}"
    elif place.tag is not None:
        match, first = f"{match},dl_vlan={place.tag}", "pop_vlan,"
    if place.meter:
        first = f"meter:{place.meter},{first}"
    words = ",".join((load(SENDER, sender), load(NETWORK, network), load(ABOUT, about), to(table)))
    return Flow(ENTRY, 10, match, first + words)


def _out(place: Place) -> str:
    output = f"output:{place.number}"
    if place.tag:
        # Whoever gets the frame after this one gets it without the tag.
        output = f"push_vlan:0x8100,set_field:{place.tag | _TAGGED_BIT}->vlan_vid,{output}"
    if place.meter_out:
        output = f"meter:{place.meter_out},{output}"
    return f"clone({output})" if "," in output else output


def _by_mac(receivers: Iterable[Receiver]) -> Mapping[str, list[Receiver]]:
    found: dict[str, list[Receiver]] = {}
    for it in receivers:
        for mac in it.macs:
            found.setdefault(mac, []).append(it)
    return found


def _unless_from_afar(
    priority: int, match: str, given: Sequence[str], to_fabric: Sequence[str], local: Sequence[str] = ()
) -> list[Flow]:
    """What came from elsewhere does not go back there, and what is every host's own stays here."""
    return [
        Flow(SWITCH, priority, match, _all([*given, *local, *to_fabric])),
        Flow(SWITCH, priority + 1, f"{match},{_FROM_LOCAL}", _all([*given, *local])),
        Flow(SWITCH, priority + 2, f"{match},{_FROM_ELSEWHERE}", _all(given)),
    ]


def _all(actions: Sequence[str]) -> str:
    return ",".join(actions) or "drop"
