"""Placement as one service: its routes, its policy, its microversions."""

from __future__ import annotations

from api.placement import (
    aggregate,
    allocation,
    allocation_candidate,
    inventory,
    reshaper,
    resource_class,
    resource_provider,
    trait,
    usage,
)
from api.placement.policy import POLICY
from api.placement.refusal import body_refusal
from api.wire import Service
from api.wire.errors import PLACEMENT
from api.wire.microversion import Microversions
from api.wire.versions import placement as version_documents
from schema.placement.provider import PROVIDER
from schema.placement.resource_class import RESOURCE_CLASS
from schema.placement.trait import TRAIT

MICROVERSIONS = Microversions(
    word="placement",
    minimum="1.0",
    maximum="1.39",
    unknown="Invalid microversion: Unacceptable version header: {asked}",
    malformed="Invalid microversion: invalid version string: {asked}; it must be MAJOR.MINOR or latest",
)

SERVICE = Service(
    name="placement",
    type="placement",
    prefix="/placement",
    errors=PLACEMENT,
    microversions=MICROVERSIONS,
    policy=POLICY,
    body_refusal=body_refusal,
    json_or_nothing=True,
    typed_bodies=True,
    heads=False,
    mirrors=(PROVIDER, RESOURCE_CLASS, TRAIT),
    roots=version_documents(MICROVERSIONS),
    routes=[
        *resource_provider.routes,
        *inventory.routes,
        *usage.routes,
        *aggregate.routes,
        *trait.routes,
        *resource_class.routes,
        *allocation.routes,
        *allocation_candidate.routes,
        *reshaper.routes,
    ],
)
