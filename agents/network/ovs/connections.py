"""Connections that the switch tracks: lists those of our networks, and cuts those that the rules no longer allow.

As agents/network/conntrack.py does with the kernel's; the switch has a table of its own, and says it as text. A mark in
that table only a packet can set, so one that is cut has a flow instead, which drops what belongs to it for as long as
anything comes. By what it has decided before, the switch may let one begin a moment after its rule is gone; so it is
asked for connections until those that were listed last are cut, and all that was decided has been looked through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from agents.network.conntrack import Connection, Fate
from agents.network.ovs import openflow
from agents.network.ovs.decisions import reviewed
from agents.network.ovs.jsonrpc import Connection as Control
from agents.network.ovs.pipeline import CUT_COOKIE, NETWORK, SENDING
from schema.network.protocol import number as protocol_number

_LINE = re.compile(r"(?P<protocol>[^,]+),orig=\((?P<original>[^)]*)\).*?,zone=(?P<zone>\d+)")
_WITH_PORTS = frozenset({6, 17, 132})
_PORTS = {"icmp": ("type", "code"), "icmpv6": ("type", "code")}


_SILENT_SECONDS = 900
"""Longer than a guest waits before it says once more what nobody answered."""
_PRIORITY = 95


async def cut(control: Control, switch: str, zones: Collection[int], fate: Callable[[Connection], Fate]) -> int:
    """Cut and forget those of the connections in these zones, and no others; how many are cut.

    `switch`: as in `Processes.openflow`. Raises RpcError, FlowsRefused.
    """
    doomed: dict[Connection, None] = dict.fromkeys(await _doomed(control, zones, fate))
    while True:
        drops = [line for it in doomed for line in dropping(it)]
        await openflow.change(switch, [f"delete cookie={CUT_COOKIE}/-1", *drops])
        await reviewed(control)
        late = await _doomed(control, zones, fate)
        if doomed.keys() >= set(late):
            return len(doomed)
        doomed |= dict.fromkeys(late)


async def _doomed(control: Control, zones: Collection[int], fate: Callable[[Connection], Fate]) -> list[Connection]:
    """Those to be cut; what is to be forgotten is."""
    doomed: list[Connection] = []
    for zone in sorted(zones):
        for it in read(await control.ask("dpctl/dump-conntrack", [f"zone={zone}"])):
            its = fate(it)
            if its is Fate.CUT and it.protocol in _WITH_PORTS:
                doomed.append(it)
            elif its is not Fate.STANDS:  # an answer to what was forgotten begins nothing
                await control.ask("dpctl/flush-conntrack", [f"zone={zone}", it.handle.decode()])
    return doomed


def dropping(it: Connection) -> list[str]:
    """Lines of a bundle: whatever belongs to it is dropped, whichever end it comes from."""
    family, match = ("ipv6", "ct_ipv6") if ":" in it.source else ("ip", "ct_nw")
    return [
        f"add cookie={CUT_COOKIE},table={SENDING},priority={_PRIORITY},idle_timeout={_SILENT_SECONDS},"
        f"{NETWORK}={it.zone},ct_state={state},{family},{match}_src={it.source},{match}_dst={it.destination},"
        f"ct_nw_proto={it.protocol},ct_tp_src={it.source_port},ct_tp_dst={it.destination_port},actions=drop"
        for state in ("+trk+est", "+trk+rel")
    ]


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
