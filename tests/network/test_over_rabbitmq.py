"""Network agents over RabbitMQ: each host's agent has an end of its own beside the hypervisor's."""

import pytest

from agents.network.agent import NetworkAgent
from agents.network.link import BrokerNetworkLink
from agents.network.simulated import SimulatedNetwork
from bus.amqp_broker import AmqpBroker
from bus.amqp_host import AmqpAgents
from schema.network.port import PORT
from schema.network.wiring import link_name
from tests.network.wiring import until, wiring

pytestmark = pytest.mark.live


async def test_a_port_becomes_active_over_rabbitmq(settings, fresh_database, rabbitmq):
    broker = AmqpBroker(rabbitmq, "network-test")
    await broker.start()
    hosts = AmqpAgents(rabbitmq)
    await hosts.start()
    try:
        async with wiring(settings, fresh_database, broker=broker) as wired:
            await wired.network()
            link = BrokerNetworkLink(await hosts.link(link_name("h1")))
            agent = NetworkAgent("h1", SimulatedNetwork("h1"), link)
            wired.start(agent.run)
            await until(lambda: wired.telling.host("h1"))
            await wired.port(1, "h1")

            async def active() -> bool:
                return bool((await wired.state(PORT, "p1")).status == "ACTIVE")

            await until(active)
    finally:
        await hosts.close()
