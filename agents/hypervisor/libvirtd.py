"""A libvirtd of our own, for a machine where nobody else runs one: started without systemd, with its own folders.

    <folder>/etc lib run log cache ──bind mounts, in a mount namespace of its own──▶ /etc/libvirt /var/lib/libvirt …

Guests are where libvirtd is: with `namespace`, in that network namespace, which is how one machine has several hosts.

Whatever the machine has in libvirt's usual places is neither seen nor touched, and several may run side by side. Guests
are processes of their own: they run on while libvirtd is stopped or killed, and it finds them again when it starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agents.hypervisor.host_abilities import cpu_controller
from agents.hypervisor.moving import Sockets
from agents.hypervisor.packages import USER
from agents.network.namespace import FOLDER, Namespace
from bus import clock

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_MOUNTS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "run": "/run/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}


class LibvirtdFailed(Exception):
    """libvirtd does not run. The text says why, and what to do."""


class PrivateLibvirtd:
    """One libvirtd below a folder. Every method may be called at any time, by any process, and again.

    Without `kvm` it does not see /dev/kvm: where KVM does not work, looking at what QEMU can do with it takes minutes.
    """

    def __init__(self, folder: Path, *, kvm: bool = False, namespace: str | None = None) -> None:
        self.folder = folder.absolute()
        self._kvm = kvm
        self._namespace = Namespace(namespace)

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "libvirt-sock"

    @property
    def sockets(self) -> Sockets:
        """Where what comes from other hosts arrives: seen from here, and as libvirtd knows it."""
        tpms = self.folder / "lib" / "swtpm"
        return Sockets(self.folder / "run" / "p", Path(_MOUNTS["run"]) / "p", self.socket, tpms)

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def pid(self) -> int | None:
        """Of the running libvirtd; None if there is none."""
        try:
            pid = int((self.folder / "libvirtd.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if b"libvirtd" in command[0] and str(self.folder).encode() in b" ".join(command) else None

    def start(self) -> str:
        """Start it unless it runs, wait until it answers; the URI to connect to. Raises LibvirtdFailed."""
        if os.geteuid() != 0:
            raise LibvirtdFailed("a libvirtd of our own needs root")
        if len(str(self.socket)) > 100:
            raise LibvirtdFailed(f"{self.socket} is too long for a socket's path; choose a home with a shorter one")
        for program in ("libvirtd", "qemu-system-x86_64", "unshare", "nsenter"):
            if not shutil.which(program):
                raise LibvirtdFailed(f"{program} is not installed")
        for name, place in _MOUNTS.items():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            Path(place).mkdir(parents=True, exist_ok=True)
        with self._lock():
            if self.pid is not None and not self._inside(self.pid):
                self._end(self.pid)  # of a host that has been made anew, or was none before
            if self.pid is None:
                self._configure()
                self._spawn()
            self._wait()
        return self.uri

    def stop(self) -> None:
        """Stop libvirtd. Guests run on."""
        with self._lock():
            pid = self.pid
            if pid is not None:
                self._end(pid)

    def _end(self, pid: int) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if _until(lambda: self.pid is None, STOP_SECONDS):
                return
        raise LibvirtdFailed(f"libvirtd, process {pid}, cannot be stopped")

    def _inside(self, pid: int) -> bool:
        """Whether that process is in the namespace it should be in."""
        name = self._namespace.name
        mine = (FOLDER / name if name else Path("/proc/self/ns/net")).stat()
        its = Path(f"/proc/{pid}/ns/net").stat()
        return (mine.st_dev, mine.st_ino) == (its.st_dev, its.st_ino)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _configure(self) -> None:
        known = self.folder / "host_uuid"
        if not known.exists():
            known.write_text(clock.uuid4())
        etc = self.folder / "etc"
        (etc / "libvirtd.conf").write_text(
            f'host_uuid = "{known.read_text().strip()}"\n'
            'auth_unix_rw = "none"\n'
            'unix_sock_rw_perms = "0700"\n'
            'unix_sock_ro_perms = "0700"\n'
            f'log_outputs = "3:file:{self.folder}/log/libvirtd.log"\n'
            "max_clients = 100\n"
        )
        user, group = _guest_user(self.folder)
        controllers = '"cpu"' if cpu_controller() else ""
        (etc / "qemu.conf").write_text(
            f'user = "{user}"\n'
            f'group = "{group}"\n'
            "dynamic_ownership = 1\n"
            "remember_owner = 0\n"
            'security_driver = "none"\n'
            "namespaces = []\n"
            f"cgroup_controllers = [{controllers}]\n"
            'swtpm_user = "root"\n'
            'swtpm_group = "root"\n'
            # Guests write their consoles themselves: no virtlogd whose end would end them. The agent bounds the files.
            'stdio_handler = "file"\n'
        )

    def _spawn(self) -> None:
        mounts = [f"mount --bind {shlex.quote(str(self.folder / name))} {place}" for name, place in _MOUNTS.items()]
        daemon = [
            "libvirtd",
            "--daemon",
            "--config",
            "/etc/libvirt/libvirtd.conf",
            "--pid-file",
            str(self.folder / "libvirtd.pid"),
        ]
        if not self._kvm and Path("/dev/kvm").exists():
            # Not to be written even by root, or libvirt would believe in it and ask QEMU anew each time.
            nothing = self.folder / "no-kvm"
            nothing.touch()
            mounts.append(f"mount --bind {shlex.quote(str(nothing))} /dev/kvm")
            mounts.append("mount -o remount,bind,ro /dev/kvm")
        cgroups = Path("/sys/fs/cgroup")
        if self._namespace.name:
            # /sys/class/net shows the namespace it was mounted in, and libvirt reads there.
            mounts.insert(0, "mount -t sysfs -o nosuid,nodev,noexec sysfs /sys")
            if cgroups.is_mount():
                aside = self.folder / "cgroup"
                aside.mkdir(exist_ok=True)
                mounts.insert(0, f"mount --rbind {cgroups} {shlex.quote(str(aside))}")
                mounts.insert(2, f"mount --rbind {shlex.quote(str(aside))} {cgroups}")
        if (cgroups / "unified").is_mount():
            # Where both versions are mounted libvirt asks the second, which holds no controller, and gives up.
            mounts.append(f"umount {cgroups}/unified")
        script = " && ".join([*mounts, f"exec {shlex.join(daemon)}"])
        said = self.folder / "log" / "libvirtd.out"
        with said.open("wb") as output:
            code = subprocess.run(
                [*self._namespace.command, "unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
                timeout=START_SECONDS,
            ).returncode
        if code:
            words = _tail(said) or _tail(self.folder / "log" / "libvirtd.log")
            raise LibvirtdFailed(f"libvirtd does not start:\n{words}")

    def _wait(self) -> None:
        """Until it takes connections."""

        def answers() -> bool:
            with socket.socket(socket.AF_UNIX) as trial:
                trial.settimeout(1)
                try:
                    trial.connect(str(self.socket))
                except OSError:
                    return False
            return True

        if not _until(answers, START_SECONDS):
            words = _tail(self.folder / "log" / "libvirtd.log")
            raise LibvirtdFailed(f"libvirtd did not answer within {START_SECONDS:.0f} s:\n{words}")


def _guest_user(folder: Path) -> tuple[str, str]:
    """Who guests run as: their own user if it can get to their files, else root."""
    reachable = all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return "root", "root"
    return (USER, "kvm") if reachable else ("root", "root")


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-1500:]
    except OSError:
        return ""
