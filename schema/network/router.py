"""A router: joins a project's networks with each other and with the outside. It lives on one network host at a time.

(absent) ──RouterCreated──▶ there ──RouterScheduled(host)──▶ there ──RouterWired(up)──▶ ACTIVE ──RouterDeleted──▶ gone
"""

from __future__ import annotations

from schema.compute.domain import Word
from schema.event import State
from schema.network.port import FixedIp
from schema.network.wiring import HostRoute


class ExternalGateway(Word):
    network_id: str
    port_id: str
    fixed_ips: tuple[FixedIp, ...] = ()
    enable_snat: bool = True
    qos_policy_id: str | None = None


class RouterInterface(Word):
    """A foot in an inner network. The port itself (`network:router_interface`) holds MAC and addresses."""

    port_id: str
    network_id: str
    subnet_ids: tuple[str, ...]


class Router(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    admin_state_up: bool = True
    status: str = "ACTIVE"
    gateway: ExternalGateway | None = None
    interfaces: tuple[RouterInterface, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    distributed: bool = False
    ha: bool = False
    flavor_id: str | None = None
    availability_zone_hints: tuple[str, ...] = ()
    host: str = ""
    """The network host it lives on; empty: none yet, or none is alive."""
    wired: bool = False
    fault: str | None = None
    tags: tuple[str, ...] = ()
