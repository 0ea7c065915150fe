"""Who may say what: a protected port sends from its own MACs and addresses only, as flows. Pure."""

from __future__ import annotations

import ipaddress

from agents.network.firewall_rules import sources
from agents.network.ovs.flows import Flow
from agents.network.ovs.network_flows import port_key
from agents.network.ovs.pipeline import ARP, IPV4, IPV6, KIND, MAC, MARK, ND, SENDER, to
from schema.network.wiring import WiredPort


def guard_flows(port: WiredPort) -> list[Flow]:
    """Of a port that is protected. Raises ValueError: something is no address."""
    exact, wide = sources(port)
    sender = f"{SENDER}={port_key(port.id)}"
    own = {port.mac_address.lower()} | {it.mac_address.lower() for it in port.address_pairs} - {""}
    flows = [Flow(MAC, 10, f"{sender},dl_src={mac}", to(KIND)) for mac in sorted(own)]
    flows += [Flow(ARP, 10, f"{sender},arp,arp_sha={mac},arp_spa=0.0.0.0", to(MARK)) for mac in sorted(own)]
    for mac, cidr in sorted(exact | wide):
        network = ipaddress.ip_network(cidr)
        ip = str(network.network_address if network.prefixlen == network.max_prefixlen else network)
        if network.version == 4:
            flows += [
                Flow(ARP, 10, f"{sender},arp,arp_sha={mac}{_of('arp_spa', ip)}", to(MARK)),
                Flow(IPV4, 10, f"{sender},dl_src={mac},ip{_of('nw_src', ip)}", to(MARK)),
            ]
        else:
            flows.append(Flow(IPV6, 10, f"{sender},dl_src={mac},ipv6{_of('ipv6_src', ip)}", to(MARK)))
            flows += [
                Flow(ND, 10, f"{sender},icmp6,icmp_type={kind},icmp_code=0{_of('nd_target', ip)}", to(IPV6))
                for kind in (135, 136)
            ]
    return flows


def _of(field: str, ip: str) -> str:
    return "" if ip.endswith("/0") else f",{field}={ip}"
