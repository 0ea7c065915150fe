"""What somebody may say of a network."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.network.words import Body, LongText, Project, Text, Uuid

Mtu = Annotated[int, Meta(ge=0, le=65535)]
Number = Annotated[int, Meta(ge=0, le=1 << 32)]


class SegmentBody(Body):
    network_type: Text | None = msgspec.field(name="provider:network_type", default=None)
    physical_network: Text | None = msgspec.field(name="provider:physical_network", default=None)
    segmentation_id: Number | None = msgspec.field(name="provider:segmentation_id", default=None)


class NewNetwork(SegmentBody):
    name: Text = ""
    description: LongText = ""
    admin_state_up: bool = True
    shared: bool = False
    external: bool = msgspec.field(name="router:external", default=False)
    is_default: bool = False
    mtu: Mtu = 0
    port_security_enabled: bool = True
    dns_domain: Text = ""
    availability_zone_hints: tuple[Text, ...] = ()
    qos_policy_id: Uuid | None = None
    vlan_transparent: bool | None = None
    segments: list[SegmentBody] | None = None
    tags: tuple[str, ...] = ()
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    network: NewNetwork | None = None
    networks: list[NewNetwork] | None = None


class NetworkChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    external: bool | UnsetType = msgspec.field(name="router:external", default=UNSET)
    is_default: bool | UnsetType = UNSET
    mtu: Mtu | UnsetType = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    dns_domain: Text | UnsetType = UNSET
    qos_policy_id: Uuid | None | UnsetType = UNSET
    network_type: Any = msgspec.field(name="provider:network_type", default=UNSET)
    physical_network: Any = msgspec.field(name="provider:physical_network", default=UNSET)
    segmentation_id: Any = msgspec.field(name="provider:segmentation_id", default=UNSET)
    segments: Any = UNSET
    availability_zone_hints: Any = UNSET
    vlan_transparent: Any = UNSET
    tenant_id: Any = UNSET
    project_id: Any = UNSET


class UpdateBody(Body):
    network: NetworkChange
