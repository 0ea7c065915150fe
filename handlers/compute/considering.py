"""Where servers would go, asked before there are any: the scheduler that places them, and nothing comes of it.

It knows what the log knows. What the scheduler at work knows besides (picks whose claims do not show yet, builds that
failed of late, servers that are being worked on) it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from bus import clock
from bus.cloud import Cloud
from bus.mirror import Mirrors
from handlers.compute.fate import cut_off, request
from handlers.compute.image_count import ImageFollower
from handlers.compute.port_wants import physical_networks
from handlers.placement.answer import NoValidHost, Placement
from handlers.placement.schedule import Scheduler
from schema.compute.aggregate import AGGREGATE
from schema.compute.host import HOST
from schema.compute.server_group import SERVER_GROUP
from schema.compute.server_state import Server
from schema.network.host import NETWORK_HOST
from schema.network.network import Network
from schema.placement.provider import PROVIDER

MIRRORS = (PROVIDER, HOST, AGGREGATE, NETWORK_HOST)
"""What must be followed where this is asked."""


async def considered(
    cloud: Cloud, server: Server, count: int, *, wired: bool, networks: Sequence[Network] = ()
) -> list[Placement | NoValidHost]:
    """What the scheduler would say to so many servers like this one. `wired`: they have ports; `networks`: in these."""
    group_id = server.order.group_id
    found = await cloud.executor.load([SERVER_GROUP.stream(group_id)]) if group_id else {}
    group = next((it.state for it in found.values() if it.state.living), None)
    asked = request(server, group)
    if wired:
        reach = {physical_networks(it) for it in networks} - {frozenset()}
        away = cut_off(cloud.mirror(HOST), cloud.mirror(NETWORK_HOST))
        asked = replace(asked, cut_off=away, reach=tuple(sorted(reach, key=sorted)))
    scheduler, images = _scheduler(cloud)
    await images.ready()
    return scheduler.consider([replace(asked, consumer_id=clock.uuid4()) for _ in range(count)])


def _scheduler(cloud: Cloud) -> tuple[Scheduler, ImageFollower]:
    """The process's own, made when it is asked for the first time."""
    found = _of.get(cloud.mirrors)
    if found is None:
        scheduler = Scheduler.following(cloud.mirrors, cloud.settings.scheduler)
        found = _of[cloud.mirrors] = scheduler, ImageFollower(cloud, scheduler)
    return found


_of: WeakKeyDictionary[Mirrors, tuple[Scheduler, ImageFollower]] = WeakKeyDictionary()
