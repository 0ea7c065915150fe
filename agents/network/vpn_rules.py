"""IPsec site connections as strongSwan takes them: proposals, traffic selectors, what becomes of a dead peer. Pure.

Words of swanctl.conf(5): https://docs.strongswan.org/docs/latest/swanctl/swanctlConf.html
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from schema.network.wiring import SiteConnection, WiredRouter

TUNNEL = "ipsec0"
"""Interface that charon makes for what goes into its tunnels."""
UDP_PORTS = (500, 4500)
LEAST_TUNNEL_MTU = 576
OVERHEAD_BYTES = 100
"""What a tunnel adds to a packet, at most: outer IPv6, UDP, ESP, padding, and the digest."""

_GROUPS = {
    "group1": "modp768",
    "group2": "modp1024",
    "group5": "modp1536",
    "group14": "modp2048",
    "group15": "modp3072",
    "group16": "modp4096",
    "group17": "modp6144",
    "group18": "modp8192",
    "group19": "ecp256",
    "group20": "ecp384",
    "group21": "ecp521",
    "group22": "modp1024s160",
    "group23": "modp2048s224",
    "group24": "modp2048s256",
    "group25": "ecp192",
    "group26": "ecp224",
    "group27": "ecp224bp",
    "group28": "ecp256bp",
    "group29": "ecp384bp",
    "group30": "ecp512bp",
    "group31": "curve25519",
}
_DIGESTS = {
    "sha1": "sha1",
    "sha256": "sha256",
    "sha384": "sha384",
    "sha512": "sha512",
    "aes-xcbc": "aesxcbc",
    "aes-cmac": "aescmac",
}
_CIPHER = re.compile(r"(?P<name>3des|aes-(?P<bits>128|192|256))(-(?P<mode>ctr|ccm|gcm)(-(?P<tag>8|12|16))?)?")


class Unfit(Exception):
    """What of a connection cannot be done here, for a person to read."""


class Loaded(msgspec.Struct, frozen=True):
    """What is told to the daemon of one connection. `name` tells of all of it: what is changed has another."""

    name: str
    connection_id: str
    connection: Mapping[str, Any]
    shared: Mapping[str, Any]
    children: int
    """So many must be up for the connection to be."""
    calls: bool = False
    """This end calls the other, again and again."""


def loaded(it: SiteConnection) -> Loaded:
    """Raises Unfit."""
    if it.ipsec.transform_protocol != "esp":
        raise Unfit(f"transform protocol {it.ipsec.transform_protocol} is not there: only esp is")
    if it.ipsec.encapsulation_mode != "tunnel":
        raise Unfit(f"encapsulation mode {it.ipsec.encapsulation_mode} is not there: only tunnel is")
    if not it.local_ip:
        raise Unfit("its router has no address outside")
    if not it.psk.key:
        raise Unfit("its pre-shared key is not known here")
    children = dict(_children(it))
    connection = {
        "version": "1" if it.ike.version == "v1" else "2",
        "aggressive": "yes" if it.ike.version == "v1" and it.ike.phase1_mode == "aggressive" else "no",
        "local_addrs": [it.local_ip],
        "remote_addrs": [it.peer_address],
        "proposals": [_proposal(it.ike.encryption_algorithm, it.ike.auth_algorithm, it.ike.pfs, of_ike=True)],
        "rekey_time": f"{_rekey(it.ike.lifetime_seconds)}s",
        "over_time": f"{it.ike.lifetime_seconds - _rekey(it.ike.lifetime_seconds)}s",
        "dpd_delay": "0s" if it.dpd_action == "disabled" else f"{it.dpd_interval_seconds}s",
        "dpd_timeout": f"{it.dpd_timeout_seconds}s",
        "keyingtries": "0",
        "mobike": "no",
        "unique": "replace",
        "local": {"auth": "psk", "id": it.local_id},
        "remote": {"auth": "psk", "id": it.peer_id},
        "children": children,
    }
    shared = {"type": "IKE", "data": it.psk.key, "owners": [it.local_id, it.peer_id]}
    digest = hashlib.sha256(msgspec.json.encode([connection, shared])).hexdigest()[:12]
    name = f"{it.id}.{digest}"
    calls = it.initiator == "bi-directional" and it.dpd_action != "clear"
    return Loaded(name, it.id, connection, {"id": name, **shared}, len(children), calls)


def connection_of(name: str) -> str:
    """Id of the connection that a name is of."""
    return name.rpartition(".")[0]


def tunnel_mtu(router: WiredRouter) -> int:
    """Of what goes into the tunnels: the least that any connection, or the way out, lets pass."""
    outer = router.gateway.mtu if router.gateway else 1500
    return max(LEAST_TUNNEL_MTU, min([outer - OVERHEAD_BYTES, *(it.mtu for it in router.connections)]))


def settings(folder: str, socket: str, gateway: str) -> str:
    """strongswan.conf of a router's daemon. `gateway`: the outer interface, the only one it looks at.

    The kernel's own IPsec is not asked for: packets are carried in user space, in UDP. Routes are the router's.
    """
    return f"""charon-systemd {{
  load = {" ".join(_PLUGINS)}
  install_routes = no
  install_virtual_ip = no
  interfaces_use = {gateway}
  i_dont_care_about_security_and_use_aggressive_mode_psk = yes
  retry_initiate_interval = 5s
  retransmit_timeout = 2.0
  retransmit_tries = 3
  threads = 16
  plugins {{
    vici {{
      socket = unix://{socket}
    }}
  }}
  filelog {{
    audit {{
      path = {folder}/log
      append = yes
      flush_line = yes
      default = 0
      ike = 1
    }}
  }}
  journal {{
    default = -1
  }}
}}
"""


_PLUGINS = (
    *("random", "nonce", "aes", "sha1", "sha2", "md5", "hmac", "kdf", "xcbc", "cmac", "gmp", "openssl", "gcm", "drbg"),
    *("kernel-libipsec", "kernel-netlink", "socket-default", "vici"),
)
"""kernel-libipsec before kernel-netlink, or the kernel would be asked for IPsec."""


def _children(it: SiteConnection) -> Iterable[tuple[str, dict[str, Any]]]:
    """One for all networks on both sides, but IKEv1 knows one of each at a time."""
    sides: Iterable[tuple[list[str], list[str]]]
    if it.ike.version == "v1":
        sides = [([near], [far]) for near, far in itertools.product(it.local_cidrs, it.peer_cidrs)]
    else:
        sides = [(list(it.local_cidrs), list(it.peer_cidrs))]
    starts = it.initiator == "bi-directional"
    again = "start" if starts and it.dpd_action != "clear" else "none"
    dead = "restart" if starts and it.dpd_action in {"hold", "restart", "restart-by-peer"} else "clear"
    for number, (near, far) in enumerate(sides):
        yield (
            f"net{number}",
            {
                "local_ts": near,
                "remote_ts": far,
                "mode": "tunnel",
                "esp_proposals": [
                    _proposal(it.ipsec.encryption_algorithm, it.ipsec.auth_algorithm, it.ipsec.pfs, of_ike=False)
                ],
                "rekey_time": f"{_rekey(it.ipsec.lifetime_seconds)}s",
                "life_time": f"{it.ipsec.lifetime_seconds}s",
                "dpd_action": dead,
                "start_action": "start" if starts else "none",
                "close_action": again,
            },
        )


def _proposal(cipher: str, digest: str, group: str, *, of_ike: bool) -> str:
    """Ciphers that prove themselves need a digest for IKE's keys alone. Raises Unfit."""
    found = _CIPHER.fullmatch(cipher)
    if not found:
        raise Unfit(f"encryption algorithm {cipher} is not known here")
    if digest not in _DIGESTS:
        raise Unfit(f"authentication algorithm {digest} is not known here")
    if group not in _GROUPS:
        raise Unfit(f"perfect forward secrecy by {group} is not known here")
    mode, tag = found["mode"] or "", found["tag"] or ""
    parts = [f"aes{found['bits']}{mode}{tag}" if found["bits"] else "3des"]
    if mode not in {"ccm", "gcm"}:
        parts.append(_DIGESTS[digest])
    elif of_ike:
        parts.append(f"prf{_DIGESTS[digest]}")
    return "-".join([*parts, _GROUPS[group]])


def _rekey(lifetime_seconds: int) -> int:
    """When new keys are agreed on, some time before the old ones lapse."""
    return lifetime_seconds - max(lifetime_seconds // 10, 1)
