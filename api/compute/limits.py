"""Limits of a project with what is used of them, as dashboards draw them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from api.compute.page import listing
from api.wire import Call
from bus.documents import Where
from handlers.compute.quota import defaults, limits_in_force, quota_of
from schema.compute.server_group import SERVER_GROUP

RULE = "os_compute_api:limits"


class Query(Struct, frozen=True):
    tenant_id: str | None = None
    reserved: str | None = None
    """Once added what was reserved and not used yet; reserving is using here."""


async def show(call: Call) -> dict[str, Any]:
    project_id = call.params.tenant_id or call.token.project_id or ""
    if project_id != call.token.project_id:
        call.must(f"{RULE}:other_project", project_id=project_id)
    quota = await quota_of(call.cloud, project_id)
    groups = await call.cloud.documents.count(SERVER_GROUP, where=[Where("project_id", "=", project_id)])
    limits = limits_in_force(quota, defaults(call.cloud))
    absolute = {
        "maxTotalInstances": limits["instances"],
        "maxTotalCores": limits["cores"],
        "maxTotalRAMSize": limits["ram"],
        "maxServerMeta": limits["metadata_items"],
        "maxTotalKeypairs": limits["key_pairs"],
        "maxServerGroups": limits["server_groups"],
        "maxServerGroupMembers": limits["server_group_members"],
        "totalInstancesUsed": quota.usage["instances"],
        "totalCoresUsed": quota.usage["cores"],
        "totalRAMUsed": quota.usage["ram"],
        "totalServerGroupsUsed": groups,
    }
    if call.version < (2, 36):
        absolute |= dict.fromkeys(("maxTotalFloatingIps", "maxSecurityGroups", "maxSecurityGroupRules"), -1)
        absolute |= dict.fromkeys(("totalFloatingIpsUsed", "totalSecurityGroupsUsed"), 0)
    if call.version < (2, 39):
        absolute["maxImageMeta"] = limits["metadata_items"]
    if call.version < (2, 57):
        absolute["maxPersonality"] = limits["injected_files"]
        absolute["maxPersonalitySize"] = limits["injected_file_content_bytes"]
    return {"limits": {"rate": [], "absolute": absolute}}


routes = [*listing("/limits", show, RULE, Query)]
