"""Drift: where servers, their claims, their ports and their hosts' reports do not say the same. Pure; changes nothing.

A server that something is under way with is left out: while it is, they may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from handlers.compute.desired import power
from schema.compute.host import Host
from schema.compute.server import PowerState, Server, VmState
from schema.network.port import Port
from schema.placement.provider import Provider

_REPORTED = {
    PowerState.RUNNING: "running",
    PowerState.PAUSED: "paused",
    PowerState.SUSPENDED: "suspended",
    PowerState.SHUTDOWN: "stopped",
}


class Kind(StrEnum):
    ORPHAN_CLAIM = "orphan-claim"
    """A host's provider has a claim of a server that is deleted."""
    NO_CLAIM = "no-claim"
    """A server is on a host and holds nothing there."""
    PORT_ELSEWHERE = "port-elsewhere"
    """A server's port is bound to another host than the server's."""
    WRONG_POWER = "wrong-power"
    """A guest is not doing what it should, as its host reported last."""
    NO_HOST = "no-host"
    """A server is on a host that the cloud does not know."""


class Drift(msgspec.Struct, frozen=True):
    kind: Kind
    host: str
    server_id: str
    text: str


def drifts(
    servers: Mapping[str, Server],
    hosts: Iterable[Host],
    providers: Mapping[str, Provider],
    ports: Mapping[str, Port],
) -> list[Drift]:
    """Everything that differs. `servers`: all that live or hold a claim; `providers` and `ports` by id."""
    known = {host.id: host for host in hosts if host.living}
    found = [it for host in known.values() for it in _orphans(host, providers.get(host.provider_id), servers)]
    for server in servers.values():
        if server.living and server.host and server.task is None and server.vm_state is not VmState.BUILDING:
            found += _of_server(server, server.host, known.get(server.host), providers, ports)
    return sorted(found, key=lambda it: (it.host, it.kind, it.server_id))


def _orphans(host: Host, provider: Provider | None, servers: Mapping[str, Server]) -> Iterable[Drift]:
    for id, held in provider.claims.items() if provider else ():
        if id in servers and not servers[id].living:
            amounts = ", ".join(f"{amount} {name}" for name, amount in sorted(held.items()))
            yield Drift(Kind.ORPHAN_CLAIM, host.id, id, f"it is deleted, and holds {amounts}")


def _of_server(
    server: Server, name: str, host: Host | None, providers: Mapping[str, Provider], ports: Mapping[str, Port]
) -> Iterable[Drift]:
    if host is None:
        yield Drift(Kind.NO_HOST, name, server.id, f"it is on {name}, which is no host of this cloud")
        return
    provider = providers.get(host.provider_id)
    if provider is None or server.id not in provider.claims:
        yield Drift(Kind.NO_CLAIM, name, server.id, f"it is on {name} and holds nothing there")
    for nic in server.nics:
        port = ports.get(nic.port_id)
        if port is not None and port.living and port.host not in {"", name}:
            yield Drift(Kind.PORT_ELSEWHERE, name, server.id, f"its port {port.id} is bound to {port.host}")
    reported = _REPORTED.get(server.power_state)
    if reported and reported != power(server) and server.vm_state is not VmState.ERROR:
        yield Drift(Kind.WRONG_POWER, name, server.id, f"its guest is {reported} and should be {power(server)}")
