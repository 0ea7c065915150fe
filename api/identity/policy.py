"""Who may do what in Identity: Keystone's rule names, its default personas.

Admins do everything; system readers see everything; a domain's managers and readers do so within their domain;
everybody sees and changes what is their own.
"""

from __future__ import annotations

from api.wire.policy import (
    ADMIN,
    DOMAIN_MANAGER,
    DOMAIN_READER,
    PROJECT_READER,
    SERVICE,
    SYSTEM_READER,
    Check,
    Target,
    any_of,
    everybody,
    owner,
)
from handlers.identity.token import Token


def _own_house(token: Token, target: Target) -> bool:
    """The domain the token, or its project, is of."""
    houses = (token.domain_id, token.project_domain_id)
    return any(house is not None and target.get("domain_id", house) == house for house in houses)


_SEE = any_of(ADMIN, SYSTEM_READER, DOMAIN_READER)
_SEE_ALL = any_of(ADMIN, SYSTEM_READER)
_KEEP = any_of(ADMIN, DOMAIN_MANAGER)
_SEE_OR_OWN = any_of(ADMIN, SYSTEM_READER, DOMAIN_READER, owner)
_ADMIN_OR_OWN = any_of(ADMIN, owner)

POLICY: dict[str, Check | str] = {
    "identity:validate_token": any_of(ADMIN, SYSTEM_READER, SERVICE, owner),
    "identity:check_token": any_of(ADMIN, SYSTEM_READER, SERVICE, owner),
    "identity:revoke_token": any_of(ADMIN, owner),
    "identity:get_auth_catalog": everybody,
    "identity:get_auth_projects": everybody,
    "identity:get_auth_domains": everybody,
    "identity:get_auth_system": everybody,
    "identity:get_domain": any_of(ADMIN, SYSTEM_READER, _own_house),
    "identity:list_domains": _SEE,
    "identity:create_domain": ADMIN,
    "identity:update_domain": ADMIN,
    "identity:delete_domain": ADMIN,
    "identity:get_project": any_of(ADMIN, SYSTEM_READER, DOMAIN_READER, PROJECT_READER),
    "identity:list_projects": _SEE,
    "identity:create_project": _KEEP,
    "identity:update_project": _KEEP,
    "identity:delete_project": _KEEP,
    "identity:update_project_tags": _KEEP,
    "identity:get_user": _SEE_OR_OWN,
    "identity:list_users": _SEE,
    "identity:create_user": _KEEP,
    "identity:update_user": _KEEP,
    "identity:delete_user": _KEEP,
    "identity:list_user_projects": _SEE_OR_OWN,
    "identity:list_groups_for_user": _SEE_OR_OWN,
    "identity:get_group": _SEE,
    "identity:list_groups": _SEE,
    "identity:create_group": _KEEP,
    "identity:update_group": _KEEP,
    "identity:delete_group": _KEEP,
    "identity:list_users_in_group": _SEE,
    "identity:check_user_in_group": _SEE,
    "identity:add_user_to_group": _KEEP,
    "identity:remove_user_from_group": _KEEP,
    "identity:get_role": any_of(ADMIN, SYSTEM_READER, DOMAIN_MANAGER, DOMAIN_READER),
    "identity:list_roles": any_of(ADMIN, SYSTEM_READER, DOMAIN_MANAGER, DOMAIN_READER),
    "identity:create_role": ADMIN,
    "identity:update_role": ADMIN,
    "identity:delete_role": ADMIN,
    "identity:get_implied_role": _SEE_ALL,
    "identity:create_implied_role": ADMIN,
    "identity:delete_implied_role": ADMIN,
    "identity:check_grant": _SEE,
    "identity:list_grants": _SEE,
    "identity:create_grant": _KEEP,
    "identity:revoke_grant": _KEEP,
    "identity:check_system_grant": _SEE_ALL,
    "identity:list_system_grants": _SEE_ALL,
    "identity:create_system_grant": ADMIN,
    "identity:revoke_system_grant": ADMIN,
    "identity:list_role_assignments": _SEE_ALL,
    "identity:get_region": everybody,
    "identity:list_regions": everybody,
    "identity:create_region": ADMIN,
    "identity:update_region": ADMIN,
    "identity:delete_region": ADMIN,
    "identity:get_service": _SEE_ALL,
    "identity:list_services": _SEE_ALL,
    "identity:create_service": ADMIN,
    "identity:update_service": ADMIN,
    "identity:delete_service": ADMIN,
    "identity:get_endpoint": _SEE_ALL,
    "identity:list_endpoints": _SEE_ALL,
    "identity:create_endpoint": ADMIN,
    "identity:update_endpoint": ADMIN,
    "identity:delete_endpoint": ADMIN,
    "identity:get_application_credential": any_of(ADMIN, SYSTEM_READER, owner),
    "identity:list_application_credentials": any_of(ADMIN, SYSTEM_READER, owner),
    "identity:create_application_credential": owner,
    "identity:delete_application_credential": _ADMIN_OR_OWN,
}
