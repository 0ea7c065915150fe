"""Whether KVM works here: found out by booting with it, since a /dev/kvm that opens proves nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

import structlog

log = structlog.get_logger()

BOOT_SECTOR_SECONDS = 4.0
"""A KVM that needs longer for sixteen bytes of code is emulated itself, and slower than QEMU alone."""
KERNEL_SECONDS = 30.0
_DEVICE = Path("/dev/kvm")

# mov dx, 0x3f8; mov al, 'K'; out dx, al; mov dx, 0xf4; mov al, 1; out dx, al; hlt; jmp $-1
_BOOT_SECTOR = bytes.fromhex("baf803b04beebaf400b001eef4ebfd").ljust(510, b"\0") + b"\x55\xaa"


def kvm_works(verdicts: Path, image: Path | None = None) -> bool:
    """Whether guests run with KVM on this machine. The verdict is kept in the folder until kernel or QEMU change.

    A boot sector that writes one letter must run, and run fast; then, if there is an image to try (a qcow2 whose kernel
    speaks on the serial console), a kernel must.
    """
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return False
    known = verdicts / f"kvm-{_machine()}{'-kernel' if image else ''}"
    if known.exists():
        return known.read_text() == "works"
    works = _boot_sector_runs() and (image is None or _kernel_speaks(image))
    log.info("KVM was tried", works=works)
    verdicts.mkdir(parents=True, exist_ok=True)
    known.write_text("works" if works else "fails")
    return works


def _boot_sector_runs() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        sector = Path(folder) / "sector.img"
        sector.write_bytes(_BOOT_SECTOR)
        serial = Path(folder) / "serial"
        devices = ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        process = _qemu(sector, "raw", serial, devices)
        try:
            process.wait(BOOT_SECTOR_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)
        return serial.exists() and b"K" in serial.read_bytes()


def _kernel_speaks(image: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        serial = Path(folder) / "serial"
        process = _qemu(image, "qcow2", serial, ["-snapshot"])
        deadline = time.monotonic() + KERNEL_SECONDS
        try:
            while time.monotonic() < deadline and process.poll() is None:
                if serial.exists() and b"login:" in serial.read_bytes():
                    return True
                time.sleep(0.1)
        finally:
            _end(process)
    return False


def _qemu(disk: Path, disk_format: str, serial: Path, more: list[str]) -> subprocess.Popen[bytes]:
    machine = ["-machine", "pc,accel=kvm", "-m", "256", "-display", "none", "-nic", "none"]
    devices = ["-serial", f"file:{serial}", "-drive", f"file={disk},format={disk_format},if=virtio"]
    return subprocess.Popen(
        ["qemu-system-x86_64", *machine, *devices, *more],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()


def _machine() -> str:
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=False).stdout
    return hashlib.sha256(version + os.uname().release.encode()).hexdigest()[:12]
