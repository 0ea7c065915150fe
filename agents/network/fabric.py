"""Several hosts on one machine: a network namespace each, joined by a fabric, with a piece of the world outside.

    cl-TAG-1        cl-TAG-2  …      the hosts: `fabric` (tunnels), `external` (the physical network of that name)
       │  │            │  │
    ───┴──│────────────┴──│───       bridge `fabric`    10.255.0.0/16       in the namespace cl-TAG-outside
    ──────┴───────────────┴───       bridge `external`  172.24.4.1/24

Nothing is made in the machine's own namespace, and no guest reaches it: `external` ends at the outside namespace, where
`./cumulog outside` runs what plays the rest of the world.
"""

from __future__ import annotations

import ipaddress
import os
import select
import signal
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from pyroute2 import IPRoute

from agents.network import namespace
from agents.network.namespace import FOLDER, enter

PHYSICAL_NETWORK = "external"
"""The physical network that hosts in namespaces reach by their interface of that name."""
OUTSIDE_ADDRESSES = ("172.24.4.1/24", "2001:db8:2404::1/64")
"""Where the world outside of the cloud begins: next hops of an external network."""
_ENDPOINTS = ipaddress.ip_network("10.255.0.0/16")
_STOP_SECONDS = 5.0
_ONE_AT_A_TIME = threading.Lock()


class HostPlace(msgspec.Struct, frozen=True):
    """Where a host's networking is made. `namespace` None: the machine itself is the host."""

    tag: str
    """Begins the names of all it makes that other hosts of the same machine make as well."""
    namespace: str | None = None
    fabric: str = ""
    """The interface, or the address, at which it takes tunnels; empty: it has no way to other hosts."""
    interfaces: Mapping[str, str] = {}
    """Physical network → the interface that leads there."""


class Fabric:
    """The hosts of one cloud on this machine, in order. Every method may be called again; all of them block."""

    def __init__(self, home: Path, hosts: Sequence[str]) -> None:
        self._prefix = f"cl-{zlib.crc32(str(home).encode()):08x}"
        self._numbers = {host: number for number, host in enumerate(hosts, 1)}

    @property
    def outside(self) -> str:
        """The namespace that plays the world around the cloud."""
        return f"{self._prefix}-outside"

    def place(self, host: str) -> HostPlace:
        number = self._numbers[host]
        return HostPlace(
            tag=f"{self._prefix[3:]}-{number}",
            namespace=f"{self._prefix}-{number}",
            fabric=str(_ENDPOINTS[number]),
            interfaces={PHYSICAL_NETWORK: PHYSICAL_NETWORK},
        )

    def ensure(self) -> None:
        """Have it all there. What is there is left as it is. Raises OSError."""
        with _ONE_AT_A_TIME:
            self._ensure()

    def _ensure(self) -> None:
        namespace.create(self.outside)
        with enter(self.outside), IPRoute() as outside:
            _bridge(outside, "fabric")
            _bridge(outside, PHYSICAL_NETWORK, OUTSIDE_ADDRESSES)
            for host, number in self._numbers.items():
                place = self.place(host)
                assert place.namespace is not None, "hosts of a fabric are namespaces"
                namespace.create(place.namespace)
                _cable(outside, "fabric", f"f{number}", place.namespace)
                _cable(outside, PHYSICAL_NETWORK, f"x{number}", place.namespace)
                with enter(place.namespace), IPRoute() as inside:
                    _address(inside, "fabric", f"{place.fabric}/{_ENDPOINTS.prefixlen}")

    def remove(self) -> None:
        """End what runs in these namespaces, which nobody but the cloud made, and take them away."""
        names = namespace.names(self._prefix)
        _end_all_in(names)
        for name in names:
            namespace.remove(name)


def _bridge(netlink: Any, name: str, addresses: Iterable[str] = ()) -> None:
    if not netlink.link_lookup(ifname=name):
        netlink.link("add", ifname=name, kind="bridge")
    netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
    for address in addresses:
        _address(netlink, name, address)


def _cable(outside: Any, bridge: str, name: str, host: str) -> None:
    """From a bridge to the interface of the same name in a host's namespace."""
    if not outside.link_lookup(ifname=name):
        outside.link("add", ifname=name, kind="veth", peer={"ifname": bridge, "net_ns_fd": str(FOLDER / host)})
        with enter(host), IPRoute() as inside:
            inside.link("set", index=inside.link_lookup(ifname=bridge)[0], state="up")
    [index] = outside.link_lookup(ifname=name)
    outside.link("set", index=index, master=outside.link_lookup(ifname=bridge)[0], state="up")


def _address(netlink: Any, interface: str, address: str) -> None:
    ip, _, length = address.partition("/")
    [index] = netlink.link_lookup(ifname=interface)
    netlink.addr("replace", index=index, address=ip, prefixlen=int(length))


def _end_all_in(names: Iterable[str]) -> None:
    """Ask all processes in these namespaces to end, and kill those that do not."""
    spaces = {(FOLDER / name).stat().st_ino for name in names}
    handles = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and path.name != str(os.getpid()) and _space_of(path) in spaces:
            with suppress(ProcessLookupError):
                handles[os.pidfd_open(int(path.name))] = path
    for number in (signal.SIGTERM, signal.SIGKILL):
        for handle, path in handles.items():
            if _space_of(path) in spaces:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
        for handle in handles:
            select.select([handle], [], [], _STOP_SECONDS)
    for handle in handles:
        os.close(handle)


def _space_of(path: Path) -> int:
    """The network namespace of a process, by its inode; 0: it has ended."""
    try:
        return (path / "ns" / "net").stat().st_ino
    except OSError:
        return 0
