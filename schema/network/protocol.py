"""IP protocols by the names that security group rules know them by."""

from __future__ import annotations

NUMBERS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": 1,
    "igmp": 2,
    "ip": 0,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
"""As Neutron names them, by IANA's numbers."""
ANY = 0
"""No protocol in particular: what `ip` says, and a rule that names none."""
ICMP, ICMP_V6 = 1, 58
WITH_PORTS = ("dccp", "sctp", "tcp", "udp", "udplite")
PORTED = frozenset(NUMBERS[name] for name in WITH_PORTS)


def number(protocol: str) -> int:
    """A protocol's number, given its name or number. Raises ValueError."""
    found = NUMBERS[protocol] if protocol in NUMBERS else int(protocol)
    if not 0 <= found <= 255:
        raise ValueError(f"{protocol} is no IP protocol: use a name such as tcp, or a number from 0 to 255")
    return found
