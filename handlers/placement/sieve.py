"""Which hosts filters let through and have room for a request, and what is told of those that were turned down."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from handlers.placement.answer import NoValidHost
from handlers.placement.capacity import CapacityIndex
from handlers.placement.demand import Request
from handlers.placement.filter import Filter
from schema.placement.decision import NAMED, Decision, Reason, TurnedDown


class Rejection(Struct, frozen=True):
    """`named`: host → why, of as many as are told."""

    filter: str
    hosts: int
    text: str
    named: tuple[tuple[str, str], ...] = ()


def passing(
    index: CapacityIndex,
    filters: Sequence[Filter],
    slots: list[int],
    request: Request,
    rejections: list[Rejection],
) -> list[int]:
    """The slots that all these filters let pass; who was turned down is added to the rejections."""
    candidates = index.candidates()
    for one in filters:
        if not one.asked(request):
            continue
        left, out = list[int](), list[int]()
        for slot in slots:
            (left if one.passes(candidates[slot], request) else out).append(slot)
        if out:
            named = tuple((candidates[slot].host.id, one.reason_of(candidates[slot], request)) for slot in out[:NAMED])
            rejections.append(Rejection(one.name, len(out), one.reason(request), named))
        slots = left
    return slots


def with_room(index: CapacityIndex, slots: list[int], request: Request, rejections: list[Rejection]) -> list[int]:
    """The slots that have enough left of every resource class; who has not is added to the rejections."""
    for name, amount in request.resources.items():
        free = index.free.get(name)
        left = [slot for slot in slots if free[slot] >= amount] if free is not None else []
        if len(left) < len(slots):
            most = max((free[slot] for slot in slots), default=0) if free is not None else 0
            text = f"have too little {name} free ({amount} asked, {max(most, 0)} left at most)"
            short = [slot for slot in slots if free is None or free[slot] < amount][:NAMED]
            named = tuple((_name(index, slot), f"has too little {name} free") for slot in short)
            rejections.append(Rejection(name, len(slots) - len(left), text, named))
        slots = left
    return slots


def why_not(hosts: int, rejections: Sequence[Rejection], most: int) -> Decision:
    """Why these were turned down, at most so many of them by name."""
    reasons: dict[str, tuple[str, ...]] = {}
    told = 0
    for it in rejections:
        for host, why in it.named[: max(0, most - told)]:
            reasons[why] = (*reasons.get(why, ()), host)
            told += 1
    return Decision(
        hosts=hosts,
        turned_down=tuple(TurnedDown(filter=it.filter, hosts=it.hosts) for it in rejections),
        reasons=tuple(Reason(why=why, hosts=some) for why, some in reasons.items()),
        unnamed=sum(it.hosts for it in rejections) - told,
    )


def no_valid_host(request: Request, hosts: int, rejections: Sequence[Rejection], decision: Decision) -> NoValidHost:
    """The answer where none is left of so many hosts."""
    rejected = {it.filter: it.hosts for it in rejections}
    if not hosts:
        reason = "No valid host was found. There is no hypervisor host yet."
    else:
        why = ", ".join(f"{it.hosts} {it.text}" for it in rejections)
        reason = f"No valid host was found. Of {hosts} {'host' if hosts == 1 else 'hosts'}, {why}."
    return NoValidHost(request.consumer_id, hosts, rejected, reason, decision)


def _name(index: CapacityIndex, slot: int) -> str:
    host = index.slots[slot].host
    return host.id if host else ""
