"""The built-in image: what it is made of, and that it boots and finds its way by network."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from agents.image import builtin
from agents.image.initramfs import Tree
from tests import guest

BOOT_SECONDS = 120
GUEST_SCRIPTS = Path(builtin.__file__).parent / "guest"


def test_an_initramfs_is_the_same_for_the_same_files_and_cpio_reads_it(tmp_path):
    def made(order):
        tree = Tree()
        for path in order:
            tree.file(path, path.encode(), 0o755)
        tree.link("bin/sh", "busybox")
        return tree.packed()

    packed = made(["etc/a", "bin/busybox"])
    assert packed == made(["bin/busybox", "etc/a"])
    content = gzip.decompress(packed)
    names = [line for line in (b"bin\0", b"bin/busybox\0", b"bin/sh\0", b"etc\0", b"etc/a\0") if line in content]
    assert len(names) == 5
    assert content.index(b"bin\0") < content.index(b"bin/busybox\0")


def test_the_guest_reads_json():
    metadata = {"uuid": "1", "keys": {"a b": 'ssh "x"\\ y'}, "list": [1, {"deep": None}, True], "empty": {}}
    done = subprocess.run(
        ["busybox", "awk", "-f", str(GUEST_SCRIPTS / "json")],
        input=json.dumps(metadata, indent=1),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "uuid\t1",
        'keys.a b\tssh "x"\\ y',
        "list.0\t1",
        "list.1.deep\tnull",
        "list.2\ttrue",
    ]


@pytest.mark.live
@pytest.mark.slow
def test_the_image_is_small_and_boots_by_itself(tmp_path):
    image = guest.guest_image()
    assert image.stat().st_size < 40 * 1024 * 1024
    assert image.read_bytes()[:4] == b"QFI\xfb"
    assert guest.guest_image() == image


@pytest.fixture
def network():
    """A network namespace with a tap, a DHCP server and a metadata service; nothing in it leads out."""
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    name = f"cumulog-test-{os.getpid()}"
    inside = ["ip", "netns", "exec", name]
    started = []

    def run(*command):
        subprocess.run(command, check=True, capture_output=True)

    def start(*command):
        log = (folder / "started.log").open("ab")
        with log:
            started.append(subprocess.Popen([*inside, *command], cwd=folder, stdout=log, stderr=log))

    run("ip", "netns", "add", name)
    try:
        for command in (
            "link set lo up",
            "tuntap add tap0 mode tap",
            "link set tap0 up",
            "addr add 10.9.0.1/24 dev tap0",
            "addr add 169.254.169.254/32 dev lo",
        ):
            run(*inside, "ip", *command.split())
        (folder / "udhcpd.conf").write_text(
            "start 10.9.0.10\nend 10.9.0.20\ninterface tap0\nlease_file leases\npidfile udhcpd.pid\n"
            "option subnet 255.255.255.0\noption router 10.9.0.1\noption mtu 1400\n"
            "option staticroutes 169.254.169.254/32 10.9.0.1, 0.0.0.0/0 10.9.0.1\n"
        )
        (folder / "leases").touch()
        start("busybox", "udhcpd", "-f", "udhcpd.conf")
        start(sys.executable, "-m", "http.server", "--bind", "169.254.169.254", "80", "--directory", str(folder))
        yield folder, start, inside
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
        run("ip", "netns", "del", name)
        shutil.rmtree(folder)


@pytest.mark.live
@pytest.mark.slow
def test_a_guest_without_config_drive_asks_the_network(network):
    folder, start, inside = network
    latest = folder / "openstack" / "latest"
    latest.mkdir(parents=True)
    metadata = {"uuid": "u-1", "hostname": "by-net", "public_keys": {"k": "ssh-ed25519 AAAA me"}}
    (latest / "meta_data.json").write_text(json.dumps(metadata))
    (latest / "user_data").write_text("#!/bin/sh\necho mtu $(cat /sys/class/net/eth0/mtu)\nip route\nexit 3\n")
    overlay = str(folder / "disk")
    base = str(guest.guest_image())
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay, "1G"], check=True)
    console = folder / "console"
    start(
        *("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "160", "-display", "none"),
        *("-drive", f"file={overlay},if=virtio", "-device", "virtio-rng-pci", "-serial", f"file:{console}"),
        *("-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n"),
    )
    text = _says(console, "login:")
    assert "metadata from 169.254.169.254" in text
    assert "1 public key(s) may log in" in text
    assert "hostname by-net" in text
    assert "mtu 1400" in text
    assert "169.254.169.254 via 10.9.0.1 dev eth0" in text
    assert "user-data finished, exit 3" in text

    address = text.partition("addresses ")[2].partition("/")[0]
    greeting = f"import socket; print(socket.create_connection(({address!r}, 22), 20).recv(100))"
    said = subprocess.run([*inside, sys.executable, "-c", greeting], capture_output=True, text=True, check=True)
    assert "SSH-2.0-dropbear" in said.stdout


def _says(console, words):
    """Until they stand there; a file offers nothing better than to look."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        text = console.read_text(errors="replace") if console.exists() else ""
        if words in text:
            return text
        time.sleep(0.2)
    raise AssertionError(f"{words!r} is not on the console after {BOOT_SECONDS} s:\n{text}")
