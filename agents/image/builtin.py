"""The built-in guest image, `cumulog-guest`: made here from Debian's packages, without root, without installing them.

    Debian packages ─▶ files of the guest ─▶ initramfs ┐
                                     kernel, syslinux ─┴▶ FAT partition ─▶ disk with a boot record ─▶ qcow2

The guest is Debian's cloud kernel with busybox and dropbear, and the scripts in the folder `guest`. What it writes is
kept on a second partition that it makes at its first boot from whatever its disk has left, laid over what the image
brings. It takes DHCP or a config drive, runs `#!` user-data, and has a login on the serial console, an sshd, and QEMU's
guest agent as far as a cloud asks for it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from agents.image.initramfs import Tree

NAME = "cumulog-guest"
MINIMUM_RAM_MB = 128
MINIMUM_DISK_GB = 1

APT_PACKAGES = ("qemu-utils",)
"""What must be installed to build it; the packages below are only downloaded."""

KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    "busybox-static",
    "dropbear-bin",
    "e2fsprogs",
    "logsave",
    "syslinux",
    "syslinux-common",
    "systemd-boot-efi",
    "mtools",
    # Libraries that the programs among these are linked with.
    "libc6",
    "libcom-err2",
    "libcrypt1",
    "libext2fs2",
    "libss2",
    "libblkid1",
    "libuuid1",
    "libgmp10",
    "libtomcrypt1",
    "libtommath1",
    "zlib1g",
)
PROGRAMS = ("usr/sbin/dropbear", "usr/bin/dropbearkey", "sbin/mke2fs")

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "virtio-rng", "virtio_console"),
    *("sd_mod", "sr_mod", "button", "evdev"),
    *("isofs", "overlay", "vfat", "nls_ascii", "nls_cp437", "nls_utf8"),
)
ATA_MODULES = ("ata_piix",)

DISK_BYTES = 128 * 1024 * 1024
PARTITION_START = 1024 * 1024
PARTITION_BYTES = 40 * 1024 * 1024

_COMMAND_LINE = "console=tty0 console=ttyS0,115200 quiet loglevel=4 panic=10 net.ifnames=0 tsc=reliable no_timer_check"
_SYSLINUX_CONFIGURATION = f"""\
SERIAL 0 115200
DEFAULT cumulog
PROMPT 0
LABEL cumulog
  KERNEL /vmlinuz
  INITRD /initrd.gz
  APPEND {_COMMAND_LINE}
"""
_LOADER_ENTRY = f"title cumulog\nlinux /vmlinuz\ninitrd /initrd.gz\noptions {_COMMAND_LINE}\n"
"""For systemd-boot, which UEFI starts where a BIOS starts syslinux."""

Progress = Callable[[str], None]


class BuildFailed(Exception):
    """The image could not be built. The text says at which step and why."""


def build(target: Path, progress: Progress = lambda words: None) -> Path:
    """Build the image at `target` (a qcow2 file), unless it is there and current. Downloads 45 MB; takes 10 s.

    Downloaded packages are kept in a folder `packages` beside it, which may be removed. Raises BuildFailed.
    """
    if current(target):
        return target
    if os.uname().machine != "x86_64":
        raise BuildFailed(f"the built-in image is for x86_64, this machine is {os.uname().machine}")
    for tool, origin in (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("qemu-img", "qemu-utils")):
        if not shutil.which(tool):
            raise BuildFailed(f"{tool} is missing; it is in the Debian package {origin}")
    target.parent.mkdir(parents=True, exist_ok=True)
    packages = target.parent / "packages"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        work = Path(folder)
        root = work / "packages"
        for package in _download(packages, progress):
            _run(["dpkg-deb", "-x", str(package), str(root)], "unpacking")
        progress("making the initramfs")
        kernel = next((root / "boot").glob("vmlinuz-*"))
        initramfs = work / "initrd.gz"
        initramfs.write_bytes(_initramfs(root, kernel.name.removeprefix("vmlinuz-")))
        progress("making the disk")
        raw = work / "disk.raw"
        _disk(raw, root, {"vmlinuz": kernel, "initrd.gz": initramfs}, work)
        made = work / "image.qcow2"
        _run(["qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(made)], "compressing")
        made.replace(target)
        _version(target).write_text(fingerprint())
    progress(f"built {target.name}, {target.stat().st_size / 1e6:.0f} MB")
    return target


def current(target: Path) -> bool:
    """Whether the image is there, made from what is here now."""
    version = _version(target)
    return target.exists() and version.exists() and version.read_text() == fingerprint()


def _version(target: Path) -> Path:
    return target.with_suffix(".version")


def fingerprint() -> str:
    """Of everything here that the image is made with: another one, another image."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _download(folder: Path, progress: Progress) -> list[Path]:
    """The packages as files, from the cache if they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    complete = folder / "complete"
    wanted = " ".join(PACKAGES)
    if not complete.exists() or complete.read_text() != wanted:
        progress("downloading Debian packages: kernel, busybox, dropbear, syslinux")
        try:
            _apt_download(folder, [])
        except BuildFailed:
            # The package lists may be missing or old; read them into a folder of our own, which needs no root.
            progress("refreshing the package lists")
            lists = folder / "lists"
            (lists / "partial").mkdir(parents=True, exist_ok=True)
            own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}/cache"]
            _run(["apt-get", "-q", *own, "update"], "apt-get update")
            _apt_download(folder, own)
        complete.write_text(wanted)
    return sorted(folder.glob("*.deb"))


def _apt_download(folder: Path, options: list[str]) -> None:
    depends = _run(["apt-cache", *options, "depends", KERNEL], "looking for the kernel")
    kernel = re.search(r"Depends: (linux-image-\S+)", depends)
    if not kernel:
        raise BuildFailed(f"apt knows no package {KERNEL}; is this Debian with its package lists in place?")
    for stale in folder.glob("*.deb"):
        stale.unlink()
    # As root apt would hand the download to the user _apt, who may not write here.
    sandbox = ["-o", "APT::Sandbox::User=root"]
    _run(["apt-get", "-q", *sandbox, *options, "download", kernel[1], *PACKAGES], "downloading", folder)


def _initramfs(root: Path, release: str) -> bytes:
    guest = Path(__file__).parent / "guest"
    tree = Tree()
    for folder in (
        "bin",
        "sbin",
        "etc/cumulog",
        "etc/acpi/PWRF",
        "lib/modules",
        "home/cumulog",
        "root",
        "var",
        "usr/bin",
    ):
        tree.folder(f"lower/{folder}")
    for folder in ("proc", "sys", "dev", "run", "tmp", "mnt", "var/log", "var/lib/cumulog", "etc/dropbear"):
        tree.folder(f"lower/{folder}")
    tree.device("dev/console", 5, 1)
    tree.file("init", (guest / "init").read_bytes(), 0o755)

    busybox = root / "bin/busybox"
    tree.file("lower/bin/busybox", busybox.read_bytes(), 0o4755)
    for applet in _run([str(busybox), "--list"], "asking busybox").split():
        if applet not in {"busybox", "sudo"}:
            tree.link(f"lower/{'sbin' if applet in _SYSTEM else 'bin'}/{applet}", "../bin/busybox")
    tree.link("lower/usr/bin/awk", "../../bin/busybox")

    for program in PROGRAMS:
        tree.file(f"lower/{program.removeprefix('usr/')}", (root / program).read_bytes(), 0o755)
        for library, path in _libraries(root, root / program).items():
            tree.file(f"lower/{library}", path.read_bytes(), 0o755)
    tree.file("lower/etc/mke2fs.conf", (root / "etc/mke2fs.conf").read_bytes())

    modules = root / "lib/modules" / release / "kernel"
    order = _module_order(modules, MODULES)
    ata_order = [module for module in _module_order(modules, ATA_MODULES) if module not in order]
    for module in (*order, *ata_order):
        tree.file(f"lower/lib/modules/{module}.ko", _module(modules, module).read_bytes())
    tree.file("lower/lib/modules/order", "\n".join(order).encode())
    tree.file("lower/lib/modules/order.ata", "\n".join(ata_order).encode())

    for script in (
        "boot",
        "network",
        "dhcp",
        "metadata-service",
        "identity",
        "user-data",
        "sshd",
        "agent",
        "hotplug",
        "shutdown",
    ):
        tree.file(f"lower/etc/cumulog/{script}", (guest / script).read_bytes(), 0o755)
    tree.file("lower/etc/cumulog/say", (guest / "say").read_bytes())
    tree.file("lower/bin/json", (guest / "json").read_bytes(), 0o755)
    tree.file("lower/bin/sudo", (guest / "sudo").read_bytes(), 0o755)
    tree.file("lower/etc/inittab", (guest / "inittab").read_bytes())
    for name, text in _ETC.items():
        tree.file(f"lower/etc/{name}", text.encode(), 0o600 if name == "shadow" else 0o644)
    tree.file("lower/etc/acpi/PWRF/00000080", b"#!/bin/sh\nexec poweroff\n", 0o755)
    return tree.packed()


_SYSTEM = {"init", "getty", "reboot", "poweroff", "halt", "acpid", "uevent", "insmod", "ip", "fdisk", "mke2fs"}

_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\ncumulog:x:1000:1000:cumulog:/home/cumulog:/bin/sh\n",
    "shadow": "root::20000:0:99999:7:::\ncumulog:!:20000:0:99999:7:::\n",
    "group": "root:x:0:\ntty:x:5:\ncumulog:x:1000:\n",
    "shells": "/bin/sh\n/bin/ash\n",
    "securetty": "",
    "profile": "export PATH=/usr/bin:/bin:/sbin\nexport PS1='\\u@\\h:\\w\\$ '\n",
    "issue": "\n",
    "os-release": 'ID=cumulog-guest\nNAME="Cumulog guest"\nID_LIKE=debian\n',
    "resolv.conf": "",
}


def _libraries(root: Path, program: Path) -> Mapping[str, Path]:
    """The shared libraries of a program, as the unpacked libc's own loader finds them: path in the guest → file."""
    loader = root / "lib64/ld-linux-x86-64.so.2"
    folders = [root / "lib/x86_64-linux-gnu", root / "usr/lib/x86_64-linux-gnu"]
    listing = _run(
        [str(loader), "--library-path", ":".join(map(str, folders)), "--list", str(program)],
        f"looking for the libraries of {program.name}",
    )
    found = {"lib64/ld-linux-x86-64.so.2": loader.resolve()}
    for line in listing.splitlines():
        match = re.match(r"\s*(\S+) => (/\S+)", line)
        if match:
            if not Path(match[2]).is_relative_to(root):
                raise BuildFailed(f"{program.name} needs {match[1]}, which is in none of the packages")
            found[f"lib/x86_64-linux-gnu/{match[1]}"] = Path(match[2]).resolve()
    return found


def _module_order(modules: Path, wanted: tuple[str, ...]) -> list[str]:
    """The modules and all they depend on, each after what it needs, as insmod wants them."""
    order: list[str] = []

    def add(name: str) -> None:
        depends = re.search(rb"\0depends=([^\0]*)\0", b"\0" + _module(modules, name).read_bytes())
        for other in depends[1].decode().split(",") if depends else []:
            if other and other not in order:
                add(other)
        if name not in order:
            order.append(name)

    for name in wanted:
        add(name)
    return order


def _module(modules: Path, name: str) -> Path:
    try:
        return _modules(modules)[name.replace("-", "_")]
    except KeyError:
        raise BuildFailed(f"the kernel package has no module {name}") from None


@functools.cache
def _modules(modules: Path) -> Mapping[str, Path]:
    return {path.stem.replace("-", "_"): path for path in modules.rglob("*.ko")}


def _disk(raw: Path, root: Path, files: Mapping[str, Path], work: Path) -> None:
    """One bootable FAT partition with `files` on it; written with mtools and syslinux, so nothing is mounted."""
    with raw.open("wb") as disk:
        disk.truncate(DISK_BYTES)
        disk.write((root / "usr/lib/syslinux/mbr/mbr.bin").read_bytes()[:440])
        disk.seek(440)
        disk.write(b"clog\0\0")
        disk.write(_partition(PARTITION_START // 512, PARTITION_BYTES // 512))
        disk.seek(510)
        disk.write(b"\x55\xaa")
    tools = {"PATH": f"{root}/usr/bin:{os.environ['PATH']}", "MTOOLS_SKIP_CHECK": "1", "SOURCE_DATE_EPOCH": "0"}
    (work / "syslinux.cfg").write_text(_SYSLINUX_CONFIGURATION)
    image = f"{raw}@@{PARTITION_START}"
    geometry = ["-T", str(PARTITION_BYTES // 512), "-h", "64", "-s", "32", "-H", str(PARTITION_START // 512)]
    mtools = str(root / "usr/bin/mtools")
    _run(
        [mtools, "-c", "mformat", "-i", image, "-v", "CUMULOG", "-N", "C0DEC10D", *geometry, "::"],
        "formatting",
        environment=tools,
    )
    _run(
        [str(root / "usr/bin/syslinux"), "--install", "--offset", str(PARTITION_START), str(raw)],
        "installing the boot loader",
        environment=tools,
    )
    (work / "entry.conf").write_text(_LOADER_ENTRY)
    folders = [f"::{folder}" for folder in ("EFI", "EFI/BOOT", "loader", "loader/entries")]
    _run([mtools, "-c", "mmd", "-i", image, *folders], "making folders", environment=tools)
    loaders = {
        "syslinux.cfg": work / "syslinux.cfg",
        "loader/entries/cumulog.conf": work / "entry.conf",
        "EFI/BOOT/BOOTX64.EFI": root / "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
    }
    for name, path in {**files, **loaders}.items():
        _run([mtools, "-c", "mcopy", "-i", image, str(path), f"::{name}"], f"copying {name}", environment=tools)


def _partition(start: int, sectors: int) -> bytes:
    """An entry of the partition table: active, FAT16 with LBA; cylinders and heads left to nobody."""
    return struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x0E, b"\xfe\xff\xff", start, sectors)


def _run(
    command: list[str], doing: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip())[-600:]
        raise BuildFailed(f"building the guest image failed while {doing}: {Path(command[0]).name}: {words}")
    return done.stdout
