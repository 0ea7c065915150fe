"""Who has which address of a subnet, packed: a document that is written with every port made has to be small.

One record an address, in their order: 4 bytes of an IPv4 or 16 of an IPv6 address, then a mark of the port. Looking one
up and finding the n-th free one are binary searches. The ids of the ports are in the events, and with the ports.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket

MARK = 8
"""Bytes that stand for a port: what comes back comes from who has it, and two that want one address are not alike."""


class Allocation:
    """A view of the records of a subnet of this IP version. `with_` and `without` give the records as they are then."""

    __slots__ = ("_key", "_records", "_version", "_width")

    def __init__(self, records: bytes, version: int) -> None:
        self._records = records
        self._version = version
        self._key = 4 if version == 4 else 16
        self._width = self._key + MARK

    def __len__(self) -> int:
        return len(self._records) // self._width

    def has(self, ip: str) -> bool:
        key = self._packed(ip)
        return self._key_at(self._place(key)) == key

    def given_to(self, ip: str, port_id: str) -> bool:
        """Whether that port has it."""
        key = self._packed(ip)
        at = self._place(key) * self._width
        return self._records[at : at + self._width] == key + _mark(port_id)

    def with_(self, ip: str, port_id: str) -> bytes:
        """That port has it from now on."""
        key = self._packed(ip)
        place = self._place(key)
        at, end = place * self._width, (place + (self._key_at(place) == key)) * self._width
        return b"".join((self._records[:at], key, _mark(port_id), self._records[end:]))

    def without(self, ip: str) -> bytes:
        key = self._packed(ip)
        place = self._place(key)
        if self._key_at(place) != key:
            return self._records
        at = place * self._width
        return self._records[:at] + self._records[at + self._width :]

    def free(self, first: int, last: int) -> int:
        """How many addresses from one to the other (both included) nobody has."""
        return last - first + 1 - (self._place_of(last + 1) - self._place_of(first))

    def nth_free(self, first: int, last: int, nth: int) -> int:
        """The n-th of them, from 0; there must be so many."""
        before = self._place_of(first)
        low, high = before, self._place_of(last + 1)
        while low < high:
            middle = (low + high) // 2
            if self._number(middle) - first - (middle - before) > nth:
                high = middle
            else:
                low = middle + 1
        return first + nth + low - before

    def _place(self, key: bytes) -> int:
        """Where it stands, or would."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._key_at(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _place_of(self, number: int) -> int:
        return len(self) if number >> 8 * self._key else self._place(number.to_bytes(self._key))

    def _key_at(self, place: int) -> bytes:
        at = place * self._width
        return self._records[at : at + self._key]

    def _number(self, place: int) -> int:
        return int.from_bytes(self._key_at(place))

    def _packed(self, ip: str) -> bytes:
        """What is no address of this version has a key of its own, too: an event is never refused."""
        try:
            return socket.inet_pton(socket.AF_INET if self._version == 4 else socket.AF_INET6, ip)
        except (OSError, ValueError):
            return hashlib.blake2b(ip.encode(), digest_size=self._key).digest()


def number_of(ip: str) -> int:
    return int.from_bytes(socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip))


def address_of(number: int, version: int) -> str:
    """An address in its usual form."""
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, number.to_bytes(4))
    return str(ipaddress.IPv6Address(number))


def _mark(port_id: str) -> bytes:
    return hashlib.blake2b(port_id.encode(), digest_size=MARK).digest()
