"""The rules of networks: what subnets they have, whom they are shared with, and that one with subnets stays."""

from __future__ import annotations

import ipaddress

from bus.execute import Aggregate
from handlers.network.router import Outdated
from schema.changes import differing, given
from schema.event import Command
from schema.network.network import (
    NETWORK,
    AddNetworkSubnet,
    CreateNetwork,
    DeleteNetwork,
    Network,
    NetworkCreated,
    NetworkDeleted,
    NetworkEvent,
    NetworkShared,
    NetworkSubnetAdded,
    NetworkSubnetRemoved,
    NetworkUnshared,
    NetworkUpdated,
    RemoveNetworkSubnet,
    ShareNetwork,
    UnshareNetwork,
    UpdateNetwork,
    UseNetwork,
)
from schema.refusal import Conflict, Invalid, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateNetwork: {ABSENT},
    UpdateNetwork: {THERE},
    AddNetworkSubnet: {THERE},
    RemoveNetworkSubnet: {THERE},
    UseNetwork: {THERE},
    ShareNetwork: {THERE},
    UnshareNetwork: {THERE},
    DeleteNetwork: {THERE},
}


def decide(network: Network, command: Command) -> list[NetworkEvent]:
    if _already_so(network, command):
        return []
    status = _status(network)
    if status not in ALLOWED[type(command)]:
        if isinstance(command, CreateNetwork):
            raise Conflict(f"Network {network.id} is {status} already.", code="Conflict")
        raise not_found(network.id)
    match command:
        case CreateNetwork():
            return [NetworkCreated(**given(command))]
        case UpdateNetwork():
            return [NetworkUpdated(**differing(network, command))]
        case AddNetworkSubnet():
            _refuse_overlap(network, command.cidr)
            return [NetworkSubnetAdded(subnet_id=command.subnet_id, cidr=command.cidr)]
        case RemoveNetworkSubnet():
            return [NetworkSubnetRemoved(subnet_id=command.subnet_id)]
        case UseNetwork():
            raise Outdated(f"Network {network.id} has other subnets by now; try again.", code="Conflict")
        case ShareNetwork():
            return [NetworkShared(project_id=command.project_id, external=command.external)]
        case UnshareNetwork():
            return [NetworkUnshared(project_id=command.project_id, external=command.external)]
        case DeleteNetwork():
            if network.subnet_ids:
                raise Outdated(
                    f"Network {network.id} still has the subnets {', '.join(network.subnet_ids)}; "
                    "their end belongs into the same change.",
                    code="NetworkInUse",
                )
            return [NetworkDeleted()]
    raise TypeError(f"networks know no {type(command).__name__}")


def _refuse_overlap(network: Network, cidr: str) -> None:
    """Raises Invalid when a subnet has some of that range."""
    if not cidr:
        return
    fresh = ipaddress.ip_network(cidr)
    others = (ipaddress.ip_network(it) for it in network.cidrs.values())
    if any(fresh.version == other.version and fresh.overlaps(other) for other in others):
        raise Invalid(
            f"Invalid input for operation: Requested subnet with cidr: {cidr} for network: {network.id} overlaps with "
            "another subnet.",
            code="InvalidInput",
        )


def not_found(id: str) -> NotFound:
    return NotFound(f"Network {id} could not be found.", code="NetworkNotFound")


def _already_so(network: Network, command: Command) -> bool:
    match command:
        case CreateNetwork():
            return network.living and not {k: v for k, v in given(command).items() if getattr(network, k) != v}
        case DeleteNetwork():
            return network.deleted_at is not None
    if not network.living:
        return False
    match command:
        case UpdateNetwork():
            return not differing(network, command)
        case AddNetworkSubnet():
            return command.subnet_id in network.subnet_ids
        case RemoveNetworkSubnet():
            return command.subnet_id not in network.subnet_ids
        case UseNetwork():
            return command.subnet_ids == network.subnet_ids
        case ShareNetwork() | UnshareNetwork():
            those = network.external_for if command.external else network.shared_with
            return (command.project_id in those) is isinstance(command, ShareNetwork)
    return False


def _status(network: Network) -> str:
    if network.deleted_at is not None:
        return GONE
    return THERE if network.living else ABSENT


NETWORKS = Aggregate(NETWORK, decide, ALLOWED)
