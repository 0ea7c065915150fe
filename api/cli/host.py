"""`host`: the cloud's hosts as an operator sees them: what each has and holds, and taking one out of service.

Over the public API, so it works from anywhere the cloud can be reached.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import click
import msgspec

from api.cli import choices
from api.cli.client import Client, login
from api.cli.screen import Failure, console, done, note

_VERSION = "2.87"
"""Of the compute API: the last in which hypervisors tell what of theirs is used."""
_MOVED = frozenset({"done", "completed", "finished", "confirmed"})
_ENDED = _MOVED | {"error", "failed", "cancelled"}
_LOOK_SECONDS = 0.5


class Row(msgspec.Struct, frozen=True):
    """One host. Memory in MiB, disk in GiB; `used` and `total` are of vCPUs, memory and disk."""

    name: str
    service_id: str
    state: str
    enabled: bool
    reason: str
    zone: str
    servers: tuple[tuple[str, str], ...]
    """Id and name."""
    used: tuple[int, int, int]
    total: tuple[int, int, int]


@click.group()
def host() -> None:
    """List the hosts and what they hold; take one out of service, bring it back, empty it, forget it."""


@host.command("list")
def list_hosts() -> None:
    """List all hosts: their state, their servers, and how much of each is used."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("host", "state", "enabled", "zone"):
        table.add_column(name)
    for name in ("servers", "vcpus", "memory MiB", "disk GiB"):
        table.add_column(name, justify="right")
    for row in rows(login(choices.settings())):
        table.add_row(
            row.name, row.state, _enabled(row), row.zone, str(len(row.servers)), *(f"{a}/{b}" for a, b in _pairs(row))
        )
    console().print(table, markup=False, highlight=False)


@host.command()
@click.argument("name")
def show(name: str) -> None:
    """Show one host, and the servers on it by name."""
    row = named(rows(login(choices.settings())), name)
    vcpus, memory, disk = (f"{used} of {total}" for used, total in _pairs(row))
    lines = [
        f"{row.name} is {row.state}; enabled: {_enabled(row)}; zone {row.zone}",
        f"{vcpus} vcpus, {memory} MiB of memory and {disk} GiB of disk are used",
        *(f"  {id}  {server}" for id, server in row.servers),
    ]
    for line in lines if row.servers else [*lines, "There is no server on it."]:
        console().print(line, markup=False, highlight=False)


@host.command()
@click.argument("name")
@click.option("--reason", help="Why, for who comes after you.")
def disable(name: str, reason: str | None) -> None:
    """Have no new server be placed on a host. Those on it stay."""
    client = login(choices.settings())
    said = {"disabled_reason": reason} if reason else {}
    change(client, named(rows(client), name), status="disabled", **said)
    done(f"{name} gets no more servers")


@host.command()
@click.argument("name")
def enable(name: str) -> None:
    """Let servers be placed on a host again."""
    client = login(choices.settings())
    change(client, named(rows(client), name), status="enabled")
    done(f"{name} takes servers again")


@host.command()
@click.argument("name")
@click.option("--to", "target", help="The host that shall have them; else the scheduler chooses one for each.")
def evacuate(name: str, target: str | None) -> None:
    """Build the servers of a host that is down anew on others.

    They keep their ports and addresses, and lose what was on their disks. Run again, it goes on with what is left.
    """
    client = login(choices.settings())
    row = named(rows(client), name)
    if row.state == "up":
        raise Failure(f"{name} is up: its servers run", "Only what is lost or forced down is evacuated.")
    if not row.servers:
        done(f"{name} has no servers")
        return
    asked, refused = _evacuate_all(client, row, target)
    for server, why in refused.items():
        note(f"{server} stays: {why}")
    ended = _until_ended(client, name, asked)
    failed = sorted(server for server, status in ended.items() if status != "done")
    for server in failed:
        note(f"{server} could not be built elsewhere; `./cumulog why {server}` may say why")
    done(f"{len(asked) - len(failed)} of {len(row.servers)} servers of {name} are on other hosts")
    if failed or refused:
        raise click.exceptions.Exit(1)


def _evacuate_all(client: Client, row: Row, target: str | None) -> tuple[set[str], dict[str, str]]:
    """The servers that are on their way, and why the others are not."""
    wanted = {"host": target} if target else {}
    asked, refused = set(), dict[str, str]()
    for id, _ in row.servers:
        try:
            client.post("compute", f"/servers/{id}/action", {"evacuate": wanted}, **_as_compute())
        except Failure as failure:
            refused[id] = failure.message.partition(": ")[2] or failure.message
        else:
            asked.add(id)
    return asked, refused


def _until_ended(client: Client, name: str, servers: set[str]) -> dict[str, str]:
    """Server → how its newest migration ended. Each of them ends: at its deadline, if not before."""
    path = f"/os-migrations?source_compute={quote(name)}"
    told = -1
    while True:
        newest: dict[str, tuple[int, str]] = {}
        for it in client.get("compute", path, **_as_compute())["migrations"]:
            seen = (it["id"], it["status"])
            newest[it["instance_uuid"]] = max(seen, newest.get(it["instance_uuid"], seen))
        ended = {id: status for id in servers if (status := newest.get(id, (0, ""))[1]) in _ENDED}
        if len(ended) > told:
            told = len(ended)
            console().print(f"{told} of {len(servers)} servers have left {name}", markup=False, highlight=False)
        if len(ended) == len(servers):
            return ended
        time.sleep(_LOOK_SECONDS)


@host.command()
@click.argument("name")
@click.option("--to", "target", help="The host that shall have them; else the scheduler chooses one for each.")
@click.option("--reason", default="drained", show_default=True, help="Why, for who looks at it.")
def drain(name: str, target: str | None, reason: str) -> None:
    """Empty a host that is up: no new server comes, and those on it move to others.

    Servers that run move while they do; those that are off are moved and stay off. Run again, it goes on with what is
    left. `./cumulog host enable` ends it.
    """
    client = login(choices.settings())
    row = named(rows(client), name)
    if row.state != "up":
        raise Failure(f"{name} is {row.state}", f"`./cumulog host evacuate {name}` builds its servers anew elsewhere.")
    change(client, row, status="disabled", disabled_reason=reason)
    if not row.servers:
        done(f"{name} takes no new servers, and has none")
        return
    asked, refused = _move_all(client, row, target)
    for server, why in refused.items():
        note(f"{server} stays: {why}")
    ended = _until_ended(client, name, asked)
    _confirm_all(client, [id for id, status in ended.items() if status == "finished"])
    failed = sorted(server for server, status in ended.items() if status not in _MOVED)
    for server in failed:
        note(f"{server} could not be moved; `./cumulog why {server}` may say why")
    done(f"{len(asked) - len(failed)} of {len(row.servers)} servers of {name} are on other hosts")
    if failed or refused:
        raise click.exceptions.Exit(1)


def _move_all(client: Client, row: Row, target: str | None) -> tuple[set[str], dict[str, str]]:
    """The servers that are on their way, and why the others are not."""
    asked, refused = set(), dict[str, str]()
    for id, _ in row.servers:
        server = client.get("compute", f"/servers/{id}", **_as_compute())["server"]
        if server["status"] == "VERIFY_RESIZE":
            _confirm_all(client, [id])  # it is here because it moved here: now it moves on
            server = _settled(client, id)
        live = server["status"] in {"ACTIVE", "PAUSED"}
        wanted = {"host": target, "block_migration": "auto"} if live else ({"host": target} if target else None)
        try:
            word = "os-migrateLive" if live else "migrate"
            client.post("compute", f"/servers/{id}/action", {word: wanted}, **_as_compute())
        except Failure as failure:
            refused[id] = failure.message.partition(": ")[2] or failure.message
        else:
            asked.add(id)
    return asked, refused


def _confirm_all(client: Client, servers: Iterable[str]) -> None:
    for id in servers:
        client.post("compute", f"/servers/{id}/action", {"confirmResize": None}, **_as_compute())


def _settled(client: Client, id: str) -> dict[str, Any]:
    """A server once nothing is under way with it."""
    while True:
        server: dict[str, Any] = client.get("compute", f"/servers/{id}", **_as_compute())["server"]
        if server["OS-EXT-STS:task_state"] is None:
            return server
        time.sleep(_LOOK_SECONDS)


@host.command()
@click.argument("name")
def forget(name: str) -> None:
    """Forget a host that will not come back: its service, its hypervisor, its resource provider and its network.

    It is refused while the host lives, or anything is claimed on it.
    """
    client = login(choices.settings())
    row = next((it for it in rows(client) if it.name == name), None)
    agents = _network_agents(client, name)
    if row is None and not agents:
        raise Failure(f"there is no host {name}", "`./cumulog host list` shows those there are.")
    if row is not None:
        if row.state == "up":
            raise Failure(f"{name} is up, and would be back at once", "Stop its agents first, and let its lease lapse.")
        if row.servers:
            raise Failure(
                f"{name} still has {len(row.servers)} servers", f"`./cumulog host show {name}` names them: move them."
            )
        client.call("DELETE", "compute", f"/os-services/{row.service_id}", None, **_as_compute())
        done(f"{name} is forgotten, with its hypervisor and its resource provider")
    if any(agent["alive"] for agent in agents):
        note(f"its network agent still speaks; forget {name} once more when it is silent")
    elif agents:  # one host, with several faces
        client.call("DELETE", "network", f"/v2.0/agents/{agents[0]['id']}", None)
        done(f"the network of {name} is forgotten")


def rows(client: Client) -> list[Row]:
    """Every host, by name."""
    services = client.get("compute", "/os-services?binary=nova-compute", **_as_compute())["services"]
    path, hypervisors = "/os-hypervisors/detail?with_servers=true", []
    while path:
        answer = client.get("compute", path, **_as_compute())
        hypervisors += answer["hypervisors"]
        following = [it["href"] for it in answer.get("hypervisors_links", ()) if it["rel"] == "next"]
        path = f"/os-hypervisors/detail?{following[0].partition('?')[2]}" if following else ""
    has = {it["service"]["host"]: it for it in hypervisors}
    return sorted((row(it, has.get(it["host"], {})) for it in services), key=lambda it: it.name)


def row(service: dict[str, Any], hypervisor: dict[str, Any]) -> Row:
    """A host from its service and its hypervisor, as the compute API shows them."""
    up = service["state"] == "up"
    return Row(
        name=service["host"],
        service_id=service["id"],
        state="forced down" if service.get("forced_down") else "up" if up else "lost",
        enabled=service["status"] == "enabled",
        reason=service.get("disabled_reason") or "",
        zone=service["zone"],
        servers=tuple((it["uuid"], it["name"]) for it in hypervisor.get("servers", ())),
        used=tuple(hypervisor.get(it, 0) for it in ("vcpus_used", "memory_mb_used", "local_gb_used")),
        total=tuple(hypervisor.get(it, 0) for it in ("vcpus", "memory_mb", "local_gb")),
    )


def named(those: list[Row], name: str) -> Row:
    """Raises Failure."""
    found = next((it for it in those if it.name == name), None)
    if found is None:
        raise Failure(f"there is no host {name}", "`./cumulog host list` shows those there are.")
    return found


def change(client: Client, row: Row, **wanted: Any) -> None:
    """Of its service. Raises Failure."""
    body = msgspec.json.encode(wanted)
    headers = {**_as_compute(), "Content_Type": "application/json"}
    client.call("PUT", "compute", f"/os-services/{row.service_id}", body, **headers)


def _network_agents(client: Client, name: str) -> list[dict[str, Any]]:
    agents: list[dict[str, Any]] = client.get("network", f"/v2.0/agents?host={quote(name)}")["agents"]
    return agents


def _enabled(row: Row) -> str:
    return "yes" if row.enabled else f"no: {row.reason}" if row.reason else "no"


def _pairs(row: Row) -> list[tuple[int, int]]:
    return list(zip(row.used, row.total, strict=True))


def _as_compute() -> dict[str, str]:
    return {"OpenStack_API_Version": f"compute {_VERSION}"}
