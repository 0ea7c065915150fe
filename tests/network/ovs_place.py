"""Open vSwitches of a test's hosts, and the end of them."""

from __future__ import annotations

import os
import select
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from agents.network.driver import Component
from agents.network.namespace import Namespace
from agents.network.ovs import openflow
from agents.network.ovs.flows import Flow, key
from agents.network.ovs.pipeline import ALLOWED, ASKED, MEMBER, load
from agents.network.ovs.switch import OvsSwitch
from agents.network.switch import Attachment
from schema.network.wiring import WiredNetwork
from tests.network.cabling import Guest, Site, port_of, settle


class OvsSite(Site):
    """A host with an Open vSwitch, which plugs in taps by itself and has rules and wiring in one."""

    def __init__(self) -> None:
        self._switches = open_vswitches()
        self._opened = self._switches.__enter__()
        super().__init__()

    def __exit__(self, *_: object) -> None:
        self._switches.__exit__(None, None, None)
        super().__exit__()

    async def foot(self, network: WiredNetwork, number: int, *, kernel: bool = True) -> Guest:
        port = port_of(network, number)
        guest = Guest(self, f"g{len(self.guests)}", port)
        self.guests.append(guest)
        end = {"port_id": port.id, "network_id": network.id, "mac_address": guest.mac, "mtu": 1500}
        foot = Attachment(**end, namespace=guest.name)
        await self.firewall.attach(foot, self.world)
        guest.space.call(_rename, foot.inside)
        guest.space.call(settle, port, kernel)
        return guest

    async def stamp(self) -> object:
        return await openflow.listed(self.firewall.openflow)

    def grown(self, group: str, ip: str) -> object:
        side = key("members", group, "4", "ingress")
        return [Flow(MEMBER, 10, f"{ASKED}={side},ip,nw_src={ip}", load(ALLOWED, 1)).line]

    def _make(self) -> Component:
        return self._opened(self.space)

    def _have_bridge(self, network: WiredNetwork) -> None:
        """It has one for all."""

    def _bridge_of(self, network: WiredNetwork) -> str:
        return ""


@contextmanager
def open_vswitches(**options: Any) -> Iterator[Callable[[Namespace], OvsSwitch]]:
    """Makes a host's; made again for the same host, it is the next agent's."""
    folder = Path(tempfile.mkdtemp(prefix="cl-ovs-"))
    try:
        yield lambda inside: OvsSwitch(inside, folder / str(inside.name), **options)
    finally:
        end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)


def end_processes(folder: Path) -> None:
    """Those that an agent would find again: by their pid files, if they are ours."""
    for path in folder.rglob("*.pid"):
        with suppress(OSError, ValueError):
            pid = int(path.read_text())
            if str(folder) in Path(f"/proc/{pid}/cmdline").read_text():
                handle = os.pidfd_open(pid)
                os.kill(pid, signal.SIGKILL)
                select.select([handle], [], [], 5)
                os.close(handle)


def _rename(interface: str) -> None:
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=interface)[0]
        netlink.link("set", index=index, state="down")
        netlink.link("set", index=index, ifname="eth0")
