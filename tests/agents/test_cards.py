"""Network cards of real guests, in a network namespace that is their host."""

import asyncio
import base64
import hashlib
import itertools
import os
import shutil
import tempfile
import uuid
from pathlib import Path

import libvirt
import pytest
from pyroute2 import IPRoute

from agents.hypervisor import libvirt_cards as driver_module
from agents.hypervisor.domain_cards import cards
from agents.hypervisor.libvirt import LibvirtDriver
from agents.hypervisor.libvirtd import PrivateLibvirtd
from agents.hypervisor.packages import make_user
from agents.network import namespace
from agents.network.namespace import Namespace
from schema.compute.domain import Domain, ImageRef, Nic, Seed

from .control import Control

pytestmark = [pytest.mark.live, pytest.mark.slow]

BOOT_SECONDS = 120
GATEWAY, GUEST = "10.231.0.1", "10.231.0.2"


def make_tap(name, bridge=None):
    with IPRoute() as netlink:
        netlink.link("add", ifname=name, kind="tuntap", mode="tap")
        [index] = netlink.link_lookup(ifname=name)
        if bridge:
            netlink.link("set", index=index, master=netlink.link_lookup(ifname=bridge)[0])
        netlink.link("set", index=index, state="up")


def make_bridge(name, address):
    with IPRoute() as netlink:
        netlink.link("add", ifname=name, kind="bridge")
        [index] = netlink.link_lookup(ifname=name)
        netlink.addr("add", index=index, address=address, prefixlen=24)
        netlink.link("set", index=index, state="up")


def frames_from_guest(name):
    with IPRoute() as netlink:
        [link] = netlink.get_links(ifname=name)
        return link.get("stats64")["rx_packets"]


async def ping(inside, address):
    command = [*inside.command, "ping", "-c", "1", "-W", "1", address]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


@pytest.fixture
def host():
    """A namespace, and a libvirtd in it."""
    make_user()
    name = f"cl-t{os.getpid()}"
    namespace.create(name)
    inside = Namespace(name)
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    folder.chmod(0o711)
    daemon = PrivateLibvirtd(folder / "libvirtd", namespace=name)
    daemon.start()
    yield inside, daemon, folder
    daemon.start()
    connection = libvirt.open(daemon.uri)
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    connection.close()
    daemon.stop()
    inside.close()
    namespace.remove(name)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def control(host):
    inside, daemon, folder = host
    control = Control()
    await control.start_agent(
        LibvirtDriver("host-1", daemon.uri, folder / "hypervisor", revive=daemon.start, namespace=inside.name)
    )
    yield control
    await control.close()


@pytest.fixture
def order(guest_image):
    content = guest_image.read_bytes()
    image = ImageRef(
        id=str(uuid.uuid4()),
        url=guest_image.as_uri(),
        checksum=hashlib.sha512(content).hexdigest(),
        size_bytes=len(content),
    )
    id, generations = str(uuid.uuid4()), itertools.count(1)

    def wish(power="running", **changes):
        generation = next(generations)
        first = {"image": image, "config_drive": True} if generation == 1 else {"built": True}
        shape = {"ram_mb": 160, "disk_gb": 1, **first, **changes}
        return Domain(server_id=id, name="web", generation=generation, power=power, **shape)

    return id, wish


def nic(number):
    return Nic(
        port_id=str(uuid.UUID(int=number)), mac_address=f"fa:16:3e:00:00:{number:02x}", tap=f"tap{number}", mtu=1400
    )


def seed(nic):
    data = {
        "links": [{"id": "one", "type": "tap", "ethernet_mac_address": nic.mac_address, "mtu": nic.mtu}],
        "networks": [{"id": "n", "link": "one", "type": "ipv4", "ip_address": GUEST, "netmask": "255.255.255.0"}],
        "services": [],
    }
    user_data = base64.b64encode(b"#!/bin/sh\necho eth0 mtu $(cat /sys/class/net/eth0/mtu)\n").decode()
    return Seed(hostname="web", network_data=data, user_data=user_data)


async def until(condition, seconds):
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  what it looks at tells nobody
            await asyncio.sleep(0.2)


async def test_a_guest_has_the_cards_it_should_have(control, host, order):
    inside, daemon, _ = host
    id, wish = order
    first, second = nic(1), nic(2)
    await inside.run(make_bridge, "br1", f"{GATEWAY}")

    # It waits for the network, and starts as soon as its tap is there.
    await control.tell(wish(networks=(first,), seed=seed(first)))
    await control.until(lambda: (it := control.observed.get(id)) and "tap1" in (it.progress or ""), 30)
    await inside.run(make_tap, "tap1", "br1")
    await control.seen(id, "running", 60)
    await until(lambda: ping(inside, GUEST), BOOT_SECONDS)

    async def console_says():
        return "eth0 mtu 1400" in await control.console(id)

    await until(console_says, BOOT_SECONDS)

    # A second card, plugged in while it runs: the guest asks for an address over it.
    await inside.run(make_tap, "tap2")
    plugged = wish(networks=(first, second))
    await control.tell(plugged)
    await control.until(lambda: control.observed[id].generation == plugged.generation, 30)
    assert control.observed[id].taps == ("tap1", "tap2")

    async def guest_speaks():
        return await inside.run(frames_from_guest, "tap2") > 0

    await until(guest_speaks, 30)

    # Somebody takes it out behind our back: it is put in again.
    domain = libvirt.open(daemon.uri).lookupByUUIDString(id)
    domain.detachDevice(cards(domain.XMLDesc())["tap2"])
    before = await inside.run(frames_from_guest, "tap2")

    async def guest_speaks_again():
        return await inside.run(frames_from_guest, "tap2") > before

    await until(guest_speaks_again, 30)

    # Out it goes; the first one carries on.
    unplugged = wish(networks=(first,))
    await control.tell(unplugged)
    await control.until(lambda: control.observed[id].generation == unplugged.generation, 60)
    assert control.observed[id].taps == ("tap1",)
    assert set(cards(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))) == {"tap1"}
    assert await ping(inside, GUEST)

    # One that does not run is changed for its next start.
    stopped = wish("stopped", stop_timeout_seconds=0, networks=())
    await control.tell(stopped)
    await control.until(lambda: control.observed[id].generation == stopped.generation, 60)
    assert control.observed[id].taps == ()
    again = wish(networks=(second,))
    await control.tell(again)
    await control.until(lambda: control.observed[id].generation == again.generation, 60)
    assert (control.observed[id].power, control.observed[id].taps) == ("running", ("tap2",))


async def test_a_tap_that_does_not_come_is_said_and_holds_up_nobody(control, host, order, monkeypatch):
    monkeypatch.setattr(driver_module, "TAP_SECONDS", 1.0)
    id, wish = order
    await control.tell(wish(networks=(nic(9),)))
    word = await control.until(lambda: (it := control.observed.get(id)) and it.fault and it, 30)
    assert f"host host-1 has not wired port {nic(9).port_id} (tap9) within" in word.fault
    await control.tell(wish("absent"))
    await control.until(lambda: id in control.removed, 30)
