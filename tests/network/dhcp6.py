"""A DHCPv6 client that asks once (RFC 8415), for tests."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass, field

from agents.network.namespace import enter

_SOLICIT, _ADVERTISE, _REQUEST, _REPLY, _INFORMATION = 1, 2, 3, 7, 11
_CLIENT, _SERVER, _IA_NA, _IA_ADDRESS, _WANTED, _ELAPSED = 1, 2, 3, 5, 6, 8
_DNS, _SEARCH, _SNTP, _NTP = 23, 24, 31, 56


@dataclass
class Told:
    address: str = ""
    nameservers: list[str] = field(default_factory=list)
    search: list[str] = field(default_factory=list)
    ntp: list[str] = field(default_factory=list)


def ask_for_address(namespace: str, mac: str) -> Told:
    with enter(namespace):
        client = _Client(mac)
        offer = client.ask(_SOLICIT, _ADVERTISE, _option(_IA_NA, struct.pack("!III", 1, 0, 0)))
        chosen = _option(_SERVER, offer[_SERVER]) + _option(_IA_NA, offer[_IA_NA])
        return _told(client.ask(_REQUEST, _REPLY, chosen))


def ask_for_information(namespace: str, mac: str) -> Told:
    with enter(namespace):
        return _told(_Client(mac).ask(_INFORMATION, _REPLY, b""))


class _Client:
    def __init__(self, mac: str) -> None:
        self._id = _option(_CLIENT, struct.pack("!HH", 3, 1) + bytes.fromhex(mac.replace(":", "")))
        self._index = socket.if_nametoindex("eth0")

    def ask(self, kind: int, answer: int, more: bytes) -> dict[int, bytes]:
        """Options of the answer. Raises TimeoutError."""
        wanted = _option(_WANTED, struct.pack("!HHHH", _DNS, _SEARCH, _SNTP, _NTP))
        number = os.urandom(3)
        message = bytes([kind]) + number + self._id + _option(_ELAPSED, b"\0\0") + wanted + more
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::", 546))
            sock.settimeout(2.0)
            for _ in range(3):
                sock.sendto(message, ("ff02::1:2", 547, 0, self._index))
                try:
                    data = sock.recv(4096)
                except TimeoutError:
                    continue
                if data[0] == answer and data[1:4] == number:
                    return _options(data[4:])
        raise TimeoutError("no DHCPv6 server answered")


def _told(options: dict[int, bytes]) -> Told:
    told = Told(nameservers=_ips(options.get(_DNS, b"")))
    if _IA_NA in options and (inner := _options(options[_IA_NA][12:]).get(_IA_ADDRESS)):
        told.address = socket.inet_ntop(socket.AF_INET6, inner[:16])
    labels = options.get(_SEARCH, b"")
    words = []
    while labels and labels[0]:
        words.append(labels[1 : 1 + labels[0]].decode())
        labels = labels[1 + labels[0] :]
    told.search = [".".join(words)] if words else []
    if _NTP in options:
        told.ntp = _ips(_options(options[_NTP]).get(1, b""))
    return told


def _ips(data: bytes) -> list[str]:
    return [socket.inet_ntop(socket.AF_INET6, data[at : at + 16]) for at in range(0, len(data) - 15, 16)]


def _option(code: int, data: bytes) -> bytes:
    return struct.pack("!HH", code, len(data)) + data


def _options(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        code, length = struct.unpack_from("!HH", data)
        found[code] = data[4 : 4 + length]
        data = data[4 + length :]
    return found
