"""Who may do what with networks, by Neutron's rule names."""

from __future__ import annotations

from api.wire.policy import (
    ADMIN,
    ADMIN_OR_MEMBER,
    ADMIN_OR_READER,
    PROJECT_MANAGER,
    SERVICE,
    Check,
    any_of,
    everybody,
    own_project,
    role,
)

PROVIDER = ("provider:network_type", "provider:physical_network", "provider:segmentation_id")
"""How a network is carried is the operator's."""


def _things(*names: str) -> dict[str, Check | str]:
    """Things that their project reads and writes."""
    rules: dict[str, Check | str] = {}
    for name in names:
        rules[f"get_{name}"] = ADMIN_OR_READER
        rules |= {f"{verb}_{name}": ADMIN_OR_MEMBER for verb in ("create", "update", "delete")}
    return rules


def _managed(*names: str) -> dict[str, Check | str]:
    """Things that their project reads, and its managers write."""
    manager = any_of(ADMIN, PROJECT_MANAGER)
    rules: dict[str, Check | str] = {}
    for name in names:
        rules[f"get_{name}"] = ADMIN_OR_READER
        rules |= {f"{verb}_{name}": manager for verb in ("create", "update", "delete")}
    return rules


OPERATOR = any_of(ADMIN, SERVICE)
ALSO_SERVICES = any_of(ADMIN_OR_MEMBER, SERVICE)
"""Asked of a network: its owner, administrators, and other services."""


def _ports() -> dict[str, Check | str]:
    """Ports: some attributes are for the owner of the network, some for administrators."""
    rules: dict[str, Check | str] = {"get_port": any_of(ADMIN_OR_READER, SERVICE)}
    for verb in ("create", "update"):
        rules[f"{verb}_port"] = ALSO_SERVICES
        for attribute in (
            "device_owner",
            "mac_address",
            "fixed_ips",
            "fixed_ips:ip_address",
            "fixed_ips:subnet_id",
            "port_security_enabled",
            "allowed_address_pairs",
        ):
            rules[f"{verb}_port:{attribute}"] = ALSO_SERVICES
        rules[f"{verb}_port:binding:host_id"] = OPERATOR
        rules[f"{verb}_port:binding:profile"] = OPERATOR
        rules[f"{verb}_port:trusted"] = ADMIN
    for verb in ("get", "create", "update", "delete"):
        rules[f"{verb}_port_binding"] = OPERATOR
    rules["update_port:mac_address"] = OPERATOR
    rules["update_port:data_plane_status"] = any_of(ADMIN, role("data_plane_integrator"))
    rules |= {f"{verb}_allowed_address_pairs": ALSO_SERVICES for verb in ("add", "remove")}
    rules["activate"] = OPERATOR
    rules["get_port:binding:host_id"] = OPERATOR
    rules["delete_port"] = ALSO_SERVICES
    return rules


POLICY: dict[str, Check | str] = {
    **_things(
        "network",
        "subnet",
        "subnetpool",
        "address_scope",
        "router",
        "trunk",
        "floatingip",
        "floatingip_port_forwarding",
        "ikepolicy",
        "ipsecpolicy",
        "vpnservice",
        "endpoint_group",
        "ipsec_site_connection",
    ),
    **_managed(
        "policy",
        "policy_bandwidth_limit_rule",
        "policy_dscp_marking_rule",
        "policy_minimum_bandwidth_rule",
        "alias_bandwidth_limit_rule",
        "alias_dscp_marking_rule",
        "alias_minimum_bandwidth_rule",
    ),
    **_ports(),
    "get_rule_type": ADMIN_OR_READER,
    "get_subports": ADMIN_OR_READER,
    "add_subports": ADMIN_OR_MEMBER,
    "remove_subports": ADMIN_OR_MEMBER,
    "get_rule_type:drivers": ADMIN,
    **{
        f"{verb}_network:{what}": ADMIN
        for verb in ("create", "update")
        for what in ("shared", "router:external", "is_default", "segments", *PROVIDER)
    },
    **{f"get_network:{what}": ADMIN for what in ("segments", *PROVIDER)},
    **{f"{verb}_subnet:segment_id": ADMIN for verb in ("get", "create", "update")},
    **{
        f"{verb}_{what}": ADMIN
        for verb in ("get", "create", "update", "delete")
        for what in ("segment", "network_segment_range")
    },
    **{f"{verb}_{what}:shared": ADMIN for verb in ("create", "update") for what in ("subnetpool", "address_scope")},
    **{f"{verb}_subnetpool:is_default": ADMIN for verb in ("create", "update")},
    **dict.fromkeys(("add_prefixes", "remove_prefixes", "onboard_network_subnets"), ADMIN_OR_MEMBER),
    **{f"{verb}_agent": ADMIN for verb in ("get", "update", "delete")},
    **dict.fromkeys(("get_l3-routers", "create_l3-router", "delete_l3-router", "get_l3-agents"), ADMIN),
    **dict.fromkeys(("get_dhcp-networks", "create_dhcp-network", "delete_dhcp-network", "get_dhcp-agents"), ADMIN),
    **dict.fromkeys(
        ("get_agents", "get_segments", "get_network_segment_ranges", "get_network_ip_availabilities"), everybody
    ),
    "get_availability_zone": everybody,
    "get_extension": everybody,
    "get_service_provider": everybody,
    "get_floatingip_pool": ADMIN_OR_READER,
    "get_network_ip_availability": ADMIN,
    "get_auto_allocated_topology": ADMIN_OR_READER,
    "delete_auto_allocated_topology": ADMIN_OR_MEMBER,
    "get_router:distributed": ADMIN,
    "create_router:distributed": ADMIN,
    "create_router:ha": ADMIN,
    "create_router:external_gateway_info:enable_snat": ADMIN,
    "create_router:external_gateway_info:external_fixed_ips": ADMIN,
    "update_router:external_gateway_info:enable_snat": ADMIN,
    "update_router:external_gateway_info:external_fixed_ips": ADMIN,
    "add_router_interface": ADMIN_OR_MEMBER,
    "remove_router_interface": ADMIN_OR_MEMBER,
    "add_extraroutes": ADMIN_OR_MEMBER,
    "remove_extraroutes": ADMIN_OR_MEMBER,
    "create_floatingip:floating_ip_address": ADMIN,
    **_things("security_group", "security_group_rule", "address_group", "rbac_policy"),
    "add_addresses": ADMIN_OR_MEMBER,
    "remove_addresses": ADMIN_OR_MEMBER,
    "get_default_security_group_rule": role("reader"),
    "create_default_security_group_rule": ADMIN,
    "delete_default_security_group_rule": ADMIN,
    "create_rbac_policy:target_tenant": ADMIN,
    "update_rbac_policy:target_tenant": ADMIN,
    "get_quotas": ADMIN,
    "get_quota": any_of(ADMIN, own_project),
    "update_quota": ADMIN,
    "delete_quota": ADMIN,
}
