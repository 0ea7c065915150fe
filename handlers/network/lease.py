"""Leases of hosts' network sides: short ones, so that routers move soon after their host falls silent."""

from __future__ import annotations

import uuid

import structlog

from bus.cloud import Cloud
from bus.execute import Wish
from handlers.lease import Leases
from handlers.network.host import NETWORK_HOSTS
from schema.network.host import (
    NETWORK_HOST,
    ChangeNetworkHostFacts,
    LoseNetworkHost,
    NetworkHost,
    RegisterNetworkHost,
    ReturnNetworkHost,
)
from schema.network.wiring import NetworkHostFacts, link_name

log = structlog.get_logger()

_NAMESPACE = uuid.UUID("0d5b3b0e-8f0b-4f0f-9a55-0e9ad8f0c2b7")


class NetworkHosts(Leases[NetworkHost, NetworkHostFacts]):
    """One process's ears for network agents."""

    what = "network host"
    heard_table = "heard_network_hosts"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud, NETWORK_HOST)

    @property
    def lease_seconds(self) -> float:
        return self._cloud.settings.network.lease_seconds

    def link(self, host: str) -> str:
        return link_name(host)

    def losing(self, host: str, epoch: int, silent_seconds: float) -> Wish:
        return Wish(NETWORK_HOSTS, host, LoseNetworkHost(epoch=epoch, silent_seconds=silent_seconds))

    async def register(self, host: str, before: NetworkHost | None, facts: NetworkHostFacts) -> NetworkHost:
        birth = (before.epoch if before else 0) + 1
        # Made from the name, so that two processes that hear of a new host at once mean the same.
        agent_id = str(uuid.uuid5(_NAMESPACE, f"agent/{host}/{birth}"))
        [document] = await self._cloud.executor.execute(
            Wish(NETWORK_HOSTS, host, RegisterNetworkHost(agent_id=agent_id, facts=facts))
        )
        log.info("network host registered", host=host, driver=facts.driver, endpoint_ip=facts.endpoint_ip)
        registered: NetworkHost = document.state
        return registered

    async def refresh(self, state: NetworkHost, facts: NetworkHostFacts) -> NetworkHost:
        wishes = []
        if not state.up:
            wishes.append(Wish(NETWORK_HOSTS, state.id, ReturnNetworkHost()))
        if state.facts != facts:
            wishes.append(Wish(NETWORK_HOSTS, state.id, ChangeNetworkHostFacts(facts=facts)))
        if not wishes:
            return state
        documents = await self._cloud.executor.execute(*wishes)
        refreshed: NetworkHost = documents[-1].state
        if not state.up:
            log.info("network host returned", host=state.id, epoch=refreshed.epoch)
        return refreshed
