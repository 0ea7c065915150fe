"""Where the domains of simulated hosts outlive their agents: one file for all hosts of a process.

    changes of any host ─▶ together, now and then, one line each ─▶ the end of the file ─▶ grown too long: written anew

A process that is killed loses what the last moment changed, and a line that was cut off; hosts say what they hold.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from schema.compute.domain import Observed

SAVE_SECONDS = 0.2
"""Changes within this time are written together."""
GROWTH = 2
SLACK_BYTES = 1024 * 1024
"""The file is written anew when it is so many times as long as what it holds, and so many bytes longer."""
FILE = "domains"


class Simulated(msgspec.Struct, omit_defaults=True):
    """One pretended domain."""

    seen: Observed
    name: str = ""
    console: str = ""
    vcpus: int = 1
    ram_mb: int = 0
    agent: bool = False
    """Its image says that it has a guest agent."""
    macs: dict[str, str] = {}
    """Tap → MAC address."""
    disk: str = ""
    """Tells its root disk from any other."""
    disk_before: str = ""
    """The one that was kept."""


class _Line(msgspec.Struct, array_like=True):
    host: str
    id: str
    domain: Simulated | None
    """None: it is gone."""


Domains = dict[str, Simulated]

_encoder = msgspec.json.Encoder()
_line: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)


class SimulatedStore:
    """The file in a folder. Hosts that are not played now stay in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._hosts: dict[str, Domains] | None = None
        self._changed: dict[tuple[str, str], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._length = self._whole_length = 0

    def domains(self, host: str) -> Domains:
        """Those of a host, as they were kept; whoever changes them says so."""
        if self._hosts is None:
            self._hosts = self._read()
            self._write_anew()
        return self._hosts.setdefault(host, {})

    def changed(self, host: str, server_id: str) -> None:
        """It is to be written down, soon."""
        self._changed[host, server_id] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAVE_SECONDS, self.save)

    def save(self) -> None:
        """Now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._changed:
            return
        if self._length > self._whole_length * GROWTH + SLACK_BYTES:
            self._write_anew()
        else:
            lines = [_Line(host, id, self.domains(host).get(id)) for host, id in self._changed]
            added = b"\n" + _encoder.encode_lines(lines)  # on a line of its own, whatever was cut off before
            with self._path.open("ab") as file:
                file.write(added)
            self._length += len(added)
        self._changed.clear()

    def _write_anew(self) -> None:
        hosts = self._hosts or {}
        lines = [_Line(host, id, domain) for host, domains in hosts.items() for id, domain in domains.items()]
        whole = _encoder.encode_lines(lines)
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".new")
        aside.write_bytes(whole)
        aside.replace(self._path)
        self._length = self._whole_length = len(whole)

    def _read(self) -> dict[str, Domains]:
        hosts: dict[str, Domains] = {}
        try:
            written = self._path.read_bytes()
        except FileNotFoundError:
            return hosts
        for text in written.splitlines():
            try:
                line = _line.decode(text)
            except msgspec.DecodeError:
                continue  # empty, or cut off
            domains = hosts.setdefault(line.host, {})
            if line.domain is None:
                domains.pop(line.id, None)
            else:
                domains[line.id] = line.domain
        return hosts
