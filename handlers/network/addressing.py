"""Ports that routers and floating IPs make for themselves: which addresses they take, and the wishes that make them.

An address is picked here and decided on its subnet's stream. What is picked is held until the wish is settled, so that
requests of one process never pick the same; where another process was quicker, `with_addresses` picks again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

import msgspec

from bus import clock
from bus.cloud import Cloud
from bus.execute import AlreadyTaken, StillHeld, Wish
from handlers.network.network import NETWORKS
from handlers.network.network import not_found as network_not_found
from handlers.network.port import PORTS
from handlers.network.quota import counting, giving_back
from handlers.network.router import Outdated
from handlers.network.subnet import SUBNETS, AddressTaken
from schema.network.allocation import address_of, number_of
from schema.network.floating_ip import leads_to
from schema.network.network import NETWORK, Network, UseNetwork
from schema.network.port_command import CreatePort, DeletePort, ReaddressPort
from schema.network.port_state import DHCP, FixedIp, Port
from schema.network.subnet import SUBNET, AllocateAddress, ReleaseAddress, Subnet
from schema.refusal import Conflict, Invalid

ROUTER_FEET = frozenset({"network:router_interface"})
"""Owners of ports whose addresses are chosen, not made of their MAC, even where SLAAC is."""
WINDOW = 256
"""Of how many free addresses one is picked by chance."""
ATTEMPTS = 20
"""How often other addresses are picked for who lost them to other processes."""

T = TypeVar("T")


class Wanted(msgspec.Struct, frozen=True):
    """An address asked for: this one, one of this subnet, or (neither said) any."""

    subnet_id: str = ""
    ip: str = ""


class Chosen(msgspec.Struct, frozen=True):
    """The addresses a port is to have, and the CIDRs of their subnets in the same order."""

    fixed_ips: tuple[FixedIp, ...]
    cidrs: tuple[str, ...]


class NothingLeft(Conflict):
    """No address is free where one is wanted."""


class Picks:
    """The addresses that one request picks, held from its other picks and from other requests until it is settled."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._held = _HELD.setdefault(cloud.executor, {})
        self._mine: list[tuple[str, str]] = []
        self.named: set[tuple[str, str]] = set()
        """Subnet and address of what was asked for as it is: nothing else will do."""
        self._networks: dict[str, Network] = {}
        self._subnets: dict[str, list[Subnet]] = {}

    async def choose(
        self,
        network_id: str,
        wanted: Sequence[Wanted] | None,
        service: str = "",
        mac_address: str = "",
        *,
        having: Collection[FixedIp] = (),
        among: Collection[str] | None = None,
    ) -> Chosen:
        """The addresses wanted; None: one of each family the network has, as Neutron picks for any port.

        `service`: the owner of the port, for subnets that only serve some. `mac_address`: the port's, for subnets
        whose addresses follow from it; every port but a router's has one of each of those. `having`: what the port
        keeps; the subnets read may be older than it, and its own is not given to it twice. `among`: subnets that may
        be chosen; None: any.
        Raises Invalid, and Conflict when nothing is left; whether what was named is free is decided by its subnet.
        """
        try:
            return await self._choose(network_id, wanted, service, mac_address, having=having, among=among)
        except NothingLeft:
            self._forget(network_id)  # what was remembered of it may be older than what came back meanwhile
            return await self._choose(network_id, wanted, service, mac_address, having=having, among=among)

    async def _choose(
        self,
        network_id: str,
        wanted: Sequence[Wanted] | None,
        service: str,
        mac_address: str,
        *,
        having: Collection[FixedIp],
        among: Collection[str] | None,
    ) -> Chosen:
        subnets = await self.subnets(network_id)
        for kept in having:
            self._hold(kept.subnet_id, kept.ip_address)
        serving = [it for it in subnets if _serves(it, service) and (among is None or it.id in among)]
        following = [it for it in serving if follows_mac(it)] if mac_address and service not in ROUTER_FEET else []
        if wanted is not None:
            fixed = [self._one(one, subnets, network_id, service) for one in wanted if not _follows(one, following)]
        else:
            families = [[it for it in serving if it.ip_version == version] for version in (4, 6)]
            picked = [[it for it in family if it not in following] for family in families]
            fixed = [self._any(those, network_id, service) for those in picked if those]
            if subnets and not fixed and not following:
                raise Conflict(
                    "No valid service subnet for the given device owner.",
                    code="IpAddressGenerationFailureNoMatchingSubnet",
                )
        more = [it for it in following if it.id not in {kept.subnet_id for kept in having}]
        fixed += [(it, self._held_for(it, eui64(it.cidr, mac_address))) for it in more]
        return Chosen(
            fixed_ips=tuple(FixedIp(subnet_id=subnet.id, ip_address=ip) for subnet, ip in fixed),
            cidrs=tuple(subnet.cidr for subnet, _ in fixed),
        )

    async def know(self, network_ids: Iterable[str]) -> dict[str, Network]:
        """The networks and their subnets, read at once however many; remembered for what is chosen afterwards.

        Raises NotFound for one that is not there.
        """
        missing = [id for id in dict.fromkeys(network_ids) if id not in self._networks]
        if missing:
            found = await self._cloud.executor.load([NETWORK.stream(id) for id in missing])
            for id in missing:
                document = found.get(NETWORK.stream(id))
                if document is None or not document.state.living:
                    raise network_not_found(id)
                self._networks[id] = document.state
            streams = [SUBNET.stream(it) for id in missing for it in self._networks[id].subnet_ids]
            subnets = await self._cloud.executor.load(streams) if streams else {}
            for id in missing:
                those = (subnets.get(SUBNET.stream(it)) for it in self._networks[id].subnet_ids)
                self._subnets[id] = [it.state for it in those if it is not None and it.state.living]
        return self._networks

    async def subnets(self, network_id: str) -> list[Subnet]:
        """The subnets of a network, the oldest first. Raises NotFound."""
        await self.know([network_id])
        return self._subnets[network_id]

    def release(self) -> None:
        """Settled, one way or the other."""
        for subnet_id, ip in self._mine:
            self._held.get(subnet_id, set()).discard(ip)
        self._mine.clear()

    def _one(self, wanted: Wanted, subnets: Sequence[Subnet], network_id: str, service: str) -> tuple[Subnet, str]:
        if wanted.subnet_id:
            subnet = next((it for it in subnets if it.id == wanted.subnet_id), None)
            if subnet is None:
                raise Invalid(
                    f"Invalid input for operation: Failed to create port on network {network_id}, because fixed_ips "
                    f"included invalid subnet {wanted.subnet_id}.",
                    code="InvalidInput",
                )
            return self._said(subnet, wanted.ip) if wanted.ip else self._any([subnet], network_id, service)
        if wanted.ip:
            subnet = next((it for it in subnets if _inside(wanted.ip, it.cidr)), None)
            if subnet is None:
                raise Invalid(
                    f"IP address {wanted.ip} is not a valid IP for any of the subnets on the specified network.",
                    code="InvalidIpForNetwork",
                )
            return self._said(subnet, wanted.ip)
        return self._any([it for it in subnets if _serves(it, service)], network_id, service)

    def _said(self, subnet: Subnet, ip: str) -> tuple[Subnet, str]:
        if not _inside(ip, subnet.cidr):
            raise Invalid(f"IP address {ip} is not a valid IP for the specified subnet.", code="InvalidIpForSubnet")
        ip = str(ipaddress.ip_address(ip))
        self.named.add((subnet.id, ip))
        return subnet, self._held_for(subnet, ip)

    def _any(self, subnets: Sequence[Subnet], network_id: str, service: str = "") -> tuple[Subnet, str]:
        for subnet in subnets:
            ip = pick(subnet, self._held.get(subnet.id, ()), chance=0.0 if service == DHCP else clock.fraction())
            if ip is not None:
                return subnet, self._held_for(subnet, ip)
        raise NothingLeft(f"No more IP addresses available on network {network_id}.", code="IpAddressGenerationFailure")

    def _forget(self, network_id: str) -> None:
        self._cloud.executor.forget(SUBNET.stream(it.id) for it in self._subnets.pop(network_id))
        del self._networks[network_id]

    def _held_for(self, subnet: Subnet, ip: str) -> str:
        self._hold(subnet.id, ip)
        return ip

    def _hold(self, subnet_id: str, ip: str) -> None:
        self._held.setdefault(subnet_id, set()).add(ip)
        self._mine.append((subnet_id, ip))


async def with_addresses(cloud: Cloud, attempt: Callable[[Picks], Awaitable[T]]) -> T:
    """Run a request that picks addresses; again when they were lost to others, or what it rests on is outdated."""
    for left in reversed(range(ATTEMPTS)):
        picks = Picks(cloud)
        try:
            return await attempt(picks)
        except AddressTaken as taken:
            if not left or (taken.subnet_id, taken.ip) in picks.named:
                raise
        except (Outdated, StillHeld):
            if not left:
                raise
        except AlreadyTaken as taken:
            if not left or not taken.scope.startswith(("mac ", "dhcp")):
                raise
        finally:
            picks.release()
    raise AssertionError("the last attempt raises")


def making(port: CreatePort, port_id: str) -> list[Wish]:
    """A port of a service's own, with its addresses. It counts for its project, and is never too many."""
    still_there = Wish(NETWORKS, port.parent_id or "", UseNetwork())
    return [*taking_addresses(port, port_id), *counting(port.project_id, "port", [port_id]), still_there]


def taking_addresses(port: CreatePort, port_id: str) -> list[Wish]:
    """A port with its addresses."""
    taking = [
        Wish(SUBNETS, fixed.subnet_id, AllocateAddress(ip=fixed.ip_address, port_id=port_id))
        for fixed in port.fixed_ips
    ]
    return [Wish(PORTS, port_id, port), *taking]


def unmaking(port: Port) -> list[Wish]:
    """Its end, and that of its addresses; it counts no more. StillHeld while a floating IP leads to it."""
    return [
        Wish(PORTS, port.id, DeletePort(fixed_ips=port.fixed_ips), vacant=(leads_to(port.id),)),
        *_releasing(port.id, port.fixed_ips),
        *giving_back(port.project_id, "port", [port.id]),
    ]


def readdressing(port: Port, fixed_ips: Sequence[FixedIp]) -> list[Wish]:
    """Other addresses for a port."""
    taken = [it for it in fixed_ips if it not in port.fixed_ips]
    given = [it for it in port.fixed_ips if it not in fixed_ips]
    return [
        Wish(PORTS, port.id, ReaddressPort(fixed_ips=tuple(fixed_ips), before=port.fixed_ips)),
        *(Wish(SUBNETS, it.subnet_id, AllocateAddress(ip=it.ip_address, port_id=port.id)) for it in taken),
        *_releasing(port.id, given),
    ]


def mac_address() -> str:
    """A MAC of ours, by chance."""
    return "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in clock.random_bytes(3))


def _releasing(port_id: str, fixed_ips: Iterable[FixedIp]) -> list[Wish]:
    return [Wish(SUBNETS, it.subnet_id, ReleaseAddress(ip=it.ip_address, port_id=port_id)) for it in fixed_ips]


def follows_mac(subnet: Subnet) -> bool:
    """Whether its addresses are what SLAAC makes of a port's MAC."""
    return subnet.ipv6_address_mode in {"slaac", "dhcpv6-stateless"}


def eui64(cidr: str, mac: str) -> str:
    """The address that SLAAC makes of a MAC (RFC 4291, appendix A)."""
    bits = int(mac.replace(":", ""), 16) ^ 1 << 41
    interface = (bits >> 24) << 40 | 0xFFFE << 24 | bits & 0xFFFFFF
    return str(ipaddress.IPv6Network(cidr).network_address + interface)


def _follows(wanted: Wanted, following: Sequence[Subnet]) -> bool:
    """Whether it asks for what the port gets anyway. Raises Invalid when it asks for another address there."""
    for subnet in following:
        if wanted.ip and _inside(wanted.ip, subnet.cidr):
            raise Invalid(
                f"IPv6 address {wanted.ip} cannot be directly assigned to a port on subnet {subnet.id} as the subnet "
                "is configured for automatic addresses",
                code="AllocationOnAutoAddressSubnet",
            )
    return any(wanted.subnet_id == subnet.id for subnet in following)


def _serves(subnet: Subnet, service: str) -> bool:
    return not subnet.service_types or service in subnet.service_types


def _inside(ip: str, cidr: str) -> bool:
    try:
        return ipaddress.ip_address(ip) in ipaddress.ip_network(cidr)
    except ValueError:
        return False


def pick(subnet: Subnet, held: Collection[str], chance: float) -> str | None:
    """A free address of its pools that is not held: one of the lowest, by chance; None: there is none.

    By chance, so that two processes seldom pick the same; of the lowest, so that what is taken lies together. It costs
    some binary searches, however large the pools are and however much of them is taken.
    """
    allocation = subnet.allocation
    pools = [(number_of(pool.start), number_of(pool.end)) for pool in subnet.pools]
    free = [allocation.free(first, last) for first, last in pools]
    among = min(sum(free), len(held) + WINDOW)
    start = int(chance * min(among, WINDOW))
    for turn in range(among):
        nth = (start + turn) % among
        for (first, last), there in zip(pools, free, strict=True):
            if nth < there:
                ip = address_of(allocation.nth_free(first, last, nth), subnet.ip_version)
                if ip not in held and ip != subnet.gateway_ip:
                    return ip
                break
            nth -= there
    return None


_HELD: WeakKeyDictionary[object, dict[str, set[str]]] = WeakKeyDictionary()
"""Of each process's executor: subnet → addresses picked by requests on their way."""
