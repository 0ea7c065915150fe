"""Connections a router has translated: those whose floating IP or forwarded port has gone from them are cut.

The rules judge only a connection's first packet. What they would say now is compared with what was said then; whatever
would be led elsewhere is forgotten, so that its next packet is judged anew.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from agents.network import conntrack, netlink
from agents.network.router_rules import untranslated
from schema.network.wiring import WiredRouter

_PROTOCOLS = {6: "tcp", 17: "udp"}


class Translated(NamedTuple):
    """A connection as it came, and from whom and to whom its answers go (before they are turned back)."""

    protocol: int
    source: str
    destination: str
    port: int
    answered_from: str
    answered_to: str
    answered_port: int
    handle: bytes = b""


def cut(router: WiredRouter) -> int:
    """Of the namespace of this thread; how many. Raises OSError."""
    with netlink.Socket(family=conntrack.NETFILTER) as kernel:
        verdict = Verdict(router)
        return conntrack.forget(kernel, [it.handle for it in _all(kernel) if not verdict.stands(it)])


class Verdict:
    """What a router's rules say of connections that are under way."""

    def __init__(self, router: WiredRouter) -> None:
        self._inwards = {it.floating_ip: it.fixed_ip for it in router.floating}
        self._outwards = {it.fixed_ip: it.floating_ip for it in router.floating}
        self._forwardings = router.forwardings
        addresses = router.gateway.addresses if router.gateway else ()
        self._own = next((it.ip for it in addresses if ":" not in it.ip), "")
        self._snat = router.snat
        self._plain = [ip_network(it) for it in untranslated(router)]

    def stands(self, it: Translated) -> bool:
        """Whether it would be led the same way today."""
        led = it.answered_from, it.answered_port
        if led != self._led(it):
            return False
        if it.answered_to == it.source:
            return True
        came_in = led != (it.destination, it.port)
        hidden = came_in or (self._snat and not self._is_plain(it.source))
        allowed = {self._outwards.get(it.source, ""), self._own if hidden else ""} - {""}
        return it.answered_to in allowed

    def _is_plain(self, source: str) -> bool:
        """In the address scope of the outside."""
        return bool(self._plain) and any(ip_address(source) in it for it in self._plain)

    def _led(self, it: Translated) -> tuple[str, int]:
        if it.destination in self._inwards:
            return self._inwards[it.destination], it.port
        for rule in self._forwardings:
            its = rule.floating_ip == it.destination and rule.protocol == _PROTOCOLS.get(it.protocol)
            if its and rule.external_port <= it.port <= rule.external_port_end:
                return rule.internal_ip, rule.internal_port + it.port - rule.external_port
        return it.destination, it.port


def _all(kernel: netlink.Socket) -> Iterable[Translated]:
    for found in conntrack.tracked(kernel, socket.AF_INET):
        if conntrack.TUPLE_ORIGINAL not in found or conntrack.TUPLE_REPLY not in found:
            continue
        protocol, source, destination, _, port = conntrack.ends(found[conntrack.TUPLE_ORIGINAL], socket.AF_INET)
        _, by, to, back_port, _ = conntrack.ends(found[conntrack.TUPLE_REPLY], socket.AF_INET)
        known = protocol in _PROTOCOLS
        yield Translated(
            protocol=protocol,
            source=source,
            destination=destination,
            port=port if known else 0,
            answered_from=by,
            answered_to=to,
            answered_port=back_port if known else 0,
            handle=conntrack.handle(found, socket.AF_INET),
        )
