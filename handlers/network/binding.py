"""What becomes of a port on a host: the interface its driver makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bus.cloud import Cloud
from bus.execute import Wish
from handlers.network.port import PORTS
from schema.network.host import NETWORK_HOST, NetworkHost
from schema.network.port_command import BindPort

FAILED = "binding_failed"
UNBOUND = "unbound"


class Vif(msgspec.Struct, frozen=True):
    """An interface, in Neutron's words."""

    type: str
    details: Mapping[str, Any] = {}


def binding(port_id: str, host: str, vif: Vif) -> Wish:
    """A port onto a host."""
    return Wish(PORTS, port_id, BindPort(host=host, vif_type=vif.type, vif_details=dict(vif.details)))


async def vifs(cloud: Cloud, hosts: Iterable[str]) -> dict[str, Vif]:
    """Of ports on these hosts; `binding_failed` where nobody plugs ports."""
    streams = {host: NETWORK_HOST.stream(host) for host in hosts}
    found = await cloud.executor.load(list(streams.values())) if streams else {}
    states = {host: found[stream].state for host, stream in streams.items() if stream in found}
    return {host: _vif(states.get(host)) for host in streams}


def _vif(host: NetworkHost | None) -> Vif:
    if host is None or not host.living:
        return Vif(FAILED)
    if host.facts.driver == "ovs":
        details = {"bridge_name": "br-int", "datapath_type": "netdev", "ovs_hybrid_plug": False}
        return Vif("ovs", {"port_filter": True, "connectivity": "l2", **details})
    return Vif("bridge", {"port_filter": True, "connectivity": "l2"})
