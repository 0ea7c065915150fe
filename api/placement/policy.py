"""Who may do what in placement, by its own rule names: operators and services; readers see their project's usage.

Everybody comes with a token of some project: tokens of a domain or of the system may nothing here.
"""

from __future__ import annotations

from api.wire.policy import ADMIN, PROJECT_READER, SERVICE, Check, Target, all_of, any_of
from handlers.identity.token import Token


def project_scope(token: Token, target: Target) -> bool:
    return token.project_id is not None


ADMIN_OR_SERVICE = all_of(project_scope, any_of(ADMIN, SERVICE))

POLICY: dict[str, Check | str] = {
    "placement:resource_providers:list": ADMIN_OR_SERVICE,
    "placement:resource_providers:create": ADMIN_OR_SERVICE,
    "placement:resource_providers:show": ADMIN_OR_SERVICE,
    "placement:resource_providers:update": ADMIN_OR_SERVICE,
    "placement:resource_providers:delete": ADMIN_OR_SERVICE,
    "placement:resource_classes:list": ADMIN_OR_SERVICE,
    "placement:resource_classes:create": ADMIN_OR_SERVICE,
    "placement:resource_classes:show": ADMIN_OR_SERVICE,
    "placement:resource_classes:update": ADMIN_OR_SERVICE,
    "placement:resource_classes:delete": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:list": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:create": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:show": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:update": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:delete": ADMIN_OR_SERVICE,
    "placement:resource_providers:aggregates:list": ADMIN_OR_SERVICE,
    "placement:resource_providers:aggregates:update": ADMIN_OR_SERVICE,
    "placement:resource_providers:usages": ADMIN_OR_SERVICE,
    "placement:usages": all_of(project_scope, any_of(ADMIN, SERVICE, PROJECT_READER)),
    "placement:traits:list": ADMIN_OR_SERVICE,
    "placement:traits:show": ADMIN_OR_SERVICE,
    "placement:traits:update": ADMIN_OR_SERVICE,
    "placement:traits:delete": ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:list": ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:update": ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:delete": ADMIN_OR_SERVICE,
    "placement:allocations:manage": ADMIN_OR_SERVICE,
    "placement:allocations:list": ADMIN_OR_SERVICE,
    "placement:allocations:update": ADMIN_OR_SERVICE,
    "placement:allocations:delete": ADMIN_OR_SERVICE,
    "placement:resource_providers:allocations:list": ADMIN_OR_SERVICE,
    "placement:allocation_candidates:list": ADMIN_OR_SERVICE,
    "placement:reshaper:reshape": all_of(project_scope, SERVICE),
}
