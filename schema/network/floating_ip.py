"""A floating IP: an outside address that a project holds, given to a port of its own or forwarded by ports.

(absent) ──FloatingIpCreated──▶ DOWN ──FloatingIpAssociated──▶ ACTIVE ──FloatingIpDisassociated──▶ DOWN ──▶ gone
"""

from __future__ import annotations

from schema.compute.domain import Word
from schema.event import State


class PortForwarding(Word):
    id: str
    protocol: str
    external_port: int
    external_port_end: int
    internal_port_id: str
    internal_ip_address: str
    internal_port: int
    internal_port_end: int
    description: str = ""


class FloatingIp(State):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    """The outside network."""
    description: str = ""
    floating_ip_address: str = ""
    port_id: str | None = None
    """The inner port it is given to."""
    fixed_ip_address: str | None = None
    router_id: str | None = None
    outer_port_id: str = ""
    """The `network:floatingip` port that holds the address in the outside network."""
    subnet_id: str | None = None
    forwardings: tuple[PortForwarding, ...] = ()
    qos_policy_id: str | None = None
    dns_name: str = ""
    dns_domain: str = ""
    status: str = "DOWN"
    tags: tuple[str, ...] = ()

    @property
    def network_id(self) -> str:
        return self.parent_id or ""
