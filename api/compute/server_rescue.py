"""Rescuing: a server boots from a fresh copy of an image, with its own root disk beside, until it is unrescued."""

from __future__ import annotations

from msgspec import Struct

from api.compute.server import by, server_in_path
from api.compute.server_action import PATH
from api.compute.server_source import image_kept, image_named
from api.compute.words import AdminPassword, Uuid
from api.wire import Call, Post
from bus import clock
from bus.execute import Wish
from handlers.compute.server import SERVERS
from schema.compute.server_command import RescueServer, UnrescueServer
from schema.refusal import Invalid


class Rescue(Struct, forbid_unknown_fields=True):
    adminPass: AdminPassword = ""  # noqa: N815  the wire's own word
    rescue_image_ref: Uuid = ""


async def rescue(call: Call) -> dict[str, str]:
    """The password is the caller's word or a new one; what is in the image has to take it."""
    server = await server_in_path(call)
    wanted = call.body or Rescue()
    reference = wanted.rescue_image_ref or (server.image.id if server.image else "")
    if not reference:
        raise Invalid(f"Server {server.id} has no image of its own; name one in rescue_image_ref.")
    image = image_kept(await image_named(call, reference))
    await call.execute(Wish(SERVERS, server.id, RescueServer(image=image, **by(call))))
    return {"adminPass": wanted.adminPass or clock.password()}


async def unrescue(call: Call) -> None:
    server = await server_in_path(call)
    await call.execute(Wish(SERVERS, server.id, UnrescueServer(**by(call))))


_RULE = "os_compute_api:os-rescue"

routes = [
    Post(PATH, rescue, may=_RULE, action="rescue", body=Rescue, optional_body=True, answers=200),
    Post(PATH, unrescue, may="os_compute_api:os-unrescue", action="unrescue", answers=202),
]
