"""Random things that happen to a network, for histories of a model: few of each, so that they meet."""

from __future__ import annotations

from random import Random
from typing import Any, Protocol

import msgspec

from schema.event import Event, Kind
from schema.network.address_group import (
    ADDRESS_GROUP,
    AddressesAdded,
    AddressesRemoved,
    AddressGroupCreated,
    AddressGroupDeleted,
)
from schema.network.floating_ip import (
    FLOATING_IP,
    FloatingIpAssociated,
    FloatingIpCreated,
    FloatingIpDeleted,
    FloatingIpDisassociated,
    FloatingIpUpdated,
)
from schema.network.host import (
    NETWORK_HOST,
    NetworkHostFactsChanged,
    NetworkHostLost,
    NetworkHostRegistered,
    NetworkHostRemoved,
)
from schema.network.network import (
    NETWORK,
    NetworkCreated,
    NetworkDeleted,
    NetworkSegmentAdded,
    NetworkSegmentRemoved,
    NetworkShared,
    NetworkUnshared,
    NetworkUpdated,
    Segment,
)
from schema.network.port import PORT
from schema.network.port_event import (
    PortBindingActivated,
    PortBindingAdded,
    PortBindingRemoved,
    PortBound,
    PortCreated,
    PortDeleted,
    PortJoinedTrunk,
    PortLeftTrunk,
    PortTrunked,
    PortUnbound,
    PortUpdated,
    PortWired,
)
from schema.network.port_state import Binding, FixedIp, Port
from schema.network.qos_policy import (
    QOS_POLICY,
    QosPolicyCreated,
    QosPolicyDeleted,
    QosPolicyUpdated,
    QosRule,
    QosRuleAdded,
    QosRuleChanged,
    QosRuleRemoved,
)
from schema.network.router import (
    ROUTER,
    ExternalGateway,
    RouterCreated,
    RouterDeleted,
    RouterGatewaySet,
    RouterInterface,
    RouterInterfaceAdded,
    RouterInterfaceRemoved,
    RouterScheduled,
)
from schema.network.security_group import (
    SECURITY_GROUP,
    SecurityGroupCreated,
    SecurityGroupDeleted,
    SecurityRule,
    SecurityRuleRemoved,
    SecurityRulesAdded,
)
from schema.network.subnet import SUBNET, AddressAllocated, SubnetCreated, SubnetDeleted, SubnetUpdated
from schema.network.subnet_pool import SUBNET_POOL, SubnetPoolCreated, SubnetPoolDeleted, SubnetPoolUpdated
from schema.network.vpn_connection import (
    VPN_CONNECTION,
    VpnConnectionCreated,
    VpnConnectionDeleted,
    VpnConnectionSeen,
    VpnConnectionUpdated,
)
from schema.network.wiring import AddressPair, NetworkHostFacts

OWNERS = (
    *("compute:nova",) * 8,
    "network:dhcp",
    "network:router_interface",
    "network:router_gateway",
    "network:floatingip",
)


class Happens(Protocol):
    documents: dict[str, Any]

    def happens(self, kind: Kind[Any], id: str, *events: Event) -> None: ...


def network(history: Happens, chance: Random) -> None:
    tagged = Segment(id="t", network_type="vlan", physical_network="datacentre", segmentation_id=chance.randrange(99))
    tunnelled = Segment(id="s", network_type="vxlan", segmentation_id=chance.randrange(99))
    born = NetworkCreated(segments=chance.choice([(tunnelled,), (tagged, tunnelled)]))
    _happens(
        history,
        chance,
        NETWORK,
        _one(chance, "n"),
        born,
        NetworkDeleted(),
        NetworkUpdated(mtu=chance.choice([1400, 1450])),
        NetworkUpdated(qos_policy_id=_perhaps(chance, "q")),
        NetworkUpdated(admin_state_up=chance.random() < 0.5),
        NetworkSegmentAdded(segment=msgspec.structs.replace(tagged, id="u")),
        NetworkSegmentRemoved(segment_id=chance.choice(["s", "t", "u"])),
        NetworkShared(project_id="*", external=True),
        NetworkUnshared(project_id="*", external=True),
    )


def subnet(history: Happens, chance: Random) -> None:
    id = _one(chance, "s")
    born = SubnetCreated(parent_id=f"n{id[1:]}", cidr=f"10.0.{id[1:]}.0/24", gateway_ip=f"10.0.{id[1:]}.1")
    _happens(
        history,
        chance,
        SUBNET,
        id,
        born,
        SubnetDeleted(),
        SubnetUpdated(gateway_ip=chance.choice([None, f"10.0.{id[1:]}.254"])),
        SubnetUpdated(subnetpool_id=_perhaps(chance, "l")),
        AddressAllocated(ip=f"10.0.{id[1:]}.{chance.randrange(255)}", port_id=_one(chance, "p", 9)),
    )


def pool(history: Happens, chance: Random) -> None:
    _happens(
        history,
        chance,
        SUBNET_POOL,
        _one(chance, "l"),
        SubnetPoolCreated(prefixes=("10.0.0.0/8",), address_scope_id=_perhaps(chance, "x")),
        SubnetPoolDeleted(),
        SubnetPoolUpdated(address_scope_id=_perhaps(chance, "x")),
    )


def port(history: Happens, chance: Random) -> None:
    owner = chance.choice(OWNERS)
    device = {"network:floatingip": "f", "network:dhcp": "d", "compute:nova": "c"}.get(owner, "r")
    id = _unused(history, PORT, _one(chance, "p", 9))
    known = history.documents.get(PORT.stream(id))
    lies_in = known.state.network_id if known else _one(chance, "n")
    born = PortCreated(
        parent_id=lies_in,
        mac_address=f"fa:16:3e:00:00:{chance.randrange(99):02}",
        fixed_ips=_fixed_ips(chance, lies_in),
        device_owner=owner,
        device_id=_one(chance, device),
        security_group_ids=_some(chance, "g"),
        port_security_enabled=chance.random() < 0.8,
        made_by=lies_in if owner == "network:dhcp" and chance.random() < 0.8 else "",
    )
    _happens(
        history,
        chance,
        PORT,
        id,
        born,
        PortDeleted(),
        PortBound(host=_one(chance, "h"), vif_type="bridge"),
        PortBound(host=_one(chance, "h"), vif_type="bridge"),
        PortBound(host=_one(chance, "h"), vif_type="bridge"),
        PortUnbound(),
        PortBindingAdded(binding=Binding(host=_one(chance, "h"))),
        PortBindingActivated(host=_one(chance, "h")),
        PortBindingRemoved(host=_one(chance, "h")),
        PortWired(up=True),
        PortUpdated(fixed_ips=_fixed_ips(chance, lies_in)),
        PortUpdated(qos_policy_id=_perhaps(chance, "q")),
        PortTrunked(trunk_id="t"),
        PortJoinedTrunk(trunk_id="t", subport_of=_one(chance, "p", 4), segmentation_id=chance.randrange(9)),
        PortLeftTrunk(),
        PortUpdated(security_group_ids=_some(chance, "g"), port_security_enabled=chance.random() < 0.8),
        PortUpdated(
            admin_state_up=chance.random() < 0.5,
            dns_name=chance.choice(["", "web"]),
            allowed_address_pairs=(AddressPair(ip="192.0.2.0/24", mac_address="fa:16:3e:00:00:00"),),
        ),
    )


def group(history: Happens, chance: Random) -> None:
    rules = tuple(_rule(chance) for _ in range(chance.randrange(3)))
    _happens(
        history,
        chance,
        SECURITY_GROUP,
        _one(chance, "g"),
        SecurityGroupCreated(name="g", project_id="p", rules=rules),
        SecurityGroupDeleted(),
        SecurityRulesAdded(rules=(_rule(chance),)),
        SecurityRuleRemoved(rule_id=str(chance.randrange(6))),
    )


def address_group(history: Happens, chance: Random) -> None:
    addresses = (f"198.51.100.{chance.randrange(9)}/32",)
    _happens(
        history,
        chance,
        ADDRESS_GROUP,
        _one(chance, "a"),
        AddressGroupCreated(name="a", project_id="p", addresses=addresses),
        AddressGroupDeleted(),
        AddressesAdded(addresses=addresses),
        AddressesRemoved(addresses=addresses),
    )


def router(history: Happens, chance: Random) -> None:
    ports = [it.state for stream, it in history.documents.items() if stream.startswith(PORT.stream(""))]
    if not ports:
        return
    foot: Port = chance.choice(ports)
    port_id, joined = foot.id, foot.network_id
    policy = _perhaps(chance, "q")
    way = ExternalGateway(network_id=joined, port_id=port_id, qos_policy_id=policy)
    gateway = way if chance.random() < 0.7 else None
    _happens(
        history,
        chance,
        ROUTER,
        _one(chance, "r"),
        RouterCreated(),
        RouterDeleted(),
        RouterScheduled(host=chance.choice(["", "h0", "h1", "h2"])),
        RouterScheduled(host=_one(chance, "h")),
        RouterGatewaySet(gateway=gateway),
        RouterInterfaceAdded(interface=RouterInterface(port_id=port_id, network_id=joined, subnet_ids=())),
        RouterInterfaceRemoved(port_id=port_id),
    )


def floating_ip(history: Happens, chance: Random) -> None:
    _happens(
        history,
        chance,
        FLOATING_IP,
        _one(chance, "f"),
        FloatingIpCreated(
            project_id="p", parent_id="n0", floating_ip_address="203.0.113.9", outer_port_id=_one(chance, "p", 9)
        ),
        FloatingIpDeleted(),
        FloatingIpAssociated(port_id=_one(chance, "p", 9), fixed_ip_address="10.0.0.9", router_id=_one(chance, "r")),
        FloatingIpDisassociated(),
        FloatingIpUpdated(qos_policy_id=_perhaps(chance, "q")),
    )


def connection(history: Happens, chance: Random) -> None:
    _happens(
        history,
        chance,
        VPN_CONNECTION,
        _one(chance, "v"),
        VpnConnectionCreated(router_id=_one(chance, "r"), peer_address="203.0.113.77"),
        VpnConnectionDeleted(),
        VpnConnectionUpdated(peer_id="them", service_up=chance.random() < 0.5),
        VpnConnectionSeen(status="ACTIVE"),
    )


def network_host(history: Happens, chance: Random) -> None:
    physical = chance.choice([(), ("datacentre",)])
    facts = NetworkHostFacts(endpoint_ip=f"172.31.0.{chance.randrange(9)}", physical_networks=physical)
    _happens(
        history,
        chance,
        NETWORK_HOST,
        _one(chance, "h"),
        NetworkHostRegistered(agent_id="a", facts=facts),
        NetworkHostRemoved(),
        NetworkHostFactsChanged(facts=facts),
        NetworkHostLost(epoch=2),
    )


def qos_policy(history: Happens, chance: Random) -> None:
    limit = QosRule(id="l", type="bandwidth_limit", max_kbps=chance.randrange(9))
    mark = QosRule(id="m", type="dscp_marking", dscp_mark=chance.choice([0, 10, 46]))
    _happens(
        history,
        chance,
        QOS_POLICY,
        _one(chance, "q"),
        QosPolicyCreated(name="q", project_id="p"),
        QosPolicyDeleted(),
        QosRuleAdded(rule=limit),
        QosRuleChanged(rule=limit),
        QosRuleAdded(rule=mark),
        QosRuleRemoved(rule_id=chance.choice("lm")),
        QosPolicyUpdated(name=chance.choice("ab")),
    )


def _happens(
    history: Happens, chance: Random, kind: Kind[Any], id: str, born: Event, dies: Event, *more: Event
) -> None:
    """It is born if it was not; else something happens to it, and seldom it dies; another comes after it."""
    id = _unused(history, kind, id)
    known = history.documents.get(kind.stream(id))
    if known is None:
        history.happens(kind, id, born)
    else:
        history.happens(kind, id, dies if chance.random() < 0.05 else chance.choice(more))


def _unused(history: Happens, kind: Kind[Any], id: str) -> str:
    """The id, or another for what comes after what was called so."""
    while (known := history.documents.get(kind.stream(id))) is not None and not known.state.living:
        id += "'"
    return id


def _one(chance: Random, letter: str, of: int = 3) -> str:
    return f"{letter}{chance.randrange(of)}"


def _perhaps(chance: Random, letter: str) -> str | None:
    return _one(chance, letter) if chance.random() < 0.7 else None


def _some(chance: Random, letter: str) -> tuple[str, ...]:
    return tuple(sorted({_one(chance, letter) for _ in range(chance.randrange(3))}))


def _fixed_ips(chance: Random, network_id: str) -> tuple[FixedIp, ...]:
    ip = f"10.0.{network_id[1:]}.{chance.randrange(9)}"
    return (FixedIp(subnet_id=f"s{network_id[1:]}", ip_address=ip),)


def _rule(chance: Random) -> SecurityRule:
    remote = chance.choice(["group", "addresses", "none"])
    return SecurityRule(
        id=str(chance.randrange(6)),
        direction="ingress",
        remote_group_id=_one(chance, "g") if remote == "group" else None,
        remote_address_group_id=_one(chance, "a") if remote == "addresses" else None,
    )


HAPPENINGS = (
    network,
    subnet,
    pool,
    port,
    port,
    port,
    group,
    address_group,
    router,
    floating_ip,
    connection,
    network_host,
    qos_policy,
)
