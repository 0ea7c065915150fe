"""Image v2, as Glance answers: the service put together."""

from __future__ import annotations

from api.image import data, documents, image, members
from api.image.policy import POLICY
from api.wire import Service
from api.wire.errors import GLANCE

SERVICE = Service(
    name="glance",
    type="image",
    prefix="/image/v2",
    catalog="/image",
    routes=[*image.routes, *data.routes, *members.routes, *documents.routes],
    roots=[*data.agent_routes, *documents.roots],
    errors=GLANCE,
    policy=POLICY,
)
