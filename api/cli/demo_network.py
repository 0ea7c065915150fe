"""The demo's network: a way out, a network behind a router, ports for its servers; all by the public API."""

from __future__ import annotations

from typing import Any

import msgspec

from agents.network.fabric import OUTSIDE_ADDRESSES, PHYSICAL_NETWORK
from api.cli.client import Client

NAME = "demo"
OUTSIDE = "public"
OUTSIDE_GATEWAY = OUTSIDE_ADDRESSES[0].partition("/")[0]
OUTSIDE_CIDR = "172.24.4.0/24"
CIDR = "10.77.0.0/24"
RULES: tuple[dict[str, Any], ...] = (
    {"protocol": "icmp"},
    {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22},
)
"""What may reach the demo's servers."""


class Laid(msgspec.Struct, frozen=True):
    """What the servers are attached to."""

    outside_id: str
    network_id: str
    subnet_id: str
    group_id: str


def lay(api: Client) -> Laid:
    """Make what is needed; the outside network stays from one demo to the next."""
    outside = _outside(api)
    network = _post(api, "network", name=NAME)
    subnet = _post(api, "subnet", name=NAME, network_id=network, ip_version=4, cidr=CIDR)
    router = _post(api, "router", name=NAME, external_gateway_info={"network_id": outside})
    _put(api, f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    group = _post(api, "security_group", name=NAME, description="what may reach the demo's servers")
    for rule in RULES:
        _post(api, "security_group_rule", security_group_id=group, direction="ingress", ethertype="IPv4", **rule)
    return Laid(outside, network, subnet, group)


def port(api: Client, laid: Laid, name: str) -> tuple[str, str]:
    """A port for a server: its id and its address."""
    fixed = [{"subnet_id": laid.subnet_id}]
    body = {"name": name, "network_id": laid.network_id, "fixed_ips": fixed, "security_groups": [laid.group_id]}
    made = api.post("network", "/v2.0/ports", {"port": body})["port"]
    return made["id"], made["fixed_ips"][0]["ip_address"]


def floating_ip(api: Client, laid: Laid, port_id: str) -> str:
    """An outside address that leads to that port."""
    body = {"floating_network_id": laid.outside_id, "port_id": port_id, "description": NAME}
    made: str = api.post("network", "/v2.0/floatingips", {"floatingip": body})["floatingip"]["floating_ip_address"]
    return made


def clear(api: Client) -> None:
    """Take away what an earlier demo has left, but for the outside network."""
    for it in _named(api, "floatingip", description=NAME):
        _delete(api, f"/floatingips/{it['id']}")
    for router in _named(api, "router", name=NAME):
        for it in _named(api, "port", device_id=router["id"], device_owner="network:router_interface"):
            _put(api, f"/routers/{router['id']}/remove_router_interface", {"port_id": it["id"]})
        _delete(api, f"/routers/{router['id']}")
    for network in _named(api, "network", name=NAME):
        for it in _named(api, "port", network_id=network["id"]):
            if not it["device_owner"].startswith("network:"):
                _delete(api, f"/ports/{it['id']}")
        _delete(api, f"/networks/{network['id']}")
    for it in _named(api, "security_group", name=NAME):
        _delete(api, f"/security-groups/{it['id']}")


def _outside(api: Client) -> str:
    found = _named(api, "network", name=OUTSIDE)
    if found:
        there: str = found[0]["id"]
        return there
    flat = {"provider:network_type": "flat", "provider:physical_network": PHYSICAL_NETWORK}
    id = _post(api, "network", name=OUTSIDE, **{"router:external": True}, **flat)
    pool = [{"start": "172.24.4.10", "end": "172.24.4.250"}]
    gateway = {"gateway_ip": OUTSIDE_GATEWAY, "allocation_pools": pool, "enable_dhcp": False}
    _post(api, "subnet", name=OUTSIDE, network_id=id, ip_version=4, cidr=OUTSIDE_CIDR, **gateway)
    return id


def _named(api: Client, what: str, **wanted: str) -> list[dict[str, Any]]:
    query = "&".join(f"{key}={value}" for key, value in wanted.items())
    found: list[dict[str, Any]] = api.get("network", f"/v2.0/{_path(what)}?{query}")[f"{what}s"]
    return found


def _post(api: Client, what: str, **fields: Any) -> str:
    made: str = api.post("network", f"/v2.0/{_path(what)}", {what: fields})[what]["id"]
    return made


def _put(api: Client, path: str, body: dict[str, Any]) -> None:
    api.call("PUT", "network", f"/v2.0{path}", msgspec.json.encode(body))


def _delete(api: Client, path: str) -> None:
    api.call("DELETE", "network", f"/v2.0{path}", None)


def _path(what: str) -> str:
    return f"{what.replace('_', '-')}s"
