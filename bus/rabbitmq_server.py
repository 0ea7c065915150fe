"""RabbitMQ on this machine: Debian's programs on loopback, with ports, cookie, password and folders of their own.

    <home>/rabbitmq            data, configuration, cookie (HOME of the Erlang node)
    <home>/rabbitmq/ports      amqp, distribution and epmd port, chosen once

For one machine and for tests. A cluster of three nodes is the operator's, and `bus` its URL (docs/deploy.md).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from bus import clock
from bus.postgres import as_user, make_folder, server_user

APT_PACKAGES = ("rabbitmq-server",)
START_SECONDS = 120.0
STOP_SECONDS = 60.0
_PROGRAMS = ("/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/sbin", "/usr/sbin", "/opt/rabbitmq/sbin")
_NODE = "cumulog@localhost"
_POLL_SECONDS = 0.05

_CONFIGURATION = """\
# Written by Cumulog at each start.
listeners.tcp.1 = 127.0.0.1:{port}
default_user = cumulog
default_pass = {password}
default_vhost = /
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
default_user_tags.administrator = true
vm_memory_high_watermark.relative = 0.3
disk_free_limit.absolute = 200MB
log.file.level = warning
"""


class RabbitError(Exception):
    """RabbitMQ cannot run; the text says why and what to do."""


class RabbitServer:
    """One node under `home`."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "rabbitmq"
        self.log = home / "log" / "rabbitmq.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What clients connect to; chosen at the first start and the same ever after."""
        return f"amqp://cumulog:{quote(self._password())}@127.0.0.1:{self._ports()[0]}/"

    @property
    def pid(self) -> int | None:
        """The running node's process id, whoever started it."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid  # whatever it calls itself while one program hands over to the next
        try:
            pid = int((self.folder / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.folder).encode() in command or b"rabbitmq-server" in command else None

    def start(self) -> int:
        """Start it unless it runs, wait until it takes connections (ten seconds or so); its process id."""
        self.begin()
        return self.wait()

    def begin(self) -> None:
        """Start it unless it runs, without waiting."""
        if self.pid is None:
            self._prepare()
            self._spawn()

    def wait(self) -> int:
        """Until it takes connections; its process id. Raises RabbitError."""
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.pid is None:
                raise RabbitError(f"RabbitMQ does not start; the end of {self.log}:\n{_tail(self.log)}")
            if time.monotonic() > deadline:
                raise RabbitError(f"RabbitMQ was not ready after {START_SECONDS:.0f} s; see {self.log}")
            time.sleep(_POLL_SECONDS)
        pid = self.pid
        assert pid is not None
        return pid

    def answers(self) -> bool:
        """Whether it speaks AMQP now."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._ports()[0]), 5) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"
        return False

    def stop(self) -> bool:
        """Stop in good order, the port mapper too. False when it did not run."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while self.pid == pid:
                if time.monotonic() > deadline:
                    raise RabbitError(f"RabbitMQ (process {pid}) did not stop in {STOP_SECONDS:.0f} s; see {self.log}")
                time.sleep(_POLL_SECONDS)
        epmd = shutil.which("epmd")
        if epmd and (self.folder / "ports").exists():
            subprocess.run([epmd, "-kill"], env=self._environment(), capture_output=True, check=False)
        return pid is not None

    def run(self, program: str, *arguments: str) -> str:
        """What a program of RabbitMQ's (`rabbitmqctl`, `rabbitmq-queues`) prints. Raises RabbitError."""
        done = subprocess.run(
            [str(_program(program)), "--node", _NODE, *arguments],
            env=self._environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **as_user(server_user()),
        )
        if done.returncode:
            raise RabbitError(f"{program} {' '.join(arguments[:1])} failed: {(done.stderr or done.stdout).strip()}")
        return str(done.stdout)

    def _prepare(self) -> None:
        user = server_user()
        make_folder(self.folder, user, mode=0o700, ours=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        path = self.folder / "rabbitmq.conf"
        path.write_text(_CONFIGURATION.format(port=self._ports()[0], password=self._password()))
        _close(path, user)
        plugins = self.folder / "enabled_plugins"
        if not plugins.exists():
            plugins.write_text("[].\n")

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(_program("rabbitmq-server")), "-noinput"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **as_user(server_user()),
            )
        (self.folder / "pid").write_text(str(self._process.pid))

    def _environment(self) -> dict[str, str]:
        _, distribution, epmd = self._ports()
        folder = str(self.folder)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": folder,
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_ALLOW_INPUT": "1",  # the Erlang machine replaces the shell that starts it: one process to watch
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _ports(self) -> list[int]:
        """amqp, distribution, epmd; free ones at the first call, the same ever after."""
        path = self.folder / "ports"
        with contextlib.suppress(FileNotFoundError, ValueError):
            found = [int(port) for port in path.read_text().split()]
            if len(found) == 3:
                return found
        with contextlib.ExitStack() as held:
            probes = [held.enter_context(socket.socket()) for _ in range(3)]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            ports = [int(probe.getsockname()[1]) for probe in probes]
        self._keep(path, " ".join(map(str, ports)))
        return ports

    def _password(self) -> str:
        path = self.folder / "password"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text().strip()
        self._keep(path, clock.password(24))
        return path.read_text().strip()

    def _keep(self, path: Path, text: str) -> None:
        make_folder(self.folder, server_user(), mode=0o700, ours=True)
        path.touch(mode=0o600)
        path.write_text(text)


def installed() -> bool:
    """Whether RabbitMQ's programs are on this machine."""
    return any((Path(folder) / "rabbitmq-server").exists() for folder in _PROGRAMS)


def _program(name: str) -> Path:
    for folder in _PROGRAMS:
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise RabbitError("RabbitMQ is not installed; as root on Debian or Ubuntu: apt-get install rabbitmq-server")


def _close(path: Path, user: pwd.struct_passwd | None) -> None:
    path.chmod(0o600)
    if user:
        os.chown(path, user.pw_uid, user.pw_gid)


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
