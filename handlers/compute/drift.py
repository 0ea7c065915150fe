"""Drift: where servers, their claims, their ports and what their hosts hold do not agree. Pure; changes nothing.

A server that something is under way with is left out: while it is, they may differ. What a host holds against its
wishes the host's agent puts right by itself, as soon as it hears of it; drift says what it has not put right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from handlers.compute.desired import power
from handlers.compute.move import second_host
from handlers.compute.reports import POWER_STATE
from schema.compute.domain import Observed
from schema.compute.host import Host
from schema.compute.question import Leftover
from schema.compute.server_state import Server
from schema.compute.task import PowerState, VmState
from schema.network.port_state import Port
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
    SILENT_HOST = "silent-host"
    """A host that is up does not say what it holds."""
    MISSING = "missing"
    """A host holds nothing of a server that is its own."""
    UNKNOWN = "unknown"
    """A host holds a guest that is no server of its own."""
    LEFTOVER = "leftover"
    """A host has files of a server that is not its own, and no guest."""
    LEFTOVER_FILE = "leftover-file"
    """A host has a file that no guest of its own has a use for."""
    OUTDATED = "outdated"
    """A host has not carried out the newest wish, or could not."""


class Drift(msgspec.Struct, frozen=True):
    kind: Kind
    host: str
    server_id: str
    text: str
    file: str = ""
    """The name of a file that is left over."""


def drifts(
    servers: Mapping[str, Server],
    hosts: Iterable[Host],
    providers: Mapping[str, Provider],
    ports: Mapping[str, Port],
) -> list[Drift]:
    """Everything that differs. `servers`: all that live, or are claimed for or held; `providers` and `ports` by id."""
    known = {host.id: host for host in hosts if host.living}
    found = [it for host in known.values() for it in _orphans(host, providers.get(host.provider_id), servers)]
    for server in servers.values():
        if server.living and server.host and server.task is None and server.vm_state is not VmState.BUILDING:
            found += _of_server(server, server.host, known.get(server.host), providers, ports)
    return sorted(found, key=lambda it: (it.host, it.kind, it.server_id))


def held_otherwise(host: Host, servers: Mapping[str, Server], guests: Mapping[str, Observed] | None) -> Iterable[Drift]:
    """What a host holds, as it says itself, against what it should. `guests`: None if it did not say."""
    if guests is None:
        yield Drift(Kind.SILENT_HOST, host.id, "", "it is up, and does not say what it holds")
        return
    for server in servers.values():
        if server.host == host.id and _settled(server):
            yield from _as_held(host, server, guests.get(server.id))
    for id, seen in guests.items():
        its = servers.get(id)
        elsewhere = its is None or not its.living or (its.task is None and not _its_own(its, host.id))
        if elsewhere and seen.power == "absent":
            yield Drift(Kind.LEFTOVER, host.id, id, "it has files of a server that is not its own")
        elif elsewhere:
            yield Drift(Kind.UNKNOWN, host.id, id, f"it holds a guest ({seen.power}) of a server that is not its own")


def left_behind(host: Host, servers: Mapping[str, Server], files: Iterable[Leftover]) -> Iterable[Drift]:
    """Files of a host that are of no use there, as it says itself. One that could yet be of use is left out."""
    for it in files:
        its = servers.get(it.server_id)
        if its is not None and its.living and _of_use(its, host.id, it):
            continue
        megabytes = f"{it.size_bytes / 1e6:.1f} MB"
        whose = "which its guest has no use for" if it.held else "which is of no guest there"
        yield Drift(Kind.LEFTOVER_FILE, host.id, it.server_id, f"it has {it.name} ({megabytes}), {whose}", it.name)


def _of_use(server: Server, host: str, file: Leftover) -> bool:
    """Whether a file may be wanted yet: by what is under way, or by a guest that is missing where it should be."""
    if server.task is not None or server.move is not None:
        return True
    return not file.held and (bool(server.host) if file.shared else _its_own(server, host))


def _its_own(server: Server, host: str) -> bool:
    """Also where one is that could go back, or that is yet to be told to let it go."""
    return host in {server.host, second_host(server)}


def _settled(server: Server) -> bool:
    return server.living and server.task is None and server.built and server.vm_state is not VmState.ERROR


def _as_held(host: Host, server: Server, seen: Observed | None) -> Iterable[Drift]:
    wanted = power(server)
    if seen is None or seen.power == "absent":
        yield Drift(Kind.MISSING, host.id, server.id, f"it holds nothing of the server, which should be {wanted}")
    elif seen.generation < server.generation:
        why = f": {seen.fault}" if seen.fault else ""
        yield Drift(
            Kind.OUTDATED, host.id, server.id, f"it carried out wish {seen.generation} of {server.generation}{why}"
        )
    elif _REPORTED.get(POWER_STATE[seen.power], "stopped") != wanted:
        yield Drift(Kind.WRONG_POWER, host.id, server.id, f"its guest is {seen.power} and should be {wanted}")


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
