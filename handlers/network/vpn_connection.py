"""What two sites of a VPN must have in common to be joined, checked before a connection is wished for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

from schema.network.vpn_policy import IkePolicy, IpsecPolicy
from schema.network.wiring import IkePolicyWords, IpsecPolicyWords
from schema.refusal import Invalid

SMALLEST_MTU = {4: 68, 6: 1280}


class Site(msgspec.Struct, frozen=True):
    """What a connection is to be, as far as its parts must fit each other."""

    peer_address: str
    local_cidrs: Sequence[str]
    peer_cidrs: Sequence[str]
    mtu: int
    dpd_interval: int
    dpd_timeout: int


def refuse_unfit(site: Site) -> None:
    """Raises Invalid with the reason VPNaaS has for it."""
    if site.dpd_timeout <= site.dpd_interval:
        raise Invalid(
            "ipsec_site_connection dpd_timeout is equal to or less than dpd_interval",
            code="IPsecSiteConnectionDpdIntervalValueError",
        )
    versions = {_version(cidr) for cidr in (*site.local_cidrs, *site.peer_cidrs)}
    if len(versions) > 1:
        raise Invalid(
            "Endpoints on local and peer side must all be of the same IP version.",
            code="MixedIPVersionsForIPSecEndpoints",
        )
    outer = _outer_version(site.peer_address)
    inner = next(iter(versions), outer)
    if outer and versions and outer not in versions:
        raise Invalid(
            f"Peer address {site.peer_address} and the peer's endpoints must be of the same IP version.",
            code="MixedIPVersionsForIPSecConnection",
        )
    smallest = SMALLEST_MTU[inner or 4]
    if site.mtu < smallest:
        raise Invalid(
            f"ipsec_site_connection MTU {site.mtu} is too small for ipv{inner or 4}", code="IPsecSiteConnectionMtuError"
        )


def ike_words(policy: IkePolicy) -> IkePolicyWords:
    """What a host is told of it. A lifetime in kilobytes is for the data, not for IKE: then the default one holds."""
    words = IkePolicyWords(
        version="v1" if policy.ike_version == "v1" else "v2",
        phase1_mode=policy.phase1_negotiation_mode,
        auth_algorithm=policy.auth_algorithm,
        encryption_algorithm=policy.encryption_algorithm,
        pfs=policy.pfs,
    )
    seconds = policy.lifetime_value if policy.lifetime_units == "seconds" else words.lifetime_seconds
    return msgspec.structs.replace(words, lifetime_seconds=seconds)


def ipsec_words(policy: IpsecPolicy) -> IpsecPolicyWords:
    words = IpsecPolicyWords(
        transform_protocol=policy.transform_protocol,
        encapsulation_mode=policy.encapsulation_mode,
        auth_algorithm=policy.auth_algorithm,
        encryption_algorithm=policy.encryption_algorithm,
        pfs=policy.pfs,
    )
    seconds = policy.lifetime_value if policy.lifetime_units == "seconds" else words.lifetime_seconds
    return msgspec.structs.replace(words, lifetime_seconds=seconds)


def _version(cidr: str) -> int:
    return ipaddress.ip_network(cidr, strict=False).version


def _outer_version(address: str) -> int:
    """Of a peer that is named by address; a peer named by name may be anything."""
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0
