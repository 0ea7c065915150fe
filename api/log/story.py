"""A thing's story, and why it is as it is: its events by the request that led to each, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.log.asking import READ, READ_ALL, history, visible
from api.log.placing import decisions
from api.log.view import trouble, view, words
from api.wire import Call, Get
from bus.log import Recorded
from schema.event import kind_of

EVENTS = 1000
"""Events of one stream looked at, at most: the newest."""
BESIDES = 50
"""Events of other streams told of one request, at most."""
DEPTH = 20
"""Causes of causes, at most."""


class Paged(msgspec.Struct):
    after_version: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


async def story(call: Call) -> dict[str, Any]:
    """The events of one stream, and what they add up to."""
    document = await visible(call, f"{call.path['kind']}/{call.path['id']}")
    asked: Paged = call.params
    whole = call.may(READ_ALL)
    events = await call.cloud.log.read_stream(document.stream, asked.after_version, asked.limit)
    return {
        "stream": document.stream,
        "version": document.version,
        "created_at": document.state.created_at,
        "updated_at": document.state.updated_at,
        "deleted_at": document.state.deleted_at,
        "events": [view(event, whole=whole) | {"words": words(event.type)} for event in events],
    }


async def why(call: Call) -> dict[str, Any]:
    """What led to what: one chapter a request (or a thing nobody asked for), the newest last.

    For an operator, of a server: also the scheduler's decisions about it.
    """
    document = await visible(call, call.path["stream"])
    stream = document.stream
    events = await call.cloud.log.read_stream(stream, max(0, document.version - EVENTS), EVENTS)
    whole = call.may(READ_ALL)
    chapters = [await _chapter(call, stream, chapter, whole=whole) for chapter in _chapters(events)]
    troubles = [line for chapter in chapters for line in chapter["events"] if line["trouble"]]
    return {
        "stream": stream,
        "now": _now(document.state, stream),
        "because": _because(chapters, troubles),
        "troubles": [{key: line[key] for key in ("at", "words", "trouble")} for line in troubles],
        "chapters": chapters,
        "placements": decisions(events) if whole else [],
    }


def _chapters(events: Sequence[Recorded]) -> list[list[Recorded]]:
    """Events that follow each other for the same request."""
    chapters: list[list[Recorded]] = []
    for event in events:
        if chapters and event.correlation and chapters[-1][-1].correlation == event.correlation:
            chapters[-1].append(event)
        else:
            chapters.append([event])
    return chapters


async def _chapter(call: Call, stream: str, events: Sequence[Recorded], *, whole: bool) -> dict[str, Any]:
    first = events[0]
    asked = next((event for event in events if event.actor.user), None)
    return {
        "request_id": first.correlation,
        "asked_by": {"user": asked.actor.user, "project": asked.actor.project} if asked else None,
        "words": f"{words(first.type)}, {_origin(first)}",
        "causes": await _causes(call, first, whole=whole),
        "events": [_line(event, first, whole=whole) for event in events],
        "besides": await _besides(call, stream, events, whole=whole),
    }


def _line(event: Recorded, first: Recorded, *, whole: bool) -> dict[str, Any]:
    shown = view(event, whole=whole)
    return {
        "position": event.position,
        "at": event.at,
        "after_seconds": round((event.at - first.at).total_seconds(), 6),
        "type": event.type,
        "words": words(event.type),
        "trouble": trouble(shown["data"]),
        "data": shown["data"],
    }


async def _causes(call: Call, event: Recorded, *, whole: bool) -> list[str]:
    """The events behind an event, or the client's own name for what it was doing, the nearest first."""
    causes: list[str] = []
    while event.causation and len(causes) < DEPTH:
        behind = await history(call.cloud).named(event.causation)
        if behind is None and not event.causation.isdigit():
            causes.append(f"part of the client's {event.causation}")
            break
        if behind is None or behind.position >= event.position:
            break
        projects = await history(call.cloud).projects([behind.stream])
        hidden = not whole and projects[behind.stream] != call.token.project_id
        causes.append("something of the operator's" if hidden else f"{words(behind.type)}: {behind.stream}")
        event = behind
    return causes


async def _besides(call: Call, stream: str, events: Sequence[Recorded], *, whole: bool) -> list[dict[str, Any]]:
    """What the same request did to other things."""
    request_id = events[0].correlation
    if not request_id:
        return []
    found = await history(call.cloud).of_request(
        request_id, events[0].position - BESIDES, events[-1].position + BESIDES, 4 * BESIDES
    )
    others = [event for event in found if event.stream != stream]
    if not whole:
        projects = await history(call.cloud).projects([event.stream for event in others])
        others = [event for event in others if projects[event.stream] == call.token.project_id]
    return [
        {"position": event.position, "stream": event.stream, "type": event.type, "words": words(event.type)}
        for event in others[:BESIDES]
    ]


def _origin(event: Recorded) -> str:
    if event.actor.user:
        return f"asked for by user {event.actor.user} in {event.correlation}"
    return f"following {event.correlation}" if event.correlation else "asked for by nobody: it was observed"


def _now(state: Any, stream: str) -> str:
    """The present in a word or two."""
    name = kind_of(stream).name.replace("_", " ")
    if state.deleted_at is not None:
        return f"this {name} was deleted at {state.deleted_at:%Y-%m-%d %H:%M:%S} UTC"
    parts = [str(value) for key in ("status", "vm_state", "task") if (value := getattr(state, key, None))]
    return f"this {name} is {', '.join(parts) if parts else 'there'}"


def _because(chapters: Sequence[dict[str, Any]], troubles: Iterable[dict[str, Any]]) -> str:
    """One sentence for somebody in a hurry: the newest trouble, if what came after it did not end it."""
    if not chapters:
        return "nothing is recorded"
    last = chapters[-1]
    for line in reversed(list(troubles)):
        if line in last["events"]:
            return f"{line['words']}: {line['trouble']}"
    return f"the last thing was {last['events'][-1]['words']} ({last['words']})"


routes = [
    Get("/streams/{kind}/{id*}", story, may=READ, query=Paged),
    Get("/why/{stream*}", why, may=READ),
]
