"""A real guest behind a tap that an Open vSwitch reads beside it: whole files cross hosts, both ways."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from agents.network.namespace import enter
from schema.compute.domain import Seed
from schema.network.wiring import InstanceData
from tests.guest import guest_image
from tests.network.dhcp_place import apart, until
from tests.network.hosts import Guest, peer
from tests.network.test_whole_host import CLOSED, OPEN, guarded, served
from tests.network.whole_host import WholeHost, whole_hosts

pytestmark = [pytest.mark.live, pytest.mark.slow]

BOOT_SECONDS = 150
MEGABYTES = 8
SCRIPT = """#!/bin/sh
nc 10.0.0.2 9000 < /dev/null > /tmp/file
echo came $(md5sum < /tmp/file)
nc 10.0.0.2 9001 < /tmp/file
echo sent
"""


def boot(host: WholeHost, folder: Path, tap: str, mac: str) -> None:
    disk = str(folder / "disk")
    base = str(guest_image())
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", disk, "1G"], check=True)
    subprocess.run(
        [
            *("nsenter", f"--net=/run/netns/{host.host.name}", "--"),
            *("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "160", "-display", "none", "-daemonize"),
            *("-drive", f"file={disk},if=virtio", "-device", "virtio-rng-pci", "-serial", f"file:{folder}/console"),
            *("-netdev", f"tap,id=n,ifname={tap},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=n,mac={mac}"),
        ],
        check=True,
        cwd=folder,
    )


@apart
def listening(guest: Guest, number: int) -> socket.socket:
    with enter(guest.name):
        made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((guest.ip, number))
    made.listen()
    made.settimeout(BOOT_SECONDS)
    return made


def give(server: socket.socket, words: bytes) -> None:
    with server, server.accept()[0] as to:
        to.sendall(words)


def take(server: socket.socket) -> bytes:
    found = bytearray()
    with server, server.accept()[0] as of:
        while words := of.recv(1 << 16):
            found += words
    return bytes(found)


async def test_a_real_guest_gets_and_sends_whole_files_across_hosts(tmp_path):
    async with whole_hosts(tmp_path / "home", driver="ovs") as (a, b):
        net = served()
        real, played = guarded(net, 1, hostname="web"), guarded(net, 2)
        a.control.seeds[real.id] = InstanceData(
            port_id=real.id,
            server_id=real.device_id,
            seed=Seed(name="web", hostname="web", user_data=base64.b64encode(SCRIPT.encode()).decode()),
        )
        other = b.host.guest(played)
        a.has(replace(net, endpoints=(b.host.endpoint_ip,)), OPEN, CLOSED, real, peer(played, b.host))
        b.has(replace(net, endpoints=(a.host.endpoint_ip,)), OPEN, CLOSED, played, peer(real, a.host))
        await a.control.up(real.id)
        await b.control.up(played.id)
        words = os.urandom(MEGABYTES << 20)
        outgoing = asyncio.create_task(asyncio.to_thread(give, listening(other, 9000), words))
        incoming = asyncio.create_task(asyncio.to_thread(take, listening(other, 9001)))
        await asyncio.to_thread(boot, a, tmp_path, real.tap, real.mac_address)
        console = tmp_path / "console"

        def ready() -> str:
            text = console.read_text(errors="replace") if console.exists() else ""
            return text if "user-data finished" in text else ""

        text = await until(ready, BOOT_SECONDS)
        assert "eth0 has 10.0.0.1/16 by DHCP" in text
        assert f"came {hashlib.md5(words).hexdigest()}" in text  # noqa: S324  no secret: what busybox has
        await outgoing
        assert await incoming == words
