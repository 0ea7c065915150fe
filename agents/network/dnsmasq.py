"""What a network's dnsmasq reads: its configuration, and small files of leases, options and names, one per port.

    <folder>/dnsmasq.<digest>.conf   what the process is started with; another text, another name, another process
    <folder>/hosts/<port>            who gets which address (--dhcp-hostsdir)
    <folder>/options/<port>          options of one port alone (--dhcp-optsdir)
    <folder>/names/<port>            names of ports here and elsewhere (--hostsdir)

dnsmasq takes new files of these folders in as they appear, so a new port needs neither a restart nor a signal. Only
addresses that were allotted are served; nobody else is answered. Pure, but for nothing: texts in, texts out.
Options: https://thekelleys.org.uk/dnsmasq/docs/dnsmasq-man.html
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence

from schema.compute.domain import Word
from schema.network.wiring import WiredNetwork, WiredPort, WiredSubnet

LEASE_SECONDS = 86400
MOST_LEASES = 65536
METADATA_ADDRESS = "169.254.169.254"
METADATA_ADDRESS_6 = "fe80::a9fe:a9fe"
DEFAULT_DOMAIN = "openstacklocal"
"""Of networks without a dns_domain."""
MOST_OPTIONS = 64
"""Of one port."""

_LABELS = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_OPTION_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class Served(Word):
    """A subnet, and the address at which it is served here."""

    subnet: WiredSubnet
    server_ip: str


class ServerFiles(Word):
    """Text of a port's files; empty: it has none of that kind."""

    hosts: str = ""
    options: str = ""
    names: str = ""


def served(network: WiredNetwork) -> list[Served]:
    """The subnets with DHCP in which the network's DHCP port has an address."""
    at = {address.subnet_id: address.ip for address in network.dhcp_addresses}
    return [Served(subnet=it, server_ip=at[it.id]) for it in network.subnets if it.dhcp and it.id in at]


def unserved(network: WiredNetwork) -> list[WiredSubnet]:
    """Those with DHCP that cannot be served, since the DHCP port has no address in them."""
    at = {address.subnet_id for address in network.dhcp_addresses}
    return [it for it in network.subnets if it.dhcp and it.id not in at and (it.ip_version == 4 or _managed(it))]


def configuration(network: WiredNetwork, interface: str, index: int, folder: str) -> str:
    """What the process is started with. `index`: of the interface; another one needs another process."""
    domain = domain_of(network)
    subnets = served(network)
    lines = [
        f"# network {network.id}, interface number {index}",
        "no-resolv",
        "no-hosts",
        "user=root",
        "bind-dynamic",
        f"interface={interface}",
        "except-interface=lo",
        f"dhcp-leasefile={folder}/leases",
        f"log-facility={folder}/log",
        "quiet-dhcp",
        "quiet-dhcp6",
        f"dhcp-hostsdir={folder}/hosts",
        f"dhcp-optsdir={folder}/options",
        f"hostsdir={folder}/names",
        f"dhcp-lease-max={MOST_LEASES}",
        "dhcp-authoritative",
        "dhcp-ignore=tag:!known",
        f"domain={domain}",
        f"local=/{domain}/",
        "bogus-priv",
        "domain-needed",
        f"dhcp-option-force=option:mtu,{network.mtu}",
    ]
    upstream = {it: None for served in subnets for it in _valid_ips(served.subnet.dns_nameservers)}
    lines += [f"server={ip}" for ip in upstream]
    for it in subnets:
        lines += _range_of_6(it, domain) if it.subnet.ip_version == 6 else _range_of_4(it, subnets)
    return "\n".join(lines) + "\n"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def files_of_port(network: WiredNetwork, port: WiredPort) -> ServerFiles:
    """Of a port here: its leases, its own options, its names."""
    leases = _leases(network, port)
    return ServerFiles(
        hosts=leases,
        options=_options(port) if leases else "",
        names=names(network, port.hostname, [address.ip for address in port.addresses]),
    )


def names(network: WiredNetwork, hostname: str, ips: Sequence[str]) -> str:
    """Lines as of /etc/hosts: addresses with the full name, which is also what they resolve back to, and the short."""
    lines = []
    for ip in _valid_ips(ips):
        name = name_of(hostname, ip)
        lines.append(f"{ip} {name}.{domain_of(network)} {name}\n")
    return "".join(lines)


def name_of(hostname: str, ip: str) -> str:
    """A port's DNS name, or one made from an address where it has none that is fit for DNS."""
    given = hostname.lower().rstrip(".")
    return given if _LABELS.fullmatch(given) else "host-" + re.sub(r"[.:]+", "-", ip).strip("-")


def domain_of(network: WiredNetwork) -> str:
    given = network.dns_domain.lower().strip(".")
    return given if _LABELS.fullmatch(given) else DEFAULT_DOMAIN


def _range_of_4(it: Served, all_of_network: Sequence[Served]) -> list[str]:
    subnet, tag = it.subnet, f"tag:{it.subnet.id}"
    network = ipaddress.IPv4Network(subnet.cidr)
    nameservers = [ip for ip in _valid_ips(subnet.dns_nameservers) if ":" not in ip]
    routes = [
        f"{route.destination},{route.nexthop}"
        for route in subnet.host_routes
        if _is_network(route.destination) and _valid_ips([route.nexthop])
    ]
    routes.append(f"{METADATA_ADDRESS}/32,{it.server_ip}")
    routes += [
        f"{other.subnet.cidr},0.0.0.0"
        for other in all_of_network
        if other.subnet.ip_version == 4 and other.subnet.cidr != subnet.cidr
    ]
    if subnet.gateway_ip and not any(route.destination == "0.0.0.0/0" for route in subnet.host_routes):
        routes.append(f"0.0.0.0/0,{subnet.gateway_ip}")
    return [
        f"dhcp-range=set:{subnet.id},{network.network_address},static,{network.netmask},{LEASE_SECONDS}s",
        # Without a value it is not sent: else dnsmasq names itself.
        f"dhcp-option={tag},option:router" + (f",{subnet.gateway_ip}" if subnet.gateway_ip else ""),
        f"dhcp-option={tag},option:dns-server,{','.join(nameservers) or '0.0.0.0'}",
        f"dhcp-option={tag},option:classless-static-route,{','.join(routes)}",
        f"dhcp-option={tag},249,{','.join(routes)}",
    ]


def _range_of_6(it: Served, domain: str) -> list[str]:
    subnet, tag = it.subnet, f"tag:{it.subnet.id}"
    if not _managed(subnet):
        return []
    network = ipaddress.IPv6Network(subnet.cidr)
    nameservers = [ip for ip in _valid_ips(subnet.dns_nameservers) if ":" in ip]
    return [
        f"dhcp-range=set:{subnet.id},{network.network_address},static,{network.prefixlen},{LEASE_SECONDS}s",
        f"dhcp-option={tag},option6:dns-server,{','.join(f'[{ip}]' for ip in nameservers) or '[::]'}",
        f"dhcp-option={tag},option6:domain-search,{domain}",
    ]


def _managed(subnet: WiredSubnet) -> bool:
    """DHCPv6 has a part in it, if only for the nameservers."""
    return "dhcpv6-stateful" in _modes(subnet) or "dhcpv6-stateless" in _modes(subnet)


def _modes(subnet: WiredSubnet) -> set[str | None]:
    return {subnet.ipv6_address_mode, subnet.ipv6_ra_mode}


def _leases(network: WiredNetwork, port: WiredPort) -> str:
    """A line with the first IPv4 address and all leased IPv6 addresses; one more for each further IPv4 address.

    In one line, since dnsmasq takes the first that names the MAC and fits the subnet.
    """
    by_id = {it.subnet.id: it.subnet for it in served(network)}
    of_4 = [it for it in port.addresses if it.subnet_id in by_id and by_id[it.subnet_id].ip_version == 4]
    of_6 = [it for it in port.addresses if it.subnet_id in by_id and _leased_6(by_id[it.subnet_id])]
    informed = any(it.subnet_id in by_id and _managed(by_id[it.subnet_id]) for it in port.addresses)
    if not (of_4 or of_6 or informed):
        return ""
    lines = []
    for first, four in enumerate(of_4 or [None]):
        six = [f"[{it.ip}]" for it in of_6] if not first else []
        name = name_of(port.hostname, (four or (of_6 or port.addresses)[0]).ip).partition(".")[0]
        parts = [port.mac_address.lower(), f"set:{port.id}", *six, *([four.ip] if four else []), name]
        lines.append(",".join(parts) + "\n")
    return "".join(lines)


def _leased_6(subnet: WiredSubnet) -> bool:
    mode = subnet.ipv6_address_mode or subnet.ipv6_ra_mode
    return subnet.ip_version == 6 and mode == "dhcpv6-stateful"


def _options(port: WiredPort) -> str:
    lines = []
    for option in port.dhcp_options[:MOST_OPTIONS]:
        name, value = option.name.lower(), option.value
        if not _OPTION_NAME.fullmatch(name) or not value.isprintable():
            continue
        family = "option6" if option.ip_version == 6 else "option"
        code = name if name.isdigit() and option.ip_version == 4 else f"{family}:{name}"
        lines.append(f"tag:{port.id},{code},{value}\n")
    return "".join(lines)


def _valid_ips(ips: Iterable[str]) -> list[str]:
    return [ip for ip in ips if _is_ip(ip)]


def _is_ip(ip: str) -> bool:
    try:
        ipaddress.ip_address(ip)
    except ValueError:
        return False
    return True


def _is_network(cidr: str) -> bool:
    try:
        ipaddress.ip_network(cidr)
    except ValueError:
        return False
    return True


def link_local(mac: str) -> str:
    """The IPv6 address that a card gives itself from its MAC (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    host = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + host))


def addresses_inside(network: WiredNetwork) -> list[str]:
    """What the interface in the namespace must have, with prefixes."""
    own = [f"{it.ip}/{it.prefix_length}" for it in network.dhcp_addresses]
    return [*own, f"{METADATA_ADDRESS}/32", f"{METADATA_ADDRESS_6}/64", f"{link_local(network.dhcp_mac)}/64"]


def neighbours(port: WiredPort) -> dict[str, str]:
    """Address → MAC of a port here: what is said to an address goes to whose it is, whoever else claims it."""
    ips = [address.ip for address in port.addresses]
    return dict.fromkeys([*_valid_ips(ips), link_local(port.mac_address)], port.mac_address.lower())
