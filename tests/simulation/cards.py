"""The cards of simulated servers: dealt with them or later, of ports made for them or lent, and taken out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus.cloud import Cloud
from bus.execute import Wish
from handlers.compute.cards import CardWanted, Dealt, Hand, dealt
from handlers.compute.server import SERVERS
from handlers.network.addressing import Picks, with_addresses
from schema.compute.nic import ServerNic
from schema.compute.server import SERVER
from schema.compute.server_command import AttachNic, DetachNic
from schema.compute.server_state import Server
from schema.network.port_state import Port
from tests.simulation.now import now

if TYPE_CHECKING:
    from tests.simulation.world import World

LENT = 0.4
"""How often a card is of a port that was there before."""


SOME = ServerNic(port_id="", network_id="", label="", mac_address="")


class Cards:
    """Of one project's servers. What somebody asks for rests on what they see, which may be over by then."""

    def __init__(self, world: World, project: str, network_ids: list[str]) -> None:
        self._world = world
        self._project = project
        self._network_ids = network_ids

    async def of_a_new_server(self, cloud: Cloud, picks: Picks, server_id: str) -> Dealt:
        """None, one or two."""
        chosen = self._world.random.choices([*self._network_ids, ""], k=self._world.random.choice([0, 1, 1, 2]))
        cards = {id: self._card(id) for id in dict.fromkeys(chosen) if id}
        lent = {card.port.id for card in cards.values() if card.port}
        if len(lent) < sum(card.port is not None for card in cards.values()):
            cards = {id: CardWanted(network_id=id) for id in cards}  # nobody asks for one port twice
        hand = Hand(server_id=server_id, project_id=self._project, hostname="web", cards=list(cards.values()))
        [its] = await dealt(cloud, picks, [hand])
        return its

    async def attach(self, cloud: Cloud) -> None:
        """One more, while the server is there; may be refused."""
        server = await self._some_server(cloud)
        if server is None:
            return
        card = self._card(self._world.random.choice(self._network_ids))
        SERVERS.decide(server, AttachNic(nic=SOME))  # whether it may get any is said first
        hand = Hand(
            server_id=server.id,
            project_id=server.project_id,
            hostname="web",
            host=server.host or "",
            cards=[card],
            standing="plugging",
        )

        async def attempt(picks: Picks) -> None:
            [its] = await dealt(cloud, picks, [hand])
            await cloud.executor.execute(Wish(SERVERS, server.id, AttachNic(nic=its.nics[0])), *its.wishes)

        await with_addresses(cloud, attempt)

    async def detach(self, cloud: Cloud) -> None:
        server = await self._some_server(cloud)
        if server is not None and server.nics:
            nic = self._world.random.choice(server.nics)
            await cloud.executor.execute(Wish(SERVERS, server.id, DetachNic(port_id=nic.port_id)))

    def _card(self, network_id: str) -> CardWanted:
        free = [it for _, it in sorted(self._world.states(Port).items()) if _to_lend(it)]
        free = [it for it in free if it.trunk_id] or free  # a trunk is there to be used
        if free and self._world.random.random() < LENT:
            return CardWanted(port=self._world.random.choice(free))
        return CardWanted(network_id=network_id)

    async def _some_server(self, cloud: Cloud) -> Server | None:
        ids = sorted(id for id, server in self._world.states(Server).items() if server.living)
        return await now(cloud, SERVER, self._world.random.choice(ids)) if ids else None


def _to_lend(port: Port) -> bool:
    return port.living and not port.device_id and not port.made_by and not port.subport_of
