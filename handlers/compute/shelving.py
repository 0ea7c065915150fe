"""Shelved servers, as wishes: a host that has nothing of it any more gives back what it held, in one append."""

from __future__ import annotations

from msgspec.structs import replace

from bus.execute import Wish
from handlers.compute.server import SERVERS, decide
from handlers.compute.server_group import SERVER_GROUPS
from handlers.placement.claims import released
from handlers.placement.demand import Request
from schema.compute.server_command import FinishOffload, SettleNics
from schema.compute.server_group import PlaceGroupMember
from schema.compute.server_state import Server


def offloaded(server: Server) -> tuple[Wish, ...]:
    """Nothing of it is left on its host, so that no card is plugged in or out there any more."""
    group = server.order.group_id
    settle = SettleNics(generation=server.generation)
    return (
        *((Wish(SERVERS, server.id, settle),) if server.unsettled and decide(server, settle) else ()),
        Wish(SERVERS, server.id, FinishOffload(host=server.host or "")),
        *released(server.id, (server.provider_id,) if server.provider_id else ()),
        *((Wish(SERVER_GROUPS, group, PlaceGroupMember(server_id=server.id)),) if group else ()),
    )


def unshelving_request(server: Server, request: Request) -> Request:
    """What the scheduler is asked for a server that comes back: what was forced once is not forced for ever."""
    return request if server.shelf is None else replace(request, host=server.shelf.host, forced=False)
