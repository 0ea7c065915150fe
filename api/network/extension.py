"""What of Neutron's extensions is true here (clients switch features on by their aliases), and what is at the root.

A row more belongs to the change that makes its feature whole.
"""

from __future__ import annotations

from typing import Any

import msgspec

from api.wire import Call, Get
from schema.refusal import NotFound


class Extension(msgspec.Struct, frozen=True):
    """As Neutron shows it. `updated`: the day its words were settled."""

    alias: str
    name: str
    description: str
    updated: str


EXTENSIONS: tuple[Extension, ...] = (
    Extension("address-scope", "Address scope", "Subnet pools whose ranges must not overlap.", "2015-07-26"),
    Extension("agent", "agent", "The agents of hosts, and whether they live.", "2013-02-03"),
    Extension("address-group", "Address group", "Groups of addresses that security group rules name.", "2020-07-15"),
    Extension(
        "allowed-address-pairs",
        "Allowed Address Pairs",
        "Addresses that a port may send from besides its own.",
        "2013-07-23",
    ),
    Extension(
        "allowed-address-pairs-atomic",
        "Atomically add/remove allowed address pairs",
        "Address pairs come and go one by one, whoever else changes them.",
        "2023-11-01",
    ),
    Extension(
        "auto-allocated-topology",
        "Auto Allocated Topology Services",
        "A network, its subnets and a router to the default external network, made for a project at once.",
        "2016-01-01",
    ),
    Extension("availability_zone", "Availability Zone", "Zones of networks and routers.", "2015-01-01"),
    Extension(
        "availability_zone_filter",
        "Availability Zone Filter Extension",
        "Zones picked by name, resource and state.",
        "2018-06-22",
    ),
    Extension("binding", "Port Binding", "Where a port is plugged, and how.", "2014-02-03"),
    Extension(
        "binding-extended", "Port Bindings Extended", "Several bindings of a port, one of them active.", "2017-07-17"
    ),
    Extension("data-plane-status", "Data plane status", "What who watches the data plane says of ports.", "2017-01-01"),
    Extension("dns-domain-ports", "dns_domain for ports", "Ports have a domain of their own.", "2017-06-25"),
    Extension(
        "dns-integration", "DNS Integration", "Names of ports and floating IPs, domains of networks.", "2015-08-15"
    ),
    Extension("empty-string-filtering", "Empty String Filtering", "Lists of what has an empty value.", "2018-05-01"),
    Extension(
        "expose-port-forwarding-in-fip",
        "Add a port forwarding field to the body of floating IP",
        "Floating IPs show their port forwardings.",
        "2018-07-24",
    ),
    Extension("ext-gw-mode", "Neutron L3 Configurable external gateway mode", "Routers without SNAT.", "2013-03-28"),
    Extension("external-net", "Neutron external network", "Networks that routers lead out through.", "2013-01-14"),
    Extension("extra_dhcp_opt", "Neutron Extra DHCP options", "Options that DHCP gives one port.", "2013-03-17"),
    Extension("extraroute", "Neutron Extra Route", "Routes of a router beyond what it is joined to.", "2013-02-01"),
    Extension(
        "extraroute-atomic",
        "Atomically add/remove extra routes",
        "Extra routes come and go one by one, whoever else changes them.",
        "2019-07-10",
    ),
    Extension("filter-validation", "Filter parameters validation", "Filters that are none are refused.", "2018-03-21"),
    Extension("fip-port-details", "Floating IP Port Details Extension", "Floating IPs show their port.", "2018-04-09"),
    Extension(
        "floating-ip-port-forwarding",
        "Floating IP Port Forwarding",
        "Ports of a floating IP that lead to different ports inside.",
        "2017-12-04",
    ),
    Extension(
        "floating-ip-port-forwarding-description",
        "Floating IP Port Forwarding new attribute `description`",
        "Port forwardings have a description.",
        "2019-10-09",
    ),
    Extension(
        "floating-ip-port-forwarding-detail",
        "Floating IP port forwarding detail",
        "Floating IPs show the ids of their port forwardings, and the ports inside.",
        "2022-05-06",
    ),
    Extension(
        "floating-ip-port-forwarding-port-ranges",
        "Floating IP Port Forwarding support port ranges",
        "Port forwardings of whole ranges.",
        "2021-05-31",
    ),
    Extension("ip_allocation", "IP Allocation", "Ports say how they came by their addresses.", "2016-06-10"),
    Extension(
        "ip-substring-filtering", "IP address substring filtering", "Ports found by part of an address.", "2017-11-28"
    ),
    Extension(
        "floatingip-pools", "Floating IP Pools Extension", "The subnets that floating IPs come from.", "2018-03-21"
    ),
    Extension("service-type", "Neutron Service Type Management", "Who provides which service.", "2013-01-20"),
    Extension("tag-creation", "Tag creation extension", "Several tags are added at once.", "2024-07-23"),
    Extension("l3_agent_scheduler", "L3 Agent Scheduler", "Which host a router lives on.", "2013-02-07"),
    Extension("l2_adjacency", "L2 Adjacency", "Whether a network is one broadcast domain.", "2016-04-12"),
    Extension("multi-provider", "Multi Provider Network", "Networks of several segments.", "2013-06-27"),
    Extension("net-mtu", "Network MTU", "Networks say their MTU.", "2015-03-25"),
    Extension("net-mtu-writable", "Network MTU (writable)", "The MTU of a network can be set.", "2017-07-12"),
    Extension(
        "network-ip-availability",
        "Network IP Availability",
        "How many addresses of a network there are and are taken.",
        "2015-09-24",
    ),
    Extension(
        "network-segment-range",
        "Neutron Network Segment Range",
        "Which numbers networks are given, for all projects or for one.",
        "2018-11-29",
    ),
    Extension(
        "network_availability_zone",
        "Network Availability Zone",
        "Networks have hints of zones, and the zones they are in.",
        "2015-01-01",
    ),
    Extension("pagination", "Pagination support", "Lists come page by page.", "2016-06-12"),
    Extension(
        "port-mac-address-regenerate",
        "Port MAC address regenerate",
        "A port takes another MAC by chance.",
        "2018-05-03",
    ),
    Extension("port-security", "Port Security", "Networks and ports with or without anti-spoofing.", "2012-07-23"),
    Extension(
        "port-security-groups-filtering",
        "Port filtering on security groups",
        "Ports are found by the groups they are in.",
        "2018-01-09",
    ),
    Extension("port-trusted-vif", "Port trusted vif", "Ports say whether their guest is trusted.", "2024-07-10"),
    Extension("project-id", "project_id field enabled", "`project_id` beside `tenant_id`.", "2016-09-09"),
    Extension("provider", "Provider Network", "Networks say how they are carried.", "2012-09-07"),
    Extension("qos", "Quality of Service", "Policies of bandwidth and marking for ports and networks.", "2015-06-08"),
    Extension(
        "qos-bw-limit-direction", "Direction for QoS bandwidth limit rule", "Bandwidth limited both ways.", "2017-04-10"
    ),
    Extension("qos-default", "QoS default policy", "A project's policy for networks that name none.", "2017-04-06"),
    Extension("qos-fip", "Floating IP QoS", "Floating IPs have policies.", "2017-07-20"),
    Extension(
        "qos-fip-network-policy",
        "QoS policy from the floating IP network",
        "Floating IPs without a policy have their network's.",
        "2020-06-14",
    ),
    Extension("qos-gateway-ip", "Gateway IP QoS", "Ways out of routers have policies.", "2018-02-28"),
    Extension(
        "qos-port-network-policy",
        "QoS policy from the port's network",
        "Ports show their network's policy.",
        "2019-10-16",
    ),
    Extension("qos-rule-type-details", "Details of QoS rule types", "What each rule type takes.", "2017-06-22"),
    Extension("qos-rules-alias", "Alias for the QoS rules API", "Rules by their own ids.", "2018-10-07"),
    Extension(
        "quota-check-limit", "Quota engine limit check", "Limits below what is there can be refused.", "2021-04-28"
    ),
    Extension(
        "quota-check-limit-default",
        "Quota engine limit check by default",
        "Limits below what is there are refused, unless forced.",
        "2024-08-21",
    ),
    Extension("quota_details", "Quota details support", "What a project has of each thing.", "2017-02-10"),
    Extension("quotas", "Quota management support", "How much of each thing a project may have.", "2012-07-29"),
    Extension(
        "rbac-address-group", "Add address_group type to RBAC", "Address groups are shared by policies.", "2021-01-20"
    ),
    Extension("rbac-policies", "RBAC Policies", "Who may use things of others.", "2015-06-17"),
    Extension(
        "rbac-security-groups",
        "Add security_group type to network RBAC",
        "Security groups are shared by policies.",
        "2019-02-14",
    ),
    Extension(
        "revision-if-match", "If-Match constraints based on revision_number", "`If-Match` is kept.", "2016-12-11"
    ),
    Extension("router", "Neutron L3 Router", "Routers between networks, floating IPs.", "2012-07-20"),
    Extension(
        "router_availability_zone",
        "Router Availability Zone",
        "Routers have hints of zones, and the zone they are in.",
        "2015-01-01",
    ),
    Extension("security-group", "security-group", "Rules of what reaches ports, and what leaves them.", "2012-10-05"),
    Extension(
        "security-groups-default-rules",
        "Default rules for security groups",
        "What new security groups begin with.",
        "2022-12-19",
    ),
    Extension(
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "Rules show the range they mean.",
        "2021-02-18",
    ),
    Extension(
        "security-groups-remote-address-group",
        "Remote address group id field for security group rules",
        "Rules name address groups.",
        "2020-08-25",
    ),
    Extension(
        "security-groups-rules-belongs-to-default-sg",
        "Add belongs_to_default_sg to security group rules",
        "Rules say whether their group is a default one.",
        "2023-09-15",
    ),
    Extension(
        "security-groups-shared-filtering",
        "Security group filtering on the shared field",
        "Groups picked by whether they are shared.",
        "2021-07-01",
    ),
    Extension("segment", "Segment", "The segments of networks, one by one.", "2016-02-24"),
    Extension("sorting", "Sorting support", "Lists are sorted by what clients say.", "2016-06-12"),
    Extension("standard-attr-description", "standard-attr-description", "Everything has a description.", "2016-02-10"),
    Extension(
        "standard-attr-revisions", "Resource revision numbers", "Everything has a revision number.", "2016-04-11"
    ),
    Extension("standard-attr-segment", "standard-attr-segment", "Segments have times and revisions.", "2017-03-17"),
    Extension("standard-attr-tag", "Tag support for resources with standard attribute", "Tags.", "2017-01-01"),
    Extension("standard-attr-timestamp", "Resource timestamps", "When things were made and changed.", "2016-09-12"),
    Extension(
        "stateful-security-group",
        "Stateful security group",
        "Groups whose rules hold for each packet by itself.",
        "2019-11-26",
    ),
    Extension("default-subnetpools", "Default Subnetpools", "A default subnet pool of each IP version.", "2016-02-18"),
    Extension("rbac-address-scope", "Add address_scope type to RBAC", "Address scopes are shared.", "2020-03-20"),
    Extension("rbac-subnetpool", "Add subnetpool type to RBAC", "Subnet pools are shared.", "2020-03-27"),
    Extension("subnet_allocation", "Subnet Allocation", "Subnets take their ranges from pools.", "2015-03-30"),
    Extension("subnet_onboard", "Subnet Onboard", "Subnets that are there become a pool's.", "2019-01-29"),
    Extension("subnetpool-prefix-ops", "Subnet Pool Prefix Operations", "Prefixes come and go.", "2019-01-30"),
    Extension(
        "subnet-dns-publish-fixed-ip",
        "Subnet DNS publish fixed IP",
        "Subnets say whether addresses in them are published.",
        "2018-05-10",
    ),
    Extension(
        "subnet-external-network",
        "Subnet belongs to external network",
        "Subnets say whether their network is an outside one.",
        "2022-07-08",
    ),
    Extension("subnet-service-types", "Subnet service types", "Subnets that serve some owners of ports.", "2016-03-15"),
    Extension(
        "tag-ports-during-bulk-creation", "Tag Ports During Bulk Creation", "Ports are made with tags.", "2019-12-29"
    ),
    Extension("trunk", "Trunk Extension", "Many networks over one port, by tags.", "2016-01-01"),
    Extension("trunk-details", "Trunk port details", "Parents of trunks show their subports.", "2016-01-01"),
    Extension(
        "uplink-status-propagation",
        "Port Uplink Status Propagation",
        "Ports say whether guests learn of their uplink.",
        "2018-12-11",
    ),
    Extension(
        "uplink-status-propagation-updatable",
        "Ability to update the port uplink status propagation",
        "It can be changed.",
        "2024-02-09",
    ),
    Extension("vpn-endpoint-groups", "VPN Endpoint Groups", "What is at one end of a connection.", "2015-08-04"),
    Extension("vpnaas", "VPN service", "IPsec connections of routers to other sites.", "2013-05-29"),
)
ROOT = (("network", "networks"), ("subnet", "subnets"), ("port", "ports"))
"""What Neutron itself has, without any extension."""


async def index(call: Call) -> dict[str, Any]:
    return {"extensions": [_view(it) for it in EXTENSIONS]}


async def show(call: Call) -> dict[str, Any]:
    found = next((it for it in EXTENSIONS if it.alias == call.path["alias"]), None)
    if found is None:
        raise NotFound(f"Extension with alias {call.path['alias'][:64]} does not exist", code="HTTPNotFound")
    return {"extension": _view(found)}


async def resources(call: Call) -> dict[str, Any]:
    return {
        "resources": [
            {"name": name, "collection": plural, "links": [{"rel": "self", "href": call.url(f"/{plural}")}]}
            for name, plural in ROOT
        ]
    }


def _view(extension: Extension) -> dict[str, Any]:
    return {
        "alias": extension.alias,
        "name": extension.name,
        "description": extension.description,
        "updated": f"{extension.updated}T00:00:00-00:00",
        "links": [],
    }


routes = [
    Get("/", resources, may="get_extension"),
    Get("/extensions", index, may="get_extension"),
    Get("/extensions/{alias}", show, may="get_extension"),
]
