"""The filters there are, by Nova's names, and those that a configuration chooses, in its order.

What Placement answers for in Nova (zone, traits, sizes) is always asked, and so is whether a host was tried already,
whether it could wire the server's ports, and whether it has the hardware that a server wants for itself: without it
nothing could be claimed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from bus.config import ConfigurationError
from bus.config import Scheduler as Settings
from handlers.placement.filter import Filter, Made
from handlers.placement.filters import affinity, aggregate, capability, compute, hardware, image, load, wiring

GROUP = "cumulog.filters"
"""Entry points of third parties."""

BUILT_IN: dict[str, Made] = {
    "AllHosts": compute.ALL_HOSTS,
    "Compute": compute.COMPUTE,
    "ImageProperties": image.IMAGE_PROPERTIES,
    "IsolatedHosts": image.isolated_hosts,
    "ComputeCapabilities": capability.COMPUTE_CAPABILITIES,
    "Json": capability.JSON,
    "AggregateInstanceExtraSpecs": aggregate.EXTRA_SPECS,
    "AggregateMultiTenancyIsolation": aggregate.MULTI_TENANCY,
    "AggregateImagePropertiesIsolation": aggregate.IMAGE_PROPERTIES,
    "AggregateTypeAffinity": aggregate.TYPE_AFFINITY,
    "AggregateNumInstances": load.aggregate_num_instances,
    "AggregateIoOps": load.aggregate_io_ops,
    "Metrics": load.metrics,
    "NumInstances": load.num_instances,
    "IoOps": load.io_ops,
    "NUMATopology": hardware.NUMA_TOPOLOGY,
    "PciPassthrough": hardware.PCI_PASSTHROUGH,
    "SameHost": affinity.SAME_HOST,
    "DifferentHost": affinity.DIFFERENT_HOST,
    "SimpleCIDRAffinity": affinity.SIMPLE_CIDR,
    "ServerGroupAffinity": affinity.GROUP_AFFINITY,
    "ServerGroupAntiAffinity": affinity.GROUP_ANTI_AFFINITY,
}


def chosen(settings: Settings) -> tuple[Filter, ...]:
    """The filters in force, in their order. Raises ConfigurationError for a name that there is none of."""
    named = [_made(find(name), settings) for name in settings.filters]
    before = [compute.REQUESTED_HOST]
    after = [
        compute.AVAILABILITY_ZONE,
        compute.required_traits(settings),
        compute.UNITS,
        wiring.VNIC_TYPES,
        wiring.ROUTED_NETWORKS,
        compute.RETRY,
        wiring.NETWORK,
    ]
    after += [it for it in (hardware.PCI_PASSTHROUGH, hardware.NUMA_TOPOLOGY) if it not in named]
    if settings.isolate_aggregates:
        before.append(aggregate.ISOLATE)
    if settings.require_tenant_aggregate:
        before.append(aggregate.TENANT_REQUIRED)
    elif settings.limit_tenants_to_aggregates:
        before.append(aggregate.TENANT_LIMITED)
    return _static_first([*before, *named, *after])


def _static_first(filters: Sequence[Filter]) -> tuple[Filter, ...]:
    """Those whose answers are remembered, then those that are asked every time, the dear ones last."""
    return tuple(sorted(filters, key=lambda it: (it.live, it.dear)))


def find(name: str) -> Made:
    """By its name with or without Filter at the end; a third party's by that of its entry point."""
    found = BUILT_IN.get(name.removesuffix("Filter"))
    if found is not None:
        return found
    for point in entry_points(group=GROUP, name=name):
        made: Made = point.load()
        return made
    known = ", ".join(sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))
    raise ConfigurationError(f"scheduler.filters: there is no filter {name}; there are {known}")


def _made(made: Made, settings: Settings) -> Filter:
    return made if isinstance(made, Filter) else made(settings)
