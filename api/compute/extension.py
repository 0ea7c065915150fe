"""GET /extensions: what once were extensions of the API, for clients that still ask which there are."""

from __future__ import annotations

from typing import Any

from api.wire import Call, Get
from schema.refusal import NotFound

RULE = "os_compute_api:extensions"

_UPDATED = "2014-12-03T00:00:00Z"

_EXTENSIONS: dict[str, tuple[str, str]] = {
    "NMN": ("Multinic", "Multiple network support."),
    "OS-DCF": ("DiskConfig", "Disk management."),
    "OS-EXT-AZ": ("ExtendedAvailabilityZone", "Availability zones of servers."),
    "OS-EXT-SRV-ATTR": ("ExtendedServerAttributes", "Hosts of servers, for administrators."),
    "OS-EXT-STS": ("ExtendedStatus", "Task, vm and power states of servers."),
    "OS-FLV-DISABLED": ("FlavorDisabled", "Whether a flavor is disabled."),
    "OS-FLV-EXT-DATA": ("FlavorExtraData", "Ephemeral disk of flavors."),
    "OS-SRV-USG": ("ServerUsage", "When servers were launched and ended."),
    "os-aggregates": ("Aggregates", "Host aggregates."),
    "os-availability-zone": ("AvailabilityZone", "Availability zones."),
    "os-config-drive": ("ConfigDrive", "Config drives."),
    "os-console-output": ("ConsoleOutput", "Console output of servers."),
    "os-consoles": ("Consoles", "Consoles of servers."),
    "os-extended-hypervisors": ("ExtendedHypervisors", "More of hypervisors."),
    "os-extended-quotas": ("ExtendedQuotas", "Force and delete of quotas."),
    "os-extended-services": ("ExtendedServices", "Reasons of disabled services."),
    "os-extended-services-delete": ("ExtendedServicesDelete", "Deletion of services."),
    "os-flavor-access": ("FlavorAccess", "Flavors for some projects only."),
    "os-flavor-extra-specs": ("FlavorExtraSpecs", "Extra specs of flavors."),
    "os-flavor-manage": ("FlavorManage", "Creation and deletion of flavors."),
    "os-flavor-rxtx": ("FlavorRxtx", "Bandwidth factor of flavors."),
    "os-flavor-swap": ("FlavorSwap", "Swap of flavors."),
    "os-hosts": ("Hosts", "Hosts by name."),
    "os-hypervisor-status": ("HypervisorStatus", "Status of hypervisors."),
    "os-hypervisors": ("Hypervisors", "Hypervisors."),
    "os-instance-actions": ("InstanceActions", "What was done to servers."),
    "os-keypairs": ("Keypairs", "Keypairs."),
    "os-quota-class-sets": ("QuotaClasses", "Default quotas."),
    "os-quota-sets": ("Quotas", "Quotas."),
    "os-server-usage": ("ServerUsage", "Times of servers."),
    "os-services": ("Services", "Compute services."),
    "os-simple-tenant-usage": ("SimpleTenantUsage", "Usage of projects."),
    "os-used-limits": ("UsedLimits", "Usage beside limits."),
    "os-user-data": ("UserData", "User data of servers."),
}


async def index(call: Call) -> dict[str, Any]:
    return {"extensions": [_view(alias) for alias in _EXTENSIONS]}


async def show(call: Call) -> dict[str, Any]:
    if call.path["alias"] not in _EXTENSIONS:
        raise NotFound(f"There is no extension {call.path['alias']}.")
    return {"extension": _view(call.path["alias"])}


def _view(alias: str) -> dict[str, Any]:
    name, description = _EXTENSIONS[alias]
    return {
        "alias": alias,
        "name": name,
        "description": description,
        "links": [],
        "namespace": "",
        "updated": _UPDATED,
    }


routes = [
    Get("/extensions", index, may=RULE),
    Get("/extensions/{alias}", show, may=RULE),
]
