"""A network: one broadcast domain of a project, and how it is carried between hosts.

(absent) ──NetworkCreated──▶ there ──NetworkUpdated──▶ there ──NetworkDeleted──▶ gone
"""

from __future__ import annotations

from msgspec import field

from schema.compute.domain import Word
from schema.event import State
from schema.network.wiring import NetworkType


class Segment(Word):
    """How a network is carried on one physical network; most networks have one."""

    id: str
    network_type: NetworkType = "vxlan"
    physical_network: str | None = None
    segmentation_id: int | None = None


class Network(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    admin_state_up: bool = True
    mtu: int = 1450
    port_security_enabled: bool = True
    is_default: bool = False
    dns_domain: str = ""
    availability_zone_hints: tuple[str, ...] = ()
    qos_policy_id: str | None = None
    segments: tuple[Segment, ...] = ()
    shared_with: tuple[str, ...] = ()
    """Projects that RBAC lets use it; `*`: all of them (`shared`)."""
    external_for: tuple[str, ...] = ()
    """Projects that may route out through it; `*`: all. `router:external` is whether there are any."""
    subnet_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)
