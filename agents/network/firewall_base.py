"""What of the firewall is the same on every host: where its chains hang, who may say what, and what is always allowed.

Which ports are meant is said by the sets and maps, which agents/network/firewall_rules.py fills.
"""

from __future__ import annotations

from agents.network.links import VXLAN_PORT
from agents.network.ruleset import Hook, Place, chain

TABLE = "cumulog"
NEW, ESTABLISHED, INVALID, UNTRACKED, TRACK, LOOSE = (0xC10D0000 + it for it in range(6))
"""Marks: what conntrack said; and before it was asked, whether it is to be asked."""
CUT = 1 << 28
"""The bit in the mark of a connection that was cut."""
COUNTERS = ("spoofed-mac", "spoofed-arp", "spoofed-ip", "spoofed-nd", "rogue-router", "rogue-dhcp", "other-protocol")
ND_TARGET = "iifname . @th,64,128"
"""Of a neighbour advertisement or solicitation: the address it is about."""
_ANSWERS = {
    "established": ESTABLISHED,
    "related": ESTABLISHED,
    "invalid": INVALID,
    "new": NEW,
    "untracked": UNTRACKED,
}
_STATES = ", ".join(f"{state} : {mark}" for state, mark in _ANSWERS.items())


def at(name: str) -> Place:
    """In the bridge family."""
    return Place("bridge", name)


_DHCP4_SERVER, _DHCP6_SERVER = "udp sport 67 udp dport 68", "udp sport 547 udp dport 546"
_DHCP4_CLIENT, _DHCP6_CLIENT = "udp sport 68 udp dport 67", "udp sport 546 udp dport 547"
_OTHERS_TARGET = f'iifname != @any-target {ND_TARGET} != @targets counter name "spoofed-nd" drop'
CHAINS = {
    at("guard"): chain(
        [
            "iifname @sealed drop",
            "iifname @secured jump check",
            f"iifname @tracked meta mark set {TRACK}",
            f"ether daddr @tracked-macs meta mark set {TRACK}",
            f"meta mark != {TRACK} iifname @loose meta mark set {LOOSE}",
            f"meta mark != {TRACK} iifname @secured meta mark set {LOOSE}",
            f"meta mark != {TRACK} ether daddr @stateless-macs meta mark set {LOOSE}",
            "iifname vmap @marked",
        ],
        Hook("prerouting", -300),
    ),
    at("check"): chain(
        [
            'iifname . ether saddr != @macs counter name "spoofed-mac" drop',
            "ether type arp goto check-arp",
            "jump rogue",
            "ether type ip goto check-ip",
            "ether type ip6 goto check-ip6",
            'counter name "other-protocol" drop',
        ]
    ),
    at("check-arp"): chain(
        [
            "iifname . arp saddr ether . arp saddr ip @from4 return",
            "iifname . arp saddr ether . arp saddr ip @from4p return",
            "arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs return",
            'counter name "spoofed-arp" drop',
        ]
    ),
    at("check-ip"): chain(
        [
            "iifname . ether saddr . ip saddr @from4 return",
            "iifname . ether saddr . ip saddr @from4p return",
            f"ip saddr 0.0.0.0 {_DHCP4_CLIENT} return",
            'counter name "spoofed-ip" drop',
        ]
    ),
    at("check-ip6"): chain(
        [
            "iifname . ether saddr . ip6 saddr @from6 return",
            "iifname . ether saddr . ip6 saddr @from6p return",
            "ip6 saddr :: icmpv6 type { 131, 135, 143 } return",
            'counter name "spoofed-ip" drop',
        ]
    ),
    # Once more here, where fragments have become whole packets again.
    at("sending"): chain(["iifname @secured jump rogue", "iifname vmap @senders"], Hook("forward", -210)),
    at("receiving"): chain(["oifname @sealed drop", "oifname vmap @receivers"], Hook("forward", -200)),
    at("to-host"): chain(["iifname @secured jump rogue", "iifname vmap @senders"], Hook("input", -200)),
    at("leaving"): chain(
        [f"meta mark {{ {NEW}, {ESTABLISHED}, {INVALID}, {UNTRACKED}, {TRACK}, {LOOSE} }} meta mark set 0"],
        Hook("postrouting", 300),
    ),
    at("rogue"): chain(
        [
            f'{_DHCP4_SERVER} counter name "rogue-dhcp" drop',
            f'{_DHCP6_SERVER} counter name "rogue-dhcp" drop',
            'icmpv6 type { 134, 137 } counter name "rogue-router" drop',
            f"icmpv6 type 136 {_OTHERS_TARGET}",
            f"icmpv6 type 135 ip6 saddr :: {_OTHERS_TARGET}",
        ]
    ),
    at("always-egress"): chain(
        [
            f"ether type ip {_DHCP4_CLIENT} accept",
            f"ether type ip6 {_DHCP6_CLIENT} accept",
            "icmpv6 type { 130, 131, 132, 133, 135, 136, 143 } accept",
        ]
    ),
    at("always-ingress"): chain(
        [
            f"ether type ip {_DHCP4_SERVER} accept",
            f"ether type ip6 {_DHCP6_SERVER} ip6 saddr fe80::/10 accept",
            "icmpv6 type { 130, 131, 132, 134, 135, 136 } accept",
        ]
    ),
    # Nothing of the host is on a network's bridge: what guests are served is behind the bridge's ports.
    Place("inet", "to-host"): chain(["iifname @bridges drop"], Hook("input", -10)),
    # A tunnel is one more connection for each that goes through it, and nobody asks of its state.
    Place("inet", "tunnels"): chain([f"udp dport {VXLAN_PORT} notrack"], Hook("output", -300)),
    Place("inet", "zone"): chain(
        [
            f"meta mark {TRACK} ct zone set iifname map @zones",
            f"meta mark {LOOSE} notrack",
            f"iifname != @bridges udp dport {VXLAN_PORT} notrack",
        ],
        Hook("prerouting", -300),
    ),
    Place("inet", "state"): chain(
        [
            f"meta mark {TRACK} meta mark set ct state map {{ {_STATES} }}",
            f"meta mark {ESTABLISHED} ct mark and {CUT:#x} == {CUT:#x} meta mark set {INVALID}",
        ],
        Hook("prerouting", -150),
    ),
}
