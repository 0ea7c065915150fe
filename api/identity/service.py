"""Identity v3 as one service: its routes, its policy."""

from __future__ import annotations

from api.identity import (
    assignment,
    auth,
    catalog,
    credential,
    domain,
    grant,
    group,
    membership,
    project,
    project_tags,
    region,
    role,
    user,
)
from api.identity.policy import POLICY
from api.wire import Service, versions
from api.wire.errors import KEYSTONE
from schema.identity.catalog import ENDPOINT
from schema.identity.catalog import SERVICE as CATALOG_SERVICE
from schema.identity.role import ROLE

SERVICE = Service(
    name="keystone",
    type="identity",
    prefix="/identity/v3",
    catalog="/identity",
    errors=KEYSTONE,
    policy=POLICY,
    mirrors=(ROLE, CATALOG_SERVICE, ENDPOINT),
    roots=versions.identity(),
    trailing_slash=True,
    extra_headers=lambda request_id: {"Vary": "X-Auth-Token"},
    routes=[
        *auth.routes,
        *domain.routes,
        *project.routes,
        *project_tags.routes,
        *user.routes,
        *group.routes,
        *membership.routes,
        *role.routes,
        *grant.routes,
        *assignment.routes,
        *region.routes,
        *catalog.routes,
        *credential.routes,
    ],
)
