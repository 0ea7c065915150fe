"""Connections that the switch tracks: lists those of our networks, and cuts those that the rules no longer allow.

As agents/network/conntrack.py does with the kernel's; the switch has a table of its own, and says it as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from agents.network.conntrack import Connection
from agents.network.ovs.jsonrpc import Connection as Control
from schema.network.protocol import number as protocol_number

_LINE = re.compile(r"(?P<protocol>[^,]+),orig=\((?P<original>[^)]*)\).*?,zone=(?P<zone>\d+)")
_PORTS = {"icmp": ("type", "code"), "icmpv6": ("type", "code")}


async def cut(control: Control, zones: Collection[int], doomed: Callable[[Connection], bool]) -> int:
    """Forget those of the connections in these zones; how many. Raises RpcError."""
    count = 0
    for zone in sorted(zones):
        for connection in read(await control.ask("dpctl/dump-conntrack", [f"zone={zone}"])):
            if doomed(connection):
                await control.ask("dpctl/flush-conntrack", [f"zone={zone}", connection.handle.decode()])
                count += 1
    return count


async def forget(control: Control, zones: Collection[int]) -> None:
    """All of zones that are given to other networks now. Raises RpcError."""
    for zone in zones:
        await control.ask("dpctl/flush-conntrack", [f"zone={zone}"])


def read(listing: str) -> Iterator[Connection]:
    """What `dpctl/dump-conntrack` said."""
    for line in listing.splitlines():
        if not (match := _LINE.match(line)):
            continue
        named = match["protocol"]
        fields = dict(word.split("=", 1) for word in match["original"].split(",") if "=" in word)
        try:
            number = protocol_number(named.lower())
        except ValueError:
            continue
        first, second = _PORTS.get(named, ("sport", "dport"))
        yield Connection(
            zone=int(match["zone"]),
            protocol=number,
            source=fields["src"],
            destination=fields["dst"],
            source_port=int(fields.get(first, 0)),
            destination_port=int(fields.get(second, 0)),
            handle=_handle(number, fields).encode(),
        )


def _handle(number: int, fields: dict[str, str]) -> str:
    """As the switch wants to hear which one is meant."""
    family = "ct_ipv6" if ":" in fields["src"] else "ct_nw"
    words = [f"{family}_src={fields['src']}", f"{family}_dst={fields['dst']}", f"ct_nw_proto={number}"]
    if "type" in fields:
        words += [f"icmp_type={fields['type']}", f"icmp_code={fields['code']}", f"icmp_id={fields['id']}"]
    elif "sport" in fields:
        words += [f"ct_tp_src={fields['sport']}", f"ct_tp_dst={fields['dport']}"]
    return ",".join(words)
