"""The tables a frame goes through, and the flows in them that are the same on every host. Pure.

    tap, foot, tunnel, wire ─▶ ENTRY      which port it comes from, and so which network (from a tunnel, LEARN)
                                 ▼
      of protected ports only:  MAC ▶ KIND ▶ ARP, IPV4, IPV6, ND     it is who it says it is
                                 ▼
                               MARK ▶ TRACK       DSCP; conntrack, in the zone of the network
                                 ▼
                               SENDING ▶ SENT     rules of the port it comes from
                                 ▼
                               ANSWER ▶ SWITCH    ARP and ND of ports elsewhere are answered; whom it is for
                                 ▼ (once for each)
                               RECEIVING ▶ RECEIVED   rules of the port it goes to
                                 ▼
                               COMMIT ▶ DELIVER ─▶ tap, foot, tunnel, wire

Who is where is in the log. Only MACs that come by a tunnel and are no port's own (those of `allowed address pairs`) are
learned, for a while, into LEARNED. A port stands in a register by a digest of its id, so numbers of the switch's own
ports occur in ENTRY and DELIVER only. Rules of a group stand once, whichever ports have it: SENDING and RECEIVING ask
GROUP for each of a port's groups, GROUP asks REMOTE and MEMBER for the rules that let in other groups, and who finds a
rule that fits says so in ALLOWED.
"""

from __future__ import annotations

from agents.network.ovs.flows import Flow

LEARN, LEARNED, ASTRAY = 5, 45, 46
ENTRY, MAC, KIND, ARP, IPV4, IPV6, ND, MARK, TRACK = 0, 10, 11, 12, 13, 14, 15, 18, 20
SENDING, SENT, GROUP, REMOTE, MEMBER, ANSWER, ADVERTISE, SWITCH = 30, 31, 32, 33, 34, 38, 39, 40
RECEIVING, RECEIVED, COMMIT, DELIVER = 50, 51, 60, 61

SENDER, RECEIVER, ASKED = "xreg0", "xreg1", "xreg2"
"""Digests: of the port it comes from, the port it goes to, and the group, rule or set that is asked."""
NETWORK = "reg6"
"""Number of the network on this host: its conntrack zone as well."""
ZONE = "NXM_NX_REG6[0..15]"
ABOUT = "reg7"
"""What is known of the sender, by bits."""
ELSEWHERE, LOCAL, SECURED, STATEFUL = 1, 2, 4, 8
"""It came by a tunnel or wire; it is a service that every host has for itself; the port is protected; tracked."""
ALLOWED = "reg8"
OF_RECEIVER = "reg9"
"""SECURED and STATEFUL of the port it goes to."""
FOUND = "reg10"
"""1: the MAC was learned."""
LEARNED_COOKIE = "0xc10d"
"""Of flows that the switch makes itself."""
CUT_COOKIE = "0xc10e"
"""Of flows that stand for connections which were cut."""
_LEARNED_SECONDS, _MOST_LEARNED = 300, 10_000
FABRIC = "0x1"
"""As a receiver: the tunnel or wire of the network."""

DHCP_CLIENT, DHCP_SERVER = "udp,tp_src=68,tp_dst=67", "udp,tp_src=67,tp_dst=68"
DHCP6_CLIENT, DHCP6_SERVER = "udp6,tp_src=546,tp_dst=547", "udp6,tp_src=547,tp_dst=546"
MANY = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"
"""Broadcast and multicast."""
TAGGED = "vlan_tci=0x1000/0x1000"
DROP_COUNTERS = (
    "spoofed-mac",
    "spoofed-arp",
    "spoofed-ip",
    "spoofed-nd",
    "rogue-router",
    "rogue-dhcp",
    "other-protocol",
)


def bits(register: str, value: int, mask: int | None = None) -> str:
    """A match on bits of a register."""
    return f"{register}={value:#x}/{value if mask is None else mask:#x}"


def to(table: int) -> str:
    return f"resubmit(,{table})"


def load(register: str, value: str | int) -> str:
    return f"set_field:{value:#x}->{register}" if isinstance(value, int) else f"set_field:{value}->{register}"


def dropped(table: int, match: str, why: str, priority: int = 0) -> Flow:
    return Flow(table, priority, match, "drop", why)


def _icmp6(type: int) -> str:
    return f"icmp6,icmp_type={type}"


TRACKING = f"ct(table={SENDING},zone={ZONE})"
_ESTABLISHED = ("ct_state=+trk+est-inv", "ct_state=+trk+rel-inv")

STATIC: tuple[Flow, ...] = (
    dropped(ENTRY, "", ""),
    dropped(MAC, "", "spoofed-mac"),
    # Which of the checks is the frame's.
    dropped(KIND, TAGGED, "other-protocol", 90),
    Flow(KIND, 80, "arp", to(ARP)),
    dropped(KIND, DHCP_SERVER, "rogue-dhcp", 70),
    dropped(KIND, DHCP6_SERVER, "rogue-dhcp", 70),
    dropped(KIND, _icmp6(134), "rogue-router", 70),
    dropped(KIND, _icmp6(137), "rogue-router", 70),
    Flow(KIND, 70, _icmp6(136), to(ND)),
    Flow(KIND, 70, f"{_icmp6(135)},ipv6_src=::", to(ND)),
    Flow(KIND, 60, "ip", to(IPV4)),
    Flow(KIND, 60, "ipv6", to(IPV6)),
    dropped(KIND, "", "other-protocol"),
    dropped(ARP, "", "spoofed-arp"),
    Flow(IPV4, 5, f"{DHCP_CLIENT},nw_src=0.0.0.0", to(MARK)),
    dropped(IPV4, "", "spoofed-ip"),
    *(Flow(IPV6, 5, f"{_icmp6(it)},ipv6_src=::", to(MARK)) for it in (131, 135, 143)),
    dropped(IPV6, "", "spoofed-ip"),
    dropped(ND, "", "spoofed-nd"),
    Flow(
        LEARN,
        0,
        "",
        f"learn(table={LEARNED},idle_timeout={_LEARNED_SECONDS},priority=10,cookie={LEARNED_COOKIE},limit={_MOST_LEARNED},"
        f"NXM_NX_REG6[],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:1->NXM_NX_REG10[]),{to(TRACK)}",
    ),
    Flow(ASTRAY, 10, f"{FOUND}=1", f"{load(RECEIVER, FABRIC)},{to(COMMIT)}"),
    Flow(MARK, 0, "", to(TRACK)),
    # Neighbours and listeners are no connections: conntrack would call them invalid.
    *(Flow(TRACK, 30, _icmp6(it), to(SENDING)) for it in (130, 131, 132, 133, 134, 135, 136, 137, 143)),
    Flow(TRACK, 20, f"{bits(ABOUT, STATEFUL)},ip", TRACKING),
    Flow(TRACK, 20, f"{bits(ABOUT, STATEFUL)},ipv6", TRACKING),
    Flow(TRACK, 0, "", to(SENDING)),
    # Who sends.
    Flow(SENDING, 90, bits(ABOUT, 0, SECURED), to(ANSWER)),
    Flow(SENDING, 80, "arp", to(ANSWER)),
    *(Flow(SENDING, 70, f"{bits(ABOUT, STATEFUL)},{it}", to(ANSWER)) for it in _ESTABLISHED),
    Flow(SENDING, 70, f"{bits(ABOUT, STATEFUL)},ct_state=+trk+inv", "drop"),
    Flow(SENDING, 60, DHCP_CLIENT, to(ANSWER)),
    Flow(SENDING, 60, DHCP6_CLIENT, to(ANSWER)),
    *(Flow(SENDING, 60, _icmp6(it), to(ANSWER)) for it in (130, 131, 132, 133, 135, 136, 143)),
    Flow(SENT, 10, f"{ALLOWED}=1", to(ANSWER)),
    # Who looks whether an address is taken asks from none, and gets no answer but from who has it.
    Flow(ANSWER, 30, f"{_icmp6(135)},ipv6_src=::", to(SWITCH)),
    Flow(ANSWER, 30, f"{_icmp6(135)},icmp_code=0,nd_sll=00:00:00:00:00:00", to(SWITCH)),
    Flow(ANSWER, 0, "", to(SWITCH)),
    # Who receives.
    Flow(RECEIVING, 90, bits(OF_RECEIVER, 0, SECURED), to(COMMIT)),
    Flow(RECEIVING, 80, "arp", to(COMMIT)),
    *(Flow(RECEIVING, 70, f"{bits(OF_RECEIVER, STATEFUL)},{it}", to(COMMIT)) for it in _ESTABLISHED),
    Flow(RECEIVING, 70, f"{bits(OF_RECEIVER, STATEFUL)},ct_state=+trk+inv", "drop"),
    Flow(RECEIVING, 60, DHCP_SERVER, to(COMMIT)),
    Flow(RECEIVING, 60, f"{DHCP6_SERVER},ipv6_src=fe80::/10", to(COMMIT)),
    *(Flow(RECEIVING, 60, _icmp6(it), to(COMMIT)) for it in (130, 131, 132, 134, 135, 136)),
    Flow(RECEIVED, 10, f"{ALLOWED}=1", to(COMMIT)),
    # Both agreed.
    Flow(COMMIT, 10, "ct_state=+trk+new,ip", f"ct(commit,zone={ZONE}),{to(DELIVER)}"),
    Flow(COMMIT, 10, "ct_state=+trk+new,ipv6", f"ct(commit,zone={ZONE}),{to(DELIVER)}"),
    Flow(COMMIT, 0, "", to(DELIVER)),
)
