"""The rules of regions, services and endpoints."""

from __future__ import annotations

from bus.execute import Aggregate
from handlers.identity.resource import Plain
from schema.identity.catalog import (
    ENDPOINT,
    REGION,
    SERVICE,
    CreateEndpoint,
    CreateRegion,
    CreateService,
    DeleteEndpoint,
    DeleteRegion,
    DeleteService,
    EndpointCreated,
    EndpointDeleted,
    EndpointUpdated,
    RegionCreated,
    RegionDeleted,
    RegionUpdated,
    ServiceCreated,
    ServiceDeleted,
    ServiceUpdated,
    UpdateEndpoint,
    UpdateRegion,
    UpdateService,
)

_REGION = Plain(
    "region",
    (CreateRegion, RegionCreated),
    (UpdateRegion, RegionUpdated),
    (DeleteRegion, RegionDeleted),
    reborn=True,
)
_SERVICE = Plain(
    "service", (CreateService, ServiceCreated), (UpdateService, ServiceUpdated), (DeleteService, ServiceDeleted)
)
_ENDPOINT = Plain(
    "endpoint", (CreateEndpoint, EndpointCreated), (UpdateEndpoint, EndpointUpdated), (DeleteEndpoint, EndpointDeleted)
)

REGIONS = Aggregate(REGION, _REGION.decide, _REGION.allowed)
SERVICES = Aggregate(SERVICE, _SERVICE.decide, _SERVICE.allowed)
ENDPOINTS = Aggregate(ENDPOINT, _ENDPOINT.decide, _ENDPOINT.allowed)
