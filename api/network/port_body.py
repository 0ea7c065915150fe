"""Ports as clients write them: bodies, and what they say in our words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from api.network.words import Body, LongText, Project, Text, Uuid, address, bad
from handlers.network.addressing import Wanted
from handlers.network.port import refuse_many_pairs
from schema.network.wiring import AddressPair, DhcpOption
from schema.refusal import Invalid

VnicType = Literal[
    "normal",
    "direct",
    "macvtap",
    "baremetal",
    "direct-physical",
    "virtio-forwarder",
    "smart-nic",
    "vdpa",
    "accelerator-direct",
    "accelerator-direct-physical",
    "remote-managed",
]
Tag = Annotated[str, Meta(min_length=1, max_length=255, pattern="^[^,]*$")]


class FixedIpBody(Body):
    subnet_id: Uuid | None = None
    ip_address: str | None = None


class PairBody(Body):
    ip_address: str | None = None
    mac_address: str | None = None


class OptionBody(Body):
    opt_name: Annotated[str, Meta(min_length=1, max_length=64)]
    opt_value: LongText | None = None
    ip_version: Literal[4, 6] = 4


class PortBody(Body):
    """What may be said of a port at its making and afterwards."""

    name: Text | None | UnsetType = UNSET
    description: LongText | None | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    mac_address: str | None | UnsetType = UNSET
    fixed_ips: list[FixedIpBody] | UnsetType = UNSET
    device_id: Text | None | UnsetType = UNSET
    device_owner: Text | None | UnsetType = UNSET
    security_groups: list[Uuid] | None | UnsetType = UNSET
    port_security_enabled: bool | None | UnsetType = UNSET
    allowed_address_pairs: list[PairBody] | None | UnsetType = UNSET
    extra_dhcp_opts: list[OptionBody] | None | UnsetType = UNSET
    dns_name: Text | None | UnsetType = UNSET
    dns_domain: Text | None | UnsetType = UNSET
    qos_policy_id: Uuid | None | UnsetType = UNSET
    host_id: Text | None | UnsetType = field(default=UNSET, name="binding:host_id")
    vnic_type: VnicType | UnsetType = field(default=UNSET, name="binding:vnic_type")
    profile: dict[str, Any] | None | UnsetType = field(default=UNSET, name="binding:profile")
    trusted: bool | UnsetType = UNSET


class NewPort(PortBody, kw_only=True):
    network_id: Uuid
    tenant_id: Project | None = None
    project_id: Project | None = None
    propagate_uplink_status: bool = True
    tags: tuple[Tag, ...] = ()


class ListedPort(NewPort, kw_only=True):
    """In a list of them, each may be wrapped once more."""

    network_id: Uuid | Literal[""] = ""
    port: NewPort | None = None


class PortChange(PortBody):
    """A MAC of null: another one, by chance."""

    propagate_uplink_status: bool | UnsetType = UNSET
    data_plane_status: Literal["ACTIVE", "DOWN"] | None | UnsetType = UNSET


class CreateBody(Body):
    """One, or many at once."""

    port: NewPort | UnsetType = UNSET
    ports: Annotated[list[ListedPort], Meta(min_length=1, max_length=1000)] | UnsetType = UNSET


class UpdateBody(Body):
    port: PortChange


class PairsChange(Body):
    allowed_address_pairs: Annotated[list[PairBody], Meta(min_length=1)]


class PairsBody(Body):
    port: PairsChange


def fields_of(body: PortBody) -> dict[str, Any]:
    """The plain fields it says something of, by their names in the schema; null is the default."""
    found: dict[str, Any] = {}
    for name in ("name", "description", "admin_state_up", "device_id", "device_owner", "dns_domain"):
        value = getattr(body, name)
        if value is not UNSET:
            found[name] = "" if value is None else value
    if body.dns_name is not UNSET:
        found["dns_name"] = name_in_dns(body.dns_name or "")
    if body.mac_address:
        found["mac_address"] = mac(body.mac_address)
    if body.port_security_enabled is not UNSET and body.port_security_enabled is not None:
        found["port_security_enabled"] = body.port_security_enabled
    if body.security_groups is not UNSET:
        groups = tuple(body.security_groups or ())
        if len(set(groups)) < len(groups):
            raise bad("security_groups", f"Duplicate items in the list: '{', '.join(groups)}'")
        found["security_group_ids"] = groups
    return found


def wanted_addresses(bodies: Sequence[FixedIpBody]) -> list[Wanted]:
    """Raises Invalid: an address twice, or neither address nor subnet."""
    found: list[Wanted] = []
    for it in bodies:
        if not it.ip_address and not it.subnet_id:
            raise Invalid(
                "Invalid input for operation: IP allocation requires subnet_id or ip_address.", code="InvalidInput"
            )
        one = Wanted(subnet_id=it.subnet_id or "", ip=address("fixed_ips", it.ip_address) if it.ip_address else "")
        if one.ip and any(one.ip == other.ip for other in found):
            raise bad("fixed_ips", f"Duplicate IP address '{one.ip}'")
        found.append(one)
    return found


def address_pairs(bodies: Iterable[PairBody], port_mac: str) -> tuple[AddressPair, ...]:
    """Raises Invalid. A pair without a MAC has the port's."""
    found: list[AddressPair] = []
    for it in bodies:
        if not it.ip_address:
            raise Invalid(
                "Invalid input for operation: AllowedAddressPair must contain ip_address.",
                code="AllowedAddressPairsMissingIP",
            )
        pair = AddressPair(
            ip=_address_or_cidr(it.ip_address), mac_address=mac(it.mac_address) if it.mac_address else port_mac
        )
        if pair in found:
            raise Invalid(
                f"Request contains duplicate address pair: mac_address {pair.mac_address} ip_address {pair.ip}.",
                code="DuplicateAddressPairInRequest",
            )
        found.append(pair)
    refuse_many_pairs(found)
    return tuple(found)


def dhcp_options(bodies: Iterable[OptionBody], before: Sequence[DhcpOption] = ()) -> tuple[DhcpOption, ...]:
    """What is there with these changed and added; one whose value is null goes."""
    options = {(it.name, it.ip_version): it for it in before}
    for it in bodies:
        key = (it.opt_name, it.ip_version)
        if it.opt_value is None:
            options.pop(key, None)
        elif not it.opt_value.strip():
            raise bad("extra_dhcp_opts", f"'{it.opt_name}' has an empty value")
        else:
            options[key] = DhcpOption(name=it.opt_name, value=it.opt_value, ip_version=it.ip_version)
    return tuple(options.values())


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def mac(text: str) -> str:
    """A MAC address of one card in its usual form. Raises Invalid."""
    plain = text.lower().replace("-", ":")
    if not _MAC.fullmatch(plain) or plain == "00:00:00:00:00:00":
        raise bad("mac_address", f"'{text[:64]}' is not a valid MAC address")
    return plain


_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def name_in_dns(text: str) -> str:
    """A name of a port: one label, or several with dots. Raises Invalid."""
    plain = text.lower()
    labels = plain.removesuffix(".").split(".") if plain else []
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise bad(
            "dns_name",
            f"'{text[:64]}' not a valid PQDN or FQDN. Reason: Name '{text[:64]}' must be 1-63 characters long, each of "
            "which can only be alphanumeric or a hyphen",
        )
    return plain


def _address_or_cidr(text: str) -> str:
    if "/" not in text:
        return address("allowed_address_pairs", text)
    plain, _, length = text.partition("/")
    most = 128 if ":" in plain else 32
    if not (length.isascii() and length.isdigit() and int(length[:4]) <= most):
        raise bad("allowed_address_pairs", f"'{text[:64]}' is not a valid IP subnet")
    return f"{address('allowed_address_pairs', plain)}/{int(length)}"


def said(body: msgspec.Struct, name: str) -> bool:
    """Whether a body says something of an attribute."""
    return getattr(body, name) is not UNSET
