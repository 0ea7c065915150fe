"""A host's own Open vSwitch: its database server and its switch, in the host's namespace, with files of their own.

    folder/conf.db, db.sock, db.pid, db.ctl, db.log          ovsdb-server
    folder/switch.pid, switch.ctl, switch.log, *.mgmt        ovs-vswitchd (`br-int.mgmt` takes OpenFlow)

Both outlive the agent: guests talk on while it is away, and the next one finds them by their command lines. One
machine may have several hosts, and what Debian starts as a service is not touched.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from agents.network import daemons
from agents.network.daemons import CannotStart, Daemon
from agents.network.ovs import buffers, database, jsonrpc
from agents.network.ovs.database import Database, pairs
from agents.network.ovs.jsonrpc import Connection, RpcError
from bus import clock

T = TypeVar("T")

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_START_SECONDS = 10.0
_LOOK_SECONDS = 0.01
_NICENESS = -10
"""Of the switch, as its own scripts start it: while it does not run, no frame of anybody passes."""
SETTINGS = {"userspace-tso-enable": "true", "vlan-limit": "2"}
"""Of the switch, read when it starts. Guests hand over large packets without checksums, as they do to a bridge; only
with segmentation offload does it take those."""


class Processes:
    """Every method may be repeated."""

    def __init__(self, namespace: str, folder: Path) -> None:
        """`folder` is this host's own, and stays from one agent to the next."""
        self._namespace = namespace
        self.folder = folder

    async def database(self, changed: Callable[[], None], gone: Callable[[], None]) -> Database:
        """Have the database run, and be connected to it. Raises CannotStart, RpcError."""
        await asyncio.to_thread(self._create)
        await daemons.ensure(self._database)
        return await _patiently(lambda: database.opened(self.folder / "db.sock", changed, gone))

    async def switch(self, store: Database, gone: Callable[[], None]) -> tuple[Connection, bool]:
        """Have the switch run with our settings; its control socket, and whether it was started anew.

        Raises CannotStart, RpcError.
        """
        options = store.root.get("other_config", {})
        if not SETTINGS.items() <= options.items():
            row = {"other_config": pairs({**options, **SETTINGS})}
            await store.transact([{"op": "update", "table": "Open_vSwitch", "where": [], "row": row}])
        anew = await daemons.ensure(self._switch)
        if anew and (pid := daemons.pid_of(self._switch)):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)
        return await _patiently(lambda: jsonrpc.connect(self.folder / "switch.ctl", gone=gone)), anew

    @property
    def running(self) -> bool:
        return daemons.running(self._database) and daemons.running(self._switch)

    @property
    def database_at(self) -> str:
        """As ovs-vsctl wants to hear it."""
        return f"unix:{self.folder}/db.sock"

    @property
    def openflow(self) -> str:
        """Where br-int takes OpenFlow, as ovs-ofctl wants to hear it."""
        return f"unix:{self.folder}/br-int.mgmt"

    async def lengthen_queues(self) -> None:
        """Of the devices the switch reads; after it was given one."""
        if pid := daemons.pid_of(self._switch):
            await asyncio.to_thread(buffers.lengthen, pid)

    async def stop(self) -> None:
        """End both: the host's guests are cut off."""
        await daemons.stop(self._switch)
        await daemons.stop(self._database)

    @property
    def _database(self) -> Daemon:
        return self._daemon("db", "ovsdb-server", f"{self.folder}/conf.db", f"--remote=punix:{self.folder}/db.sock")

    @property
    def _switch(self) -> Daemon:
        return self._daemon("switch", "ovs-vswitchd", f"unix:{self.folder}/db.sock")

    def _daemon(self, name: str, program: str, *arguments: str) -> Daemon:
        pid_file = f"{self.folder}/{name}.pid"
        options = (
            f"--pidfile={pid_file}",
            "--overwrite-pidfile",
            f"--unixctl={self.folder}/{name}.ctl",
            f"--log-file={self.folder}/{name}.log",
            "--verbose=console:off",
            "--verbose=syslog:off",
            "--no-chdir",
            "--detach",
        )
        return Daemon(
            command=(program, *arguments, *options),
            namespace=self._namespace,
            pid_file=pid_file,
            forks=True,
            environment=(("OVS_RUNDIR", str(self.folder)),),
        )

    def _create(self) -> None:
        file = self.folder / "conf.db"
        if file.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        try:
            command = ["ovsdb-tool", "create", str(fresh), str(SCHEMA)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_START_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotStart(
                f"Open vSwitch is not on this host: install Debian's openvswitch-switch ({error})"
            ) from error
        if done.returncode:
            raise CannotStart(f"the switch's database could not be made: {done.stderr.strip()}")
        fresh.replace(file)


async def _patiently(attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """One that has just been started, or adopted while it starts, may need a moment."""
    until = clock.monotonic() + _START_SECONDS
    while True:
        try:
            return await attempt()
        except RpcError:
            if clock.monotonic() > until:
                raise
        await asyncio.sleep(_LOOK_SECONDS)
