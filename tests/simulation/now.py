"""How somebody of the simulation looks at one thing, through the process they speak with."""

from __future__ import annotations

from typing import Any

from bus.cloud import Cloud
from schema.event import Kind
from schema.refusal import NotFound


async def now(cloud: Cloud, kind: Kind[Any], id: str) -> Any:
    """As that process believes it to be. Raises NotFound."""
    stream = kind.stream(id)
    document = (await cloud.executor.load([stream])).get(stream)
    if document is None or not document.state.living:
        raise NotFound(f"there is no {stream}")
    return document.state
