"""The trunks of a simulated project: made over free ports, given more of them, and taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus import clock
from bus.cloud import Cloud
from handlers.network.addressing import Picks, with_addresses
from handlers.network.trunking import adding, ending, making, ports_of, removing_subports
from schema.network.port_state import Port
from schema.network.trunk import TRUNK, CreateTrunk, Trunk, TrunkSubport
from tests.simulation.now import now

if TYPE_CHECKING:
    from tests.simulation.world import World


class Trunks:
    """Of one project."""

    def __init__(self, world: World, project: str) -> None:
        self._world = world
        self._project = project

    async def make(self, cloud: Cloud) -> None:
        """Over two ports that nobody has, or some server; the first is the parent."""
        ids = self._ports()
        if len(ids) < 2:
            return
        parent, subport = self._world.random.sample(ids, 2)
        id = clock.uuid4()

        async def attempt(picks: Picks) -> None:
            ports = await ports_of(cloud, [], [parent, subport])
            if parent not in ports:
                return
            subports = (TrunkSubport(port_id=subport, segmentation_id=101),)
            command = CreateTrunk(name="t", project_id=self._project, parent_id=parent, subports=subports)
            await cloud.executor.execute(*await making(cloud, id, command, ports))

        await with_addresses(cloud, attempt)

    async def change(self, cloud: Cloud) -> None:
        """A subport more or less; or none at all any more, where nobody uses it."""
        ids = sorted(id for id, trunk in self._world.states(Trunk).items() if trunk.living)
        if not ids:
            return
        id, what, free = self._world.random.choice(ids), self._world.random.random(), self._ports()

        async def attempt(picks: Picks) -> None:
            trunk: Trunk = await now(cloud, TRUNK, id)
            if what < 0.4 and free:
                tag = 1 + max((it.segmentation_id for it in trunk.subports), default=100)
                fresh = TrunkSubport(port_id=free[int(what * len(free))], segmentation_id=tag)
                ports = await ports_of(cloud, [trunk], [fresh.port_id])
                await cloud.executor.execute(*await adding(cloud, trunk, [fresh], ports))
            elif what < 0.7 and trunk.subports:
                await cloud.executor.execute(*removing_subports(trunk, [trunk.subports[0].port_id]))
            else:
                await cloud.executor.execute(*ending(trunk))

        await with_addresses(cloud, attempt)

    def _ports(self) -> list[str]:
        ports = self._world.states(Port)
        return sorted(id for id, port in ports.items() if port.living and not port.made_by and not port.trunk_id)
