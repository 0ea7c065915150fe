"""The rules of subnets, and with them IPAM: an address is given once, and comes back only from who has it."""

from __future__ import annotations

from bus.execute import Aggregate
from schema.changes import differing, given
from schema.event import Command
from schema.network.subnet import (
    SUBNET,
    AddressAllocated,
    AddressReleased,
    AllocateAddress,
    CreateSubnet,
    DeleteSubnet,
    ReleaseAddress,
    Subnet,
    SubnetCreated,
    SubnetDeleted,
    SubnetEvent,
    SubnetUpdated,
    UpdateSubnet,
)
from schema.refusal import Conflict, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateSubnet: {ABSENT},
    UpdateSubnet: {THERE},
    AllocateAddress: {THERE},
    ReleaseAddress: {THERE, GONE},
    DeleteSubnet: {THERE},
}


class AddressTaken(Conflict):
    """Another port was quicker. Whoever left the choice to us picks another one and wishes again."""

    def __init__(self, subnet_id: str, ip: str) -> None:
        super().__init__(f"IP address {ip} already allocated in subnet {subnet_id}.", code="IpAddressAlreadyAllocated")
        self.subnet_id = subnet_id
        self.ip = ip


def decide(subnet: Subnet, command: Command) -> list[SubnetEvent]:
    if _already_so(subnet, command):
        return []
    status = _status(subnet)
    if status not in ALLOWED[type(command)]:
        if isinstance(command, CreateSubnet):
            raise Conflict(f"Subnet {subnet.id} is {status} already.", code="Conflict")
        raise not_found(subnet.id)
    match command:
        case CreateSubnet():
            return [SubnetCreated(**given(command))]
        case UpdateSubnet():
            return [SubnetUpdated(**differing(subnet, command))]
        case AllocateAddress():
            if subnet.allocation.has(command.ip):
                raise AddressTaken(subnet.id, command.ip)
            return [AddressAllocated(ip=command.ip, port_id=command.port_id)]
        case ReleaseAddress():
            return [AddressReleased(ip=command.ip)]
        case DeleteSubnet():
            if subnet.taken:
                raise in_use(subnet.id)
            return [SubnetDeleted()]
    raise TypeError(f"subnets know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"Subnet {id} could not be found.", code="SubnetNotFound")


def in_use(id: str) -> Conflict:
    return Conflict(
        f"Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet.",
        code="SubnetInUse",
    )


def _already_so(subnet: Subnet, command: Command) -> bool:
    match command:
        case CreateSubnet():
            return subnet.living and not {k: v for k, v in given(command).items() if getattr(subnet, k) != v}
        case DeleteSubnet():
            return subnet.deleted_at is not None
        case UpdateSubnet():
            return subnet.living and not differing(subnet, command)
        case AllocateAddress():
            return subnet.living and subnet.allocation.given_to(command.ip, command.port_id)
        case ReleaseAddress():
            return subnet.created_at is not None and not subnet.allocation.given_to(command.ip, command.port_id)
    return False


def _status(subnet: Subnet) -> str:
    if subnet.deleted_at is not None:
        return GONE
    return THERE if subnet.living else ABSENT


SUBNETS = Aggregate(SUBNET, decide, ALLOWED)
