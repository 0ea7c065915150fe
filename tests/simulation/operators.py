"""The operators of a simulated world: they take hosts out of use, hold them down, and empty those that are lost."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bus import clock
from bus.cloud import Cloud
from bus.execute import Wish
from handlers.compute.departure import begin, departure
from handlers.compute.host import HOSTS
from handlers.compute.moving import cancelling, confirming, reverting
from schema.compute.host import DisableHost, EnableHost, EndForcedDown, ForceHostDown, Host, HostForcedDown, HostLost
from schema.compute.migration import MigrationType
from schema.compute.server import SERVER
from schema.compute.server_command import (
    CancelMove,
    ConfirmResize,
    EvacuateServer,
    LiveMigrateServer,
    MigrateServer,
    ResizeServer,
    RevertResize,
)
from schema.compute.server_parts import ServerFlavor
from schema.compute.server_state import Server
from schema.compute.task import VmState
from tests.simulation.machine import SMALL
from tests.simulation.now import now

if TYPE_CHECKING:
    from tests.simulation.world import World

LARGE = replace(SMALL, id="2", name="large", vcpus=2, ram_mb=1024)
_MOVES: list[tuple[Any, MigrationType]] = [
    (ResizeServer, MigrationType.RESIZE),
    (MigrateServer, MigrationType.MIGRATION),
    (LiveMigrateServer, MigrationType.LIVE),
    (LiveMigrateServer, MigrationType.LIVE),
]
SURE_SECONDS = 17.0
"""An operator takes no host for dead before it was lost for so long: a lease, and what fencing may take, and more."""


class Operators:
    def __init__(self, world: World) -> None:
        self._world = world

    async def act(self, cloud: Cloud) -> None:
        """One thing or another."""
        random = self._world.random
        ways = [self._use, self._hold_down, self._evacuate, self._move, self._settle]
        await random.choices(ways, [2, 1, 4, 5, 5])[0](cloud)

    async def relent(self, cloud: Cloud) -> None:
        """No host is held down any more."""
        for id in self._held_down():
            await cloud.executor.execute(Wish(HOSTS, id, EndForcedDown()))

    async def _use(self, cloud: Cloud) -> None:
        """Have no new servers placed on a host; or have them placed there again."""
        hosts = self._hosts()
        if not hosts:
            return
        host = self._world.random.choice(hosts)
        command = DisableHost(reason="to be mended") if host.enabled else EnableHost()
        await cloud.executor.execute(Wish(HOSTS, host.id, command))

    async def _hold_down(self, cloud: Cloud) -> None:
        """One at a time; and not for long."""
        hosts = self._hosts()
        if self._held_down() or len(hosts) < 2:
            await self.relent(cloud)
            return
        await cloud.executor.execute(Wish(HOSTS, self._world.random.choice(hosts).id, ForceHostDown()))

    async def _evacuate(self, cloud: Cloud) -> None:
        """Build a server of a host that is lost on another, where hosts see to it that it does not run on both."""
        servers = [
            server
            for _, server in sorted(self._world.states(Server).items())
            if server.living and server.task is None and server.host in self._surely_lost()
        ]
        if not servers or not self._world.fence:
            return
        id = self._world.random.choice(servers).id
        server: Server = await now(cloud, SERVER, id)
        source = cloud.mirror(HOSTS.kind).get(server.host) if server.host else None
        if source is None or source.state.alive:
            return
        running = server.vm_state is not VmState.STOPPED
        epoch = source.state.epoch
        move = await departure(cloud, server, MigrationType.EVACUATION, source_epoch=epoch, running=running)
        action = EvacuateServer(move=move)
        await begin(cloud, cloud.executor.execute, server, action, project_id=server.project_id, user_id="operator")

    async def _move(self, cloud: Cloud) -> None:
        """Give a server another size, or another host, whether it runs or not."""
        ids = sorted(id for id, server in self._world.states(Server).items() if server.living and server.host)
        if not ids:
            return
        server: Server = await now(cloud, SERVER, self._world.random.choice(ids))
        action, type = self._world.random.choice(_MOVES)
        sizes = {"old_flavor": server.flavor, "new_flavor": self._other_size(server), "stays": True}
        move = await departure(cloud, server, type, **(sizes if action is ResizeServer else {}))
        await begin(
            cloud, cloud.executor.execute, server, action(move=move), project_id=server.project_id, user_id="operator"
        )

    async def _settle(self, cloud: Cloud) -> None:
        """Have one that was moved stay there, or go back; or call a move off that is under way."""
        ids = sorted(id for id, server in self._world.states(Server).items() if server.living and server.move)
        if not ids:
            return
        server: Server = await now(cloud, SERVER, self._world.random.choice(ids))
        if server.move is not None and server.move.live:
            await cloud.executor.execute(*cancelling(server, CancelMove(migration_id=server.move.migration_id)))
        elif self._world.random.random() < 0.5:
            await cloud.executor.execute(*confirming(server, ConfirmResize()))
        else:
            await cloud.executor.execute(*reverting(server, RevertResize()))

    @staticmethod
    def _other_size(server: Server) -> ServerFlavor:
        return LARGE if server.flavor.id == SMALL.id else SMALL

    def _hosts(self) -> list[Host]:
        return [host for _, host in sorted(self._world.states(Host).items()) if host.living]

    def _held_down(self) -> list[str]:
        return [host.id for host in self._hosts() if host.forced_down]

    def _surely_lost(self) -> set[str]:
        since = clock.now() - timedelta(seconds=SURE_SECONDS)
        down = {host.id for host in self._hosts() if not host.alive}
        newest = {
            event.stream.partition("/")[2]: event.at
            for event in self._world.log.events
            if isinstance(event.event, HostLost | HostForcedDown)
        }
        return {id for id in down if newest[id] <= since}
