"""Networks for the tests of routers: an outside, inner subnets, ports, and somebody at the door."""

from __future__ import annotations

from typing import Any

from bus import clock
from bus.cloud import Cloud
from bus.execute import Wish
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from handlers.network.subnet import SUBNETS
from schema.network.network import AddNetworkSubnet, CreateNetwork, Segment
from schema.network.port import PORT
from schema.network.port_command import CreatePort
from schema.network.port_state import FixedIp
from schema.network.subnet import SUBNET, AllocateAddress, CreateSubnet, Pool
from tests.serving import Served

PROJECT, OTHERS = "p" * 32, "a" * 32


class Client:
    """Somebody at the networking API."""

    def __init__(self, served: Served, token: str) -> None:
        self.served = served
        self.token = token

    async def __call__(self, method: str, path: str, json: Any = None, *, expect: int = 200, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.served.call(method, "/networking/v2.0" + path, json, token=self.token, headers=sent)
        assert answer.status == expect, (answer.status, answer.body)
        return answer.json if answer.body else None

    async def refused(self, method: str, path: str, json: Any, status: int, type: str) -> str:
        """The message of a refusal of that type."""
        error = (await self(method, path, json, expect=status))["NeutronError"]
        assert error["type"] == type, error
        message: str = error["message"]
        return message


async def network(cloud: Cloud, *, external: bool = False, project: str = PROJECT) -> str:
    """A network; an outside one lies on the physical network `external`."""
    id = clock.uuid4()
    segment = (
        Segment(id=clock.uuid4(), network_type="flat", physical_network=f"external-{id}")
        if external
        else Segment(id=clock.uuid4(), segmentation_id=int(id[:4], 16))
    )
    command = CreateNetwork(
        name="net", project_id=project, segments=(segment,), external_for=("*",) if external else ()
    )
    await cloud.executor.execute(Wish(NETWORKS, id, command))
    return id


async def subnet(
    cloud: Cloud, network_id: str, cidr: str, gateway: str | None, first: str, last: str, project: str = PROJECT
) -> str:
    id = clock.uuid4()
    command = CreateSubnet(
        project_id=project,
        parent_id=network_id,
        cidr=cidr,
        ip_version=6 if ":" in cidr else 4,
        gateway_ip=gateway,
        pools=(Pool(start=first, end=last),),
    )
    await cloud.executor.execute(Wish(SUBNETS, id, command), Wish(NETWORKS, network_id, AddNetworkSubnet(subnet_id=id)))
    return id


async def port(cloud: Cloud, network_id: str, addresses: dict[str, str], project: str = PROJECT) -> str:
    """A guest's port. `addresses`: subnet → address."""
    id = clock.uuid4()
    command = CreatePort(
        project_id=project,
        parent_id=network_id,
        mac_address=f"fa:16:3e:{id[0:2]}:{id[2:4]}:{id[4:6]}",
        fixed_ips=tuple(FixedIp(subnet_id=subnet, ip_address=ip) for subnet, ip in addresses.items()),
    )
    taking = [Wish(SUBNETS, it, AllocateAddress(ip=ip, port_id=id)) for it, ip in addresses.items()]
    await cloud.executor.execute(Wish(PORTS, id, command), *taking)
    return id


async def addresses(cloud: Cloud) -> dict[str, str]:
    """Address → port, all there are; what the ports say and what the subnets say is the same."""
    ports = await cloud.documents.find(PORT, limit=None)
    held = [(fixed, document.id) for document in ports for fixed in document.state.fixed_ips]
    subnets = {it.id: it.state.allocation for it in await cloud.documents.find(SUBNET, limit=None)}
    assert len({(fixed.subnet_id, fixed.ip_address) for fixed, _ in held}) == len(held)
    assert sum(map(len, subnets.values())) == len(held)
    assert all(subnets[fixed.subnet_id].given_to(fixed.ip_address, id) for fixed, id in held)
    return {fixed.ip_address: id for fixed, id in held}
