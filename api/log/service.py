"""The log's own doors put together: /log/v1."""

from __future__ import annotations

from api.log import drift, events, placing, story
from api.log.asking import POLICY
from api.wire import Service
from api.wire.errors import PLAIN
from handlers.compute.considering import MIRRORS
from schema.compute.flavor import FLAVOR

SERVICE = Service(
    name="cumulog-log",
    type="log",
    prefix="/log/v1",
    routes=[*events.routes, *story.routes, *placing.routes, *drift.routes],
    mirrors=(FLAVOR, *MIRRORS),
    errors=PLAIN,
    policy=POLICY,
    hidden=True,
)
