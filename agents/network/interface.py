"""One interface of a service's namespace: its number, its addresses, and the neighbours it takes for granted.

Synchronous; to be run in a thread that may enter a namespace for a moment.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agents.network.namespace import enter

_PERMANENT = 0x80
_NO_DAD = 0x02


def index_of(namespace: str, interface: str) -> int:
    """Its number. Raises OSError when there is no such namespace, or no such interface in it."""
    with _inside(namespace, interface) as (_, index):
        return index


def set_addresses(namespace: str, interface: str, wanted: Iterable[str]) -> int:
    """Have it have these, with their prefixes, and no others; its number. Raises OSError."""
    with _inside(namespace, interface) as (netlink, index):
        there = {
            f"{_value(it, 'IFA_LOCAL') or _value(it, 'IFA_ADDRESS')}/{it['prefixlen']}"
            for it in netlink.get_addr(index=index)
        }
        asked = {str(ipaddress.ip_interface(it)) for it in wanted}
        for address in sorted(asked - there):
            ip, _, length = address.partition("/")
            netlink.addr("replace", index=index, address=ip, prefixlen=int(length), flags=_NO_DAD)
        for address in sorted(there - asked):
            ip, _, length = address.partition("/")
            netlink.addr("del", index=index, address=ip, prefixlen=int(length))
        return index


def set_neighbours(
    namespace: str, interface: str, wanted: Mapping[str, str], *, no_others: bool, among: Container[str] | None = None
) -> None:
    """Address → MAC: for good, whatever anybody answers.

    `no_others`: those of before go, or those `among` these addresses. Raises OSError.
    """
    with _inside(namespace, interface) as (netlink, index):
        there: dict[str, str] = {}
        if no_others:
            for family in (socket.AF_INET, socket.AF_INET6):
                for it in netlink.get_neighbours(family, ifindex=index, state=_PERMANENT):
                    there[_value(it, "NDA_DST")] = _value(it, "NDA_LLADDR")
        for ip, mac in wanted.items():
            if there.get(ip) != mac:
                netlink.neigh("replace", dst=ip, lladdr=mac, ifindex=index, family=_family(ip), state=_PERMANENT)
        for ip in [it for it in there.keys() - wanted.keys() if among is None or it in among]:
            netlink.neigh("del", dst=ip, lladdr=there[ip], ifindex=index, family=_family(ip))


@contextmanager
def _inside(namespace: str, interface: str) -> Iterator[tuple[Any, int]]:
    """A netlink socket in there, and the interface's number."""
    try:
        with enter(namespace), IPRoute() as netlink:
            found = netlink.link_lookup(ifname=interface)
            if not found:
                raise OSError(f"there is no interface {interface} in namespace {namespace}")
            yield netlink, found[0]
    except NetlinkError as error:
        raise OSError(error.code, f"{interface} in namespace {namespace}: {error}") from error


def _value(message: Any, name: str) -> str:
    return str(message.get_attr(name) or "")


def _family(ip: str) -> int:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET
