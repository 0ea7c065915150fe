"""What a security group's rule may say, checked in Neutron's order and refused in its words. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from schema.network.protocol import ICMP, ICMP_V6, NUMBERS, PORTED, WITH_PORTS, number
from schema.refusal import Invalid, NotFound

ETHERTYPES = ("IPv4", "IPv6")
PORTS = 65535


class RuleSays(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule lets through, in the form it is kept in."""

    direction: Literal["ingress", "egress"]
    ethertype: str
    protocol: str | None
    port_range_min: int | None
    port_range_max: int | None
    remote_ip_prefix: str | None
    remote_group_id: str | None
    remote_address_group_id: str | None


def rule_of(
    *,
    direction: Literal["ingress", "egress"],
    ethertype: Any,
    protocol: Any,
    ports: Sequence[Any],
    remote_ip_prefix: Any,
    remote_group_id: str | None,
    remote_address_group_id: str | None,
) -> RuleSays:
    """A rule as somebody writes it. `ports`: the lowest and the highest, of ICMP type and code. Raises Invalid."""
    version = _ethertype(ethertype)
    name = _protocol(protocol)
    if version == "IPv6" and name in {"icmp", "icmpv6"}:
        name = "ipv6-icmp"
    elif version == "IPv6" and name == str(ICMP):
        name = str(ICMP_V6)
    low, high = map(_port, ports)
    if (low, high) == (1, PORTS):
        low = high = None
    prefix = _prefix(remote_ip_prefix)
    _refuse_ports(name, low, high)
    if prefix and f"IPv{ipaddress.ip_interface(prefix).version}" != version:
        raise Invalid(
            f"Conflicting value ethertype {version} for CIDR {prefix}", code="SecurityGroupRuleParameterConflict"
        )
    if version == "IPv4" and name is not None and _is_v6(name):
        raise Invalid(
            f"Invalid ethertype {version} for protocol {name}.", code="SecurityGroupEthertypeConflictWithProtocol"
        )
    if sum(map(bool, (prefix, remote_group_id, remote_address_group_id))) > 1:
        raise Invalid(
            "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.",
            code="SecurityGroupMultipleRemoteEntites",
        )
    return RuleSays(
        direction=direction,
        ethertype=version,
        protocol=name,
        port_range_min=low,
        port_range_max=high,
        remote_ip_prefix=prefix,
        remote_group_id=remote_group_id or None,
        remote_address_group_id=remote_address_group_id or None,
    )


def rule_not_found(id: str) -> NotFound:
    return NotFound(f"Security group rule {id} does not exist", code="SecurityGroupRuleNotFound")


def _ethertype(value: Any) -> str:
    found = next((it for it in ETHERTYPES if isinstance(value, str) and it.lower() == value.lower()), None)
    if found is None:
        raise Invalid(
            f"Security group rule for ethertype '{value}' not supported. Allowed values are {list(ETHERTYPES)}.",
            code="SecurityGroupRuleInvalidEtherType",
        )
    return found


def _protocol(value: Any) -> str | None:
    """Its name in small letters, or its number; None: any."""
    if value is None or value == "any":
        return None
    text = str(value).lower()
    if isinstance(value, str | int) and not isinstance(value, bool):
        if text in NUMBERS:
            return text
        if text.isascii() and text.isdigit() and int(text[:9]) <= 255:
            return str(int(text))
    raise Invalid(
        f"Security group rule protocol {str(value)[:64]} not supported. Only protocol values "
        f"{[None, 'any', *NUMBERS]} and integer representations [0 to 255] are supported.",
        code="SecurityGroupRuleInvalidProtocol",
    )


def _port(value: Any) -> int | None:
    if value is None:
        return None
    text = str(value)
    whole = isinstance(value, str | int) and not isinstance(value, bool) and text.isascii() and text.isdigit()
    if not whole or int(text[:9]) > PORTS:
        raise Invalid(f"Invalid value for port {text[:64]}", code="SecurityGroupInvalidPortValue")
    return int(text)


def _prefix(value: Any) -> str | None:
    """An address with its length; bits beyond that stay as they were written."""
    if not value:
        return None
    try:
        return str(ipaddress.ip_interface(value if isinstance(value, str) else ""))
    except ValueError:
        raise Invalid(f"Invalid CIDR {str(value)[:64]} given as IP prefix.", code="InvalidCIDR") from None


def _refuse_ports(protocol: str | None, low: int | None, high: int | None) -> None:
    if low is None and high is None:
        return
    if protocol is None:
        raise Invalid(
            "Must also specify protocol if port range is given.", code="SecurityGroupProtocolRequiredWithPorts"
        )
    what = number(protocol)
    if what in PORTED:
        if 0 in (low, high):
            raise Invalid("Invalid value for port 0", code="SecurityGroupInvalidPortValue")
        if low is None or high is None or low > high:
            raise Invalid(
                "For TCP/UDP protocols, port_range_min must be <= port_range_max",
                code="SecurityGroupInvalidPortRange",
            )
    elif what in {ICMP, ICMP_V6}:
        _refuse_icmp(low, high)
    else:
        raise Invalid(
            f"Ports cannot be specified for protocol {what}. Ports are only supported for "
            f"{', '.join(name.upper() for name in WITH_PORTS)}.",
            code="SecurityGroupInvalidProtocolForPort",
        )


def _refuse_icmp(type: int | None, code: int | None) -> None:
    for value, field, attribute in ((type, "type", "port_range_min"), (code, "code", "port_range_max")):
        if value is not None and value > 255:
            raise Invalid(
                f"Invalid value for ICMP {field} ({attribute}) {value}. It must be 0 to 255.",
                code="SecurityGroupInvalidIcmpValue",
            )
    if type is None:
        raise Invalid(
            f"ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing.",
            code="SecurityGroupMissingIcmpType",
        )


def _is_v6(protocol: str) -> bool:
    """Whether it only goes over IPv6."""
    return number(protocol) in {NUMBERS[name] for name in NUMBERS if name.startswith("ipv6-")}
