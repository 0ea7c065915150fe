"""The cards servers are ordered with, or given later: ports made for them or lent to them, in the same append.

with_addresses(cloud, attempt)     attempt: dealt(cloud, picks, hands) ─▶ execute(servers' wishes, cards' wishes)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bus.cloud import Cloud
from bus.execute import Wish
from handlers.compute.following import card_of, facts_about
from handlers.compute.ports import owner
from handlers.network.addressing import Picks, Wanted
from handlers.network.binding import FAILED, Vif, binding, vifs
from handlers.network.plugging import PlannedPort, PortWanted, planned
from handlers.network.port import PORTS
from schema.compute.nic import ServerNic, Standing
from schema.network.port_command import AttachPort, CreatePort, UpdatePort
from schema.network.port_state import Port
from schema.network.wiring import BandwidthLimit
from schema.refusal import Refused


class CardWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A card as somebody asks for it: a port of theirs, or one in a network."""

    network_id: str = ""
    port: Port | None = None
    ip: str = ""
    """The address wanted in the network; empty: any."""
    tag: str = ""


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """A server and the cards it is to get."""

    server_id: str
    project_id: str
    hostname: str
    zone: str = ""
    """Empty: not known yet."""
    host: str = ""
    """Where it is already; empty: its ports are bound when it is placed."""
    cards: Sequence[CardWanted]
    group_ids: tuple[str, ...] | None = None
    """Security groups of the ports that are made; None: the project's default group."""
    standing: Standing = "plugged"
    limits: tuple[BandwidthLimit, ...] = ()
    """What each card carries where it is already; else that is said when it is placed."""


class BindingFailed(Refused):
    """A host without a network agent cannot plug anybody in (500)."""

    status = 500


class Dealt(msgspec.Struct, frozen=True):
    """The cards of one server, and what is to be wished along with it."""

    nics: tuple[ServerNic, ...]
    wishes: list[Wish]


async def dealt(cloud: Cloud, picks: Picks, hands: Sequence[Hand]) -> list[Dealt]:
    """The cards of these servers, in their order; as many queries for a thousand of them as for one.

    Raises what `handlers.network.plugging.planned` raises; BindingFailed when the host of a server plugs nobody in.
    """
    wanted = [_port_wanted(hand, card) for hand in hands for card in hand.cards if card.port is None]
    plans = await planned(cloud, picks, wanted) if wanted else []
    made = [_as_made(plan.id, plan.command) for plan in plans]
    lent = [card.port for hand in hands for card in hand.cards if card.port is not None]
    facts = await facts_about(cloud, lent, new=made)
    plugs = await vifs(cloud, {hand.host for hand in hands if hand.host})
    fresh = zip(made, plans, strict=True)
    answers = []
    if any(vif.type == FAILED for vif in plugs.values()):
        raise BindingFailed(f"Binding failed: there is no network agent on {' and '.join(sorted(plugs))}.")
    for hand in hands:
        nics: list[ServerNic] = []
        wishes: list[Wish] = []
        for card in hand.cards:
            port, plan = (card.port, None) if card.port is not None else next(fresh)
            nics.append(card_of(port, facts, tag=card.tag, made=plan is not None, standing=hand.standing))
            wishes += _wishes(hand, port, plan, plugs)
        answers.append(Dealt(tuple(nics), wishes))
    return answers


def _wishes(hand: Hand, port: Port, plan: PlannedPort | None, plugs: Mapping[str, Vif]) -> list[Wish]:
    if plan is not None:
        wishes = [*plan.wishes]
    else:
        wishes = [Wish(PORTS, port.id, AttachPort(device_id=hand.server_id, device_owner=owner(hand.zone)))]
        if not port.dns_name:
            wishes.append(Wish(PORTS, port.id, UpdatePort(dns_name=hand.hostname)))
    if hand.host:
        wishes.append(binding(port.id, hand.host, plugs[hand.host]))
    if hand.limits:
        wishes.append(Wish(PORTS, port.id, UpdatePort(card_limits=hand.limits)))
    return wishes


def _port_wanted(hand: Hand, card: CardWanted) -> PortWanted:
    return PortWanted(
        network_id=card.network_id,
        project_id=hand.project_id,
        fixed_ips=(Wanted(ip=card.ip),) if card.ip else None,
        device_id=hand.server_id,
        device_owner=owner(hand.zone),
        security_group_ids=hand.group_ids,
        dns_name=hand.hostname,
        made_by=hand.server_id,
        plugged_at=hand.host,
    )


def _as_made(id: str, command: CreatePort) -> Port:
    """The port that a command makes."""
    return Port(id=id, **{name: getattr(command, name) for name in command.__struct_fields__})
