"""A ticket: leave to read one image's data for an hour, or to bring it, for a host's agent that has no token.

It is signed under the identity's keys for an audience of its own, so no ticket passes for a token nor the reverse.
"""

from __future__ import annotations

from bus.cloud import Cloud
from bus.config import Settings
from handlers.identity.signing import signing
from handlers.identity.token import Unauthorized

LIFETIME_SECONDS = 3600.0
READING, WRITING = "image-data", "image-upload"
PATH = "/image/agent/images/{id}/file"
"""Where a ticket is taken, as `X-Auth-Token`."""


async def sign(cloud: Cloud, image_id: str, lifetime_seconds: float = LIFETIME_SECONDS, audience: str = READING) -> str:
    """A ticket for one image, and for one of both."""
    return await signing(cloud).sign({"image": image_id}, audience, lifetime_seconds)


async def check(cloud: Cloud, text: str, image_id: str, audience: str = READING) -> None:
    """Raises Unauthorized unless the text is a good ticket for this image."""
    if not text or len(text) > 2048:
        raise Unauthorized
    claims = await signing(cloud).verify_signed(text, audience)
    if claims.get("image") != image_id:
        raise Unauthorized("The ticket is for another image.")


def url(settings: Settings, image_id: str) -> str:
    """Where an agent gets that image's data, or brings it."""
    return settings.url + PATH.format(id=image_id)
