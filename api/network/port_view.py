"""Ports as they are shown: one as a dictionary, many as bytes that are written once a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from api.network.resource import common
from api.wire import Call
from bus.cloud import Cloud
from bus.documents import Where
from bus.log import Document
from schema.network.network import NETWORK
from schema.network.port import PORT
from schema.network.port_state import Binding, Port

OPERATOR = "get_port:binding:host_id"
_encode = msgspec.json.Encoder().encode
DEFAULT_DOMAIN = "openstacklocal."
"""Of names on the inside, where a network has no domain of its own."""


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Ports as the caller sees them: their networks' policies and their trunks' subports are looked up at once."""
    policies = await _policies(call, {document.state.network_id for document in documents})
    subports = await _subports(call, [document.id for document in documents if _is_parent(document.state)])
    operator = call.may(OPERATOR)
    return [_whole(it, policies.get(it.state.network_id), subports, operator=operator) for it in documents]


async def many(call: Call, page: Sequence[tuple[str, int]]) -> bytes:
    """Whole ports as a JSON array, from their ids and versions. What was written once is not written again.

    What a port's network says goes into it when it is read, so a port is written anew when that has changed.
    """
    operator = call.may(OPERATOR)
    written = _written(call.cloud).seen(operator)
    policies = await _policies(call, {it.network_id for id, _ in page if (it := written.get(id)) is not None})
    missing = [
        id
        for id, version in page
        if (it := written.get(id)) is None or it.version != version or it.policy != policies.get(it.network_id)
    ]
    if missing:
        documents = list((await call.cloud.documents.get_many(PORT, missing)).values())
        for document, shown in zip(documents, await view(call, documents), strict=True):
            version = -1 if _is_parent(document.state) else document.version
            policy = shown["qos_network_policy_id"]
            written[document.id] = Written(version, document.state.network_id, policy, _encode(shown))
    return b"[" + b",".join([written[id].body for id, _ in page]) + b"]"


class Written(msgspec.Struct, frozen=True):
    """A port as it was written; of version -1, when it shows what others say."""

    version: int
    network_id: str
    policy: str | None
    body: bytes


class WrittenPorts:
    """Of a process, by whether an operator sees them: lists show most of them again and again."""

    PORTS = 16_384

    def __init__(self) -> None:
        self._ways: dict[bool, dict[str, Written]] = {}

    def seen(self, operator: bool) -> dict[str, Written]:  # noqa: FBT001
        written = self._ways.get(operator)
        if written is None or len(written) > self.PORTS:
            written = self._ways[operator] = {}
        return written


_of: WeakKeyDictionary[Any, WrittenPorts] = WeakKeyDictionary()


def _written(cloud: Cloud) -> WrittenPorts:
    return _of.setdefault(cloud.mirrors, WrittenPorts())


def binding_view(it: Binding) -> dict[str, Any]:
    """One of a port's bindings. Of an inactive one the details say whether its host is ready for the port to come."""
    ready = {"wired": it.wired} if it.status == "INACTIVE" else {}
    return {
        "host": it.host,
        "vif_type": it.vif_type,
        "vif_details": it.vif_details | ready,
        "vnic_type": it.vnic_type,
        "profile": it.profile,
        "status": it.status,
    }


def _whole(
    document: Document, network_policy: str | None, subports: Mapping[str, Sequence[Port]], *, operator: bool
) -> dict[str, Any]:
    port: Port = document.state
    shown = {
        **common(document),
        "network_id": port.network_id,
        "mac_address": port.mac_address,
        "fixed_ips": [{"subnet_id": it.subnet_id, "ip_address": it.ip_address} for it in port.fixed_ips],
        "admin_state_up": port.admin_state_up,
        "status": port.status,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "security_groups": list(port.security_group_ids),
        "port_security_enabled": port.port_security_enabled,
        "allowed_address_pairs": [
            {"mac_address": it.mac_address, "ip_address": it.ip} for it in port.allowed_address_pairs
        ],
        "extra_dhcp_opts": [
            {"opt_name": it.name, "opt_value": it.value, "ip_version": it.ip_version} for it in port.extra_dhcp_opts
        ],
        "dns_name": port.dns_name,
        "dns_domain": port.dns_domain,
        "dns_assignment": [_assignment(port, it.ip_address) for it in port.fixed_ips],
        "qos_policy_id": port.qos_policy_id,
        "qos_network_policy_id": network_policy,
        "propagate_uplink_status": port.propagate_uplink_status,
        "data_plane_status": port.data_plane_status,
        "ip_allocation": "immediate" if port.fixed_ips else port.ip_allocation,
        "numa_affinity_policy": None,
        "binding:vnic_type": port.binding.vnic_type,
    }
    if operator:
        shown |= {
            "binding:host_id": port.host,
            "binding:profile": port.binding.profile,
            "binding:vif_type": port.binding.vif_type,
            "binding:vif_details": port.binding.vif_details,
            "resource_request": None,
            "trusted": port.binding.profile.get("trusted"),
        }
    if _is_parent(port):
        shown["trunk_details"] = {
            "trunk_id": port.trunk_id,
            "sub_ports": [_subport(it) for it in subports.get(document.id, ())],
        }
    return shown


def _is_parent(port: Port) -> bool:
    return bool(port.trunk_id) and not port.subport_of


def _assignment(port: Port, ip: str) -> dict[str, str]:
    """The name an address has on the inside."""
    name = port.dns_name or "host-" + ip.replace(".", "-").replace(":", "-")
    fqdn = name if name.endswith(".") else f"{name}.{DEFAULT_DOMAIN}"
    return {"ip_address": ip, "hostname": name.partition(".")[0], "fqdn": fqdn}


def _subport(it: Port) -> dict[str, Any]:
    return {
        "port_id": it.id,
        "segmentation_type": "vlan",
        "segmentation_id": it.segmentation_id,
        "mac_address": it.mac_address,
    }


async def _policies(call: Call, network_ids: set[str]) -> dict[str, str | None]:
    """The QoS policies of networks."""
    streams = [NETWORK.stream(id) for id in network_ids]
    found = await call.cloud.executor.load(streams) if streams else {}
    return {document.id: document.state.qos_policy_id for document in found.values()}


async def _subports(call: Call, parents: Sequence[str]) -> dict[str, list[Port]]:
    """Of trunks' parents, by their tags."""
    if not parents:
        return {}
    found: dict[str, list[Port]] = {}
    for it in await call.cloud.documents.find(PORT, where=[Where("subport_of", "in", list(parents))], limit=None):
        found.setdefault(it.state.subport_of, []).append(it.state)
    return {parent: sorted(ports, key=lambda port: port.segmentation_id) for parent, ports in found.items()}
