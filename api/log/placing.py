"""Why a server is on its host, or on none: the scheduler's decisions in words; and the same before it is ordered.

    curl -X POST -H "X-Auth-Token: …" -d '{"flavor": "m1.large", "image": "cirros", "count": 3}' '…/log/v1/why'

An operator's: tenants do not learn of hosts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from api.compute.server_hints import hints_of
from api.compute.server_source import flavor_kept, image_kept
from api.log.asking import READ_ALL
from api.wire import Call, Post
from bus.documents import Where
from bus.log import Recorded
from handlers.compute.considering import considered
from handlers.compute.port_wants import networks_of
from handlers.placement.answer import NoValidHost, Placement, told
from schema.compute.flavor import FLAVOR, Flavor
from schema.compute.move import MoveFailed, MovePlaced
from schema.compute.server_event import ActionFailed, ServerFaulted, ServerPlaced
from schema.compute.server_parts import Order, ServerImage
from schema.compute.server_state import Server
from schema.event import Event
from schema.image.image import ACTIVE, IMAGE
from schema.network.network import Network
from schema.placement.decision import Decision
from schema.refusal import Invalid

_DECIDING = (ServerPlaced, ServerFaulted, MovePlaced, MoveFailed, ActionFailed)
AT_ONCE = 100
"""Servers asked about at once, at most."""
NETWORKS = 64
"""Networks that each of them would be in, at most."""
Name = Annotated[str, Meta(min_length=1, max_length=255)]


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Servers that nobody has ordered. Flavor and image by id or name."""

    flavor: Name
    image: Name | None = None
    count: Annotated[int, Meta(ge=1, le=AT_ONCE)] = 1
    zone: Name | None = None
    host: Name | None = None
    project_id: Name | None = None
    """Whose they would be; the caller's own otherwise."""
    networks: bool | list[Name] = True
    """Whether they would have ports; or the networks these would be in, by id."""
    scheduler_hints: Annotated[dict[Name, Any], Meta(max_length=64)] = field(default_factory=dict)


async def consider(call: Call) -> dict[str, Any]:
    wanted: Wanted = call.body
    hints = hints_of(wanted.scheduler_hints)
    server = Server(
        project_id=wanted.project_id or call.token.project_id or "",
        order=Order(
            user_id=call.token.user_id,
            zone=wanted.zone,
            host=wanted.host,
            scheduler_hints=hints,
            group_id=next(iter(hints.get("group", ())), None),
        ),
        flavor=flavor_kept(_flavor(call, wanted.flavor)),
        image=await _image(call, wanted.image),
    )
    networks = await _networks(call, wanted.networks) if isinstance(wanted.networks, list) else ()
    answers = await considered(call.cloud, server, wanted.count, wired=bool(wanted.networks), networks=networks)
    placed = [it for it in answers if isinstance(it, Placement)]
    refused = [it for it in answers if isinstance(it, NoValidHost)]
    return {
        "fit": len(placed),
        "of": wanted.count,
        "words": explained(placed[0].decision, placed[0].host) if placed else [],
        "hosts": [it.host for it in placed],
        "decision": placed[0].decision if placed else None,
        "refused": {"reason": refused[0].reason, **_shown(refused[0].decision, None)} if refused else None,
    }


def decisions(events: Iterable[Recorded]) -> list[dict[str, Any]]:
    """The scheduler's decisions about one server, in the order they were made."""
    return [
        {"position": recorded.position, "at": recorded.at, **_shown(recorded.event.decision, _host(recorded.event))}
        for recorded in events
        if isinstance(recorded.event, _DECIDING) and recorded.event.decision is not None
    ]


def explained(decision: Decision, host: str | None) -> list[str]:
    """A decision in words, a sentence a line."""
    many = f"{decision.hosts} {'host' if decision.hosts == 1 else 'hosts'}"
    lines = [f"Of {many} at position {decision.position}, {host or 'none'} was chosen."]
    lines += [f"{it.filter} turned down {it.hosts}." for it in decision.turned_down]
    lines += [f"{', '.join(it.hosts)}: {it.why}." for it in decision.reasons]
    if decision.unnamed:
        lines.append(f"{decision.unnamed} more were turned down.")
    for place, it in enumerate(decision.best):
        said = ", ".join(f"{name} {weight:+g}" for name, weight in sorted(it.weights.items()))
        lines.append(f"{it.host} weighs {it.weight:g}{f' ({said})' if said else ''}{'' if place else ', the most'}.")
    if decision.remedy:
        lines.append(told(decision.remedy))
    return lines


def _shown(decision: Decision, host: str | None) -> dict[str, Any]:
    return {"host": host, "words": explained(decision, host), "decision": decision}


def _host(event: Event) -> str | None:
    return event.host if isinstance(event, ServerPlaced | MovePlaced) else None


def _flavor(call: Call, asked: str) -> Flavor:
    mirror = call.cloud.mirror(FLAVOR)
    found = mirror.get(asked) or next((it for it in mirror.values() if it.state.name == asked), None)
    if found is None:
        raise Invalid(f"Flavor {asked} could not be found.")
    flavor: Flavor = found.state
    return flavor


async def _networks(call: Call, asked: list[str]) -> list[Network]:
    if len(asked) > NETWORKS:
        raise Invalid(f"Ask for {NETWORKS} networks at most, not {len(asked)}.")
    found = await networks_of(call.cloud, asked)
    missing = [id for id in asked if id not in found]
    if missing:
        raise Invalid(f"Network {missing[0]} could not be found.")
    return list(found.values())


async def _image(call: Call, asked: str | None) -> ServerImage | None:
    if asked is None:
        return None
    found = [it for it in (await call.cloud.executor.load([IMAGE.stream(asked)])).values() if it.state.living]
    found = found or await call.cloud.documents.find(IMAGE, where=[Where("name", "=", asked)], limit=2)
    if not found or found[0].state.status != ACTIVE:
        raise Invalid(f"There is no active image {asked}.")
    if len(found) > 1:
        raise Invalid(f"Several images are called {asked}; name one by its id.")
    return image_kept(found[0].state)


routes = [Post("/why", consider, may=READ_ALL, body=Wanted, answers=200)]
