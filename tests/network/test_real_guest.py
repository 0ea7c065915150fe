"""The built-in image, booted behind a tap: it finds its address, itself and its keys on its host alone."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agents.network.dhcp import Dhcp
from agents.network.linux_bridge import LinuxBridge
from agents.network.metadata import Metadata
from schema.compute.domain import Seed
from tests.guest import guest_image
from tests.network.dhcp_place import Place, network, port, subnet, until, world

pytestmark = [pytest.mark.live, pytest.mark.slow]

BOOT_SECONDS = 120
SCRIPT = b"""#!/bin/sh
echo mtu $(cat /sys/class/net/eth0/mtu)
# The kernel makes this address by itself: it solicits, hears an advertisement, and looks for a duplicate.
for wait in $(seq 30); do ip -6 addr show dev eth0 scope global | grep -q inet6 && break; sleep 1; done
ip -6 addr show dev eth0 scope global
nslookup db.example.org
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place()
    yield made
    made.remove(tmp_path)


def boot(place: Place, folder: Path, tap: str, mac: str) -> None:
    disk = str(folder / "disk")
    base = str(guest_image())
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", disk, "1G"], check=True)
    subprocess.run(
        [
            *("nsenter", f"--net=/run/netns/{place.host}", "--"),
            *("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "160", "-display", "none", "-daemonize"),
            *("-drive", f"file={disk},if=virtio", "-device", "virtio-rng-pci", "-serial", f"file:{folder}/console"),
            *("-netdev", f"tap,id=n,ifname={tap},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=n,mac={mac}"),
        ],
        check=True,
        cwd=folder,
    )


async def test_a_guest_finds_all_it_needs_on_its_host(place, tmp_path):
    six = subnet("s6", "2001:db8:1::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    net = network("n1", subnet("s4", "10.1.0.0/24"), six, dns_domain="example.org.")
    key = tmp_path / "key"
    await asyncio.to_thread(subprocess.run, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    mine = port("p1", net, 10, hostname="web", device_id="server-1")
    other = port("p2", net, 11, hostname="db")
    seed = Seed(
        name="web",
        hostname="web",
        user_data=base64.b64encode(SCRIPT).decode(),
        public_keys={"k": key.with_suffix(".pub").read_text().strip()},
    )
    metadata = Metadata()

    def ask(port_id: str, router_id: str = "") -> None:
        asyncio.get_running_loop().call_soon(metadata.instance, port_id, "server-1", seed)

    metadata.start(ask)
    switch = LinuxBridge(place.inside)
    dhcp = Dhcp(place.inside, place.tag, switch, tmp_path / "dhcp", metadata=metadata)
    at = world(net, mine, msgspec.structs.replace(other, addresses=other.addresses[:1]))
    try:
        await metadata.apply(at, None)
        assert await switch.apply(at, None) == {}
        assert await dhcp.apply(at, None) == {}
        await asyncio.to_thread(boot, place, tmp_path, "tapp1", mine.mac_address)
        console = tmp_path / "console"

        def ready() -> str:
            text = console.read_text(errors="replace") if console.exists() else ""
            return text if "login:" in text else ""

        text = await until(ready, BOOT_SECONDS)
        assert "eth0 has 10.1.0.10/24 by DHCP" in text
        assert "metadata from 169.254.169.254" in text
        assert "hostname web" in text
        assert "mtu 1400" in text
        assert "2001:db8:1:0:f816:3eff:fe00:10a" in text
        assert "10.1.0.11" in text
        assert "user-data finished, exit 0" in text
        peer = place.guest(port("p3", net, 12))
        peer.give("10.1.0.12/24")
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes")

        def logged_in() -> bool:
            command = ("ssh", "-F", os.devnull, "-i", str(key), *options, "cumulog@10.1.0.10", "hostname")
            return peer.run(*command, seconds=40).stdout.strip() == "web"

        await until(logged_in, 40)
    finally:
        await dhcp.close()
        await metadata.close()
        await switch.close()
