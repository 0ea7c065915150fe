"""One interface of a service's namespace: its number, its addresses, and the neighbours it takes for granted.

Synchronous; to be run in a thread that may enter a namespace for a moment.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from agents.network import forwarding, netlink
from agents.network.forwarding import Neighbour
from agents.network.links import ip_bytes
from agents.network.namespace import enter
from agents.network.netlink import Request, attribute

_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_HEAD = struct.Struct("=BBBBi")
_ADDRESS, _LOCAL = 1, 2
_NO_DAD = 0x02


def index_of(namespace: str, interface: str) -> int:
    """Its number. Raises OSError when there is no such namespace, or no such interface in it."""
    with enter(namespace):
        return _index(namespace, interface)


def set_addresses(namespace: str, interface: str, wanted: Iterable[str]) -> int:
    """Have it have these, with their prefixes, and no others; its number. Raises OSError."""
    with _inside(namespace, interface) as (kernel, index):
        asked, there = {str(ipaddress.ip_interface(it)) for it in wanted}, set(_addresses(kernel, index))
        added = [_address(_NEW_ADDRESS, index, it) for it in sorted(asked - there)]
        _send(kernel, [*added, *(_address(_DELETE_ADDRESS, index, it) for it in sorted(there - asked))])
        return index


def set_neighbours(
    namespace: str, interface: str, wanted: Mapping[str, str], *, no_others: bool, among: Container[str] | None = None
) -> None:
    """Address → MAC: for good, whatever anybody answers.

    `no_others`: those of before go, or those `among` these addresses. Raises OSError.
    """
    with _inside(namespace, interface) as (kernel, index):
        known = (it for device, it in forwarding.all_neighbours(kernel) if device == index) if no_others else ()
        there = {it.ip: it for it in known}
        asked = {ip: Neighbour(ip, mac) for ip, mac in wanted.items()}
        gone = [it for ip, it in there.items() if ip not in asked and (among is None or ip in among)]
        requests = [forwarding.know(index, it) for ip, it in asked.items() if there.get(ip) != it]
        _send(kernel, [*requests, *(forwarding.forget(index, it) for it in gone)])


@contextmanager
def _inside(namespace: str, interface: str) -> Iterator[tuple[netlink.Socket, int]]:
    """A netlink socket in there, and the interface's number."""
    with enter(namespace), netlink.Socket() as kernel:
        yield kernel, _index(namespace, interface)


def _index(namespace: str, interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise OSError(error.errno, f"there is no interface {interface} in namespace {namespace}") from error


def _send(kernel: netlink.Socket, requests: Sequence[Request]) -> None:
    for answer in kernel.send(requests):
        if answer.number:
            raise OSError(answer.number, str(answer))


def _addresses(kernel: netlink.Socket, index: int) -> Iterator[str]:
    """With their prefixes."""
    for _, body in kernel.ask(Request(_GET_ADDRESS, netlink.DUMP, _HEAD.pack(0, 0, 0, 0, 0))):
        _, length, _, _, device = _HEAD.unpack_from(body)
        found = netlink.attributes(body, _HEAD.size)
        value = found.get(_LOCAL) or found.get(_ADDRESS)
        if device == index and value:
            yield f"{ipaddress.ip_address(value)}/{length}"


def _address(kind: int, index: int, it: str) -> Request:
    ip, _, length = it.partition("/")
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    value = ip_bytes(ip)
    body = _HEAD.pack(family, int(length), _NO_DAD, 0, index) + attribute(_LOCAL, value) + attribute(_ADDRESS, value)
    return Request(kind, netlink.CREATE | netlink.REPLACE if kind == _NEW_ADDRESS else 0, body)
