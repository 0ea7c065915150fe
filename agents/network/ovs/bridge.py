"""The switch's one bridge, br-int, as its database has it: what ports it has, under what numbers. Pure.

A port's number is chosen here, and asked for: so a flow can name it before it is there, and it stays when the switch
is started anew. A network's number, its conntrack zone, is kept in the bridge's own row for the same reason, and so is
what the next agent has to know of feet before their services ask for them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from agents.network.ovs.database import Database, Operation, Row, insert, made, many, mutate, pairs, reference, update
from agents.network.switch import Attachment

BRIDGE = "br-int"
_NETWORK, _FOOT, _DEVICE = "network/", "foot/", "device"
_MOST_NUMBER = 0xFEFF
_ROW = {"datapath_type": "netdev", "fail_mode": "secure"}
_OPTIONS = {"disable-in-band": "true"}
"""The bridge answers nothing by itself and, without a flow for it, passes nothing."""
NO_QOS = "linux-noop"
"""Leaves limits on devices to who set them."""


class Seen(msgspec.Struct, frozen=True):
    """What the database has."""

    bridge: str = ""
    """UUID; empty: there is none."""
    right: bool = False
    """Its own row is as it should be."""
    ports: Mapping[str, str] = {}
    """Interface → UUID of its port."""
    numbers: Mapping[str, int] = {}
    """Interface → the number asked for."""
    given: Mapping[str, int] = {}
    """Interface → the number the switch gave it."""
    devices: Mapping[str, int] = {}
    """Interface → the kernel's number of the device that was meant; -1: its rows are not as we make them."""
    networks: Mapping[str, int] = {}
    feet: Mapping[str, Attachment] = {}
    """By port."""
    qos: str = ""


class Numbers(msgspec.Struct, frozen=True):
    ports: Mapping[str, int]
    """By interface."""
    networks: Mapping[str, int]


def read(store: Database) -> Seen:
    qos = next((uuid for uuid, row in store.tables["QoS"].items() if row["type"] == NO_QOS), "")
    found = store.named("Bridge", BRIDGE)
    if found is None:
        return Seen(qos=qos)
    bridge, row = found
    ports: dict[str, str] = {}
    numbers: dict[str, int] = {}
    given: dict[str, int] = {}
    devices: dict[str, int] = {}
    for uuid in each(row["ports"]):
        port = store.tables["Port"].get(uuid)
        if port is None or port["name"] == BRIDGE:
            continue
        interfaces = [store.tables["Interface"].get(it, {}) for it in each(port["interfaces"])]
        number = interfaces[0].get("ofport_request") if len(interfaces) == 1 else None
        ports[port["name"]] = uuid
        if isinstance(number, int):
            numbers[port["name"]] = number
        if isinstance(interfaces[0].get("ofport"), int):
            given[port["name"]] = interfaces[0]["ofport"]
        devices[port["name"]] = _device(port, interfaces[0], qos) if isinstance(number, int) else -1
    kept = row["external_ids"].items()
    networks = {
        key.removeprefix(_NETWORK): int(value) for key, value in kept if key.startswith(_NETWORK) and value.isdecimal()
    }
    feet = {key.removeprefix(_FOOT): foot for key, value in kept if key.startswith(_FOOT) and (foot := _foot(value))}
    right = (
        all(row[column] == value for column, value in _ROW.items()) and _OPTIONS.items() <= row["other_config"].items()
    )
    return Seen(bridge, right, ports, numbers, given, devices, networks, feet, qos)


def plan(
    devices: Mapping[str, int],
    new: AbstractSet[str],
    networks: Iterable[str],
    feet: Mapping[str, Attachment],
    seen: Seen,
) -> tuple[Numbers, list[Operation]]:
    """The numbers things have, and the operations of one transaction; none: it is as it should be.

    `devices`: interface → the kernel's number of it. `new`: those that were made just now.
    """
    # A device that was made anew needs another number, or the switch goes on with the one that is gone.
    remade = {it for it, device in devices.items() if it in seen.ports and (it in new or seen.devices[it] != device)}
    numbers = _numbered(devices.keys(), seen.numbers, remade)
    zones = _numbered(set(networks), seen.networks)
    operations: list[Operation] = []
    qos = reference(seen.qos) if seen.qos else made("qos")
    if not seen.qos:
        operations.append(insert("QoS", "qos", {"type": NO_QOS}))
    kept = {_NETWORK + id: str(zone) for id, zone in zones.items()}
    kept |= {_FOOT + id: msgspec.json.encode(foot).decode() for id, foot in feet.items()}
    row = {**_ROW, "other_config": pairs(_OPTIONS), "external_ids": pairs(kept)}
    if not seen.bridge:
        operations += [
            insert("Interface", "own", {"name": BRIDGE, "type": "internal"}),
            insert("Port", "ownport", {"name": BRIDGE, "interfaces": made("own")}),
            insert("Bridge", "bridge", {"name": BRIDGE, "ports": made("ownport"), **row}),
            mutate("Open_vSwitch", None, "bridges", "insert", many([made("bridge")])),
        ]
    elif not seen.right or zones != seen.networks or feet != seen.feet:
        operations.append(update("Bridge", seen.bridge, row))
    where = ["_uuid", "==", reference(seen.bridge)] if seen.bridge else ["name", "==", BRIDGE]
    gone = [uuid for name, uuid in seen.ports.items() if name not in devices or name in remade]
    if gone:
        operations.append(_mutate_ports(where, "delete", [reference(uuid) for uuid in gone]))
    lacking = sorted(name for name in devices if name not in seen.ports or name in remade)
    for place, name in enumerate(lacking):
        kept_device = pairs({_DEVICE: str(devices[name])})
        device = {"name": name, "ofport_request": numbers[name], "external_ids": kept_device}
        operations += [
            insert("Interface", f"device{place}", device),
            insert("Port", f"port{place}", {"name": name, "interfaces": made(f"device{place}"), "qos": qos}),
        ]
    if lacking:
        operations.append(_mutate_ports(where, "insert", [made(f"port{place}") for place in range(len(lacking))]))
    return Numbers(numbers, zones), operations


def each(value: Any) -> list[Any]:
    """A column that may hold none, one or many."""
    return value if isinstance(value, list) else [value]


def _mutate_ports(where: list[Any], how: str, ports: list[Any]) -> Operation:
    return {"op": "mutate", "table": "Bridge", "where": [where], "mutations": [["ports", how, many(ports)]]}


def _foot(value: str) -> Attachment | None:
    try:
        return msgspec.json.decode(value, type=Attachment)
    except msgspec.DecodeError:
        return None


def _device(port: Row, interface: Row, qos: str) -> int:
    number = interface["external_ids"].get(_DEVICE, "")
    plain = interface["type"] in {"", "system"} and port["qos"] == qos and not each(port["tag"] or port["trunks"])
    return int(number) if plain and number.isdecimal() else -1


def _numbered(
    names: AbstractSet[str], known: Mapping[str, int], renewed: AbstractSet[str] = frozenset()
) -> dict[str, int]:
    """Who has a number keeps it; none is given twice, nor one that somebody else has had until now."""
    found: dict[str, int] = {}
    for name in sorted(names & known.keys() - renewed):
        if known[name] not in found.values():
            found[name] = known[name]
    taken = set(known.values())
    free = (number for number in range(1, _MOST_NUMBER) if number not in taken)
    for name in sorted(names - found.keys()):
        found[name] = next(free)
    return found
