"""The words of the catalog: regions, services, and the endpoints where services are reached."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Kind, Said, State

Interface = Literal["public", "internal", "admin"]


class RegionCreated(Event):
    description: str = ""
    parent_region_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class RegionUpdated(Event):
    description: str | UnsetType = UNSET
    parent_region_id: str | UnsetType | None = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class RegionDeleted(Event):
    pass


class Region(State):
    description: str = ""
    parent_region_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def parent_id(self) -> str:
        return self.parent_region_id or ""


class CreateRegion(Command):
    description: str = ""
    parent_region_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class UpdateRegion(Command):
    description: str | UnsetType = UNSET
    parent_region_id: str | UnsetType | None = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class DeleteRegion(Command):
    pass


def evolve_region(region: Region, event: Any, at: datetime) -> Region:
    match event:
        case RegionCreated():
            return applied(replace(region, deleted_at=None), event)
        case RegionUpdated():
            return applied(region, event)
        case RegionDeleted():
            return Region(id=region.id, created_at=region.created_at, deleted_at=at)
    return region


REGION = Kind("region", Region, RegionCreated | RegionUpdated | RegionDeleted, evolve_region, reborn=RegionCreated)


class _NewService(Said):
    kind: str
    """The catalog's `type`: compute, identity."""
    name: str | None = None
    description: str | None = None
    enabled: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


class ServiceCreated(Event, _NewService):
    """It is there."""


class _ServiceChanges(Said):
    kind: str | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class ServiceUpdated(Event, _ServiceChanges):
    """It is changed."""


class ServiceDeleted(Event):
    pass


class Service(State):
    kind: str = ""
    name: str | None = None
    description: str | None = None
    enabled: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


class CreateService(Command, _NewService):
    """Make it."""


class UpdateService(Command, _ServiceChanges):
    """Change it."""


class DeleteService(Command):
    pass


def evolve_service(service: Service, event: Any, at: datetime) -> Service:
    match event:
        case ServiceCreated() | ServiceUpdated():
            return applied(service, event)
        case ServiceDeleted():
            return replace(service, deleted_at=at)
    return service


SERVICE = Kind("service", Service, ServiceCreated | ServiceUpdated | ServiceDeleted, evolve_service)


class _NewEndpoint(Said):
    service_id: str
    interface: Interface
    url: str
    region_id: str | None = None
    enabled: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


class EndpointCreated(Event, _NewEndpoint):
    """It is there."""


class _EndpointChanges(Said):
    service_id: str | UnsetType = UNSET
    interface: Interface | UnsetType = UNSET
    url: str | UnsetType = UNSET
    region_id: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class EndpointUpdated(Event, _EndpointChanges):
    """It is changed."""


class EndpointDeleted(Event):
    pass


class Endpoint(State):
    service_id: str = ""
    interface: Interface = "public"
    url: str = ""
    region_id: str | None = None
    enabled: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def parent_id(self) -> str:
        return self.service_id


class CreateEndpoint(Command, _NewEndpoint):
    """Make it."""


class UpdateEndpoint(Command, _EndpointChanges):
    """Change it."""


class DeleteEndpoint(Command):
    pass


def evolve_endpoint(endpoint: Endpoint, event: Any, at: datetime) -> Endpoint:
    match event:
        case EndpointCreated() | EndpointUpdated():
            return applied(endpoint, event)
        case EndpointDeleted():
            return replace(endpoint, deleted_at=at)
    return endpoint


ENDPOINT = Kind("endpoint", Endpoint, EndpointCreated | EndpointUpdated | EndpointDeleted, evolve_endpoint)
