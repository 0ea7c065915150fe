"""Files of a libvirt host that none of its guests has a use for: what somebody who died left half made or half removed.

    guests/<id>/{fresh, copy, *.new, rescue}   a part of a guest that is there, made for what it does not do now
    guests/<id>                                on shared storage: a folder that no host holds of those there are
    guests/<anything else>                     whoever put it there
    swtpm/<id>                                 what the TPM of a guest remembers that is not there

A guest's own folder without a guest is no leftover: the agent sees it as a guest that is away. Blocking: for threads.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import structlog

from agents.hypervisor import libvirt_domain
from agents.hypervisor.libvirt_guests import HELD, Guests, is_uuid
from agents.hypervisor.libvirt_snapshot import COPY
from bus import clock
from schema.compute.question import Leftover

log = structlog.get_logger()

YOUNG_SECONDS = 600.0
"""What was changed since then may be in the making."""
BLOCK_BYTES = 512
_HALF_MADE = frozenset({"fresh", "base.fresh", COPY})
_OF_RESCUE = frozenset({"rescue", "base.rescue"})


def find(connection: Any, guests: Guests, hosts: Collection[str]) -> list[Leftover]:
    """`hosts`: all there are, if this one is to look at what they share."""
    return [leftover for _, leftover in _found(connection, guests, hosts)]


def clear(connection: Any, guests: Guests, names: Collection[str], hosts: Collection[str]) -> None:
    """Remove those of these names that still are leftovers. What tells of no server stays for a person."""
    for path, leftover in _found(connection, guests, hosts):
        if leftover.name in names and leftover.server_id:
            log.info("removing what is left over", file=leftover.name, server=leftover.server_id)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _found(connection: Any, guests: Guests, hosts: Collection[str]) -> Iterator[tuple[Path, Leftover]]:
    domains = {domain.UUIDString(): domain for domain in connection.listAllDomains()}
    for path in _entries(guests.folder):
        if guests.holds(path.name) and path.name in domains:
            unused = _HALF_MADE if _rescued(domains[path.name]) else _HALF_MADE | _OF_RESCUE
            parts = [it for it in _entries(path) if it.name in unused or it.suffix == ".new"]
            yield from _old(parts, path.name, held=True)
        elif not is_uuid(path.name) and (hosts or not guests.shared):
            yield from _old([path], "")
        elif guests.shared and hosts and not any((path / f"{HELD}.{host}").exists() for host in {guests.host, *hosts}):
            yield from _old([path], path.name, shared=True)
    for path in _entries(guests.sockets.tpms):
        id = path.name.removesuffix(".new")
        if is_uuid(id) and id not in domains and not guests.holds(id):
            yield from _old([path], id)


def _old(
    paths: Iterable[Path], server_id: str, *, held: bool = False, shared: bool = False
) -> Iterator[tuple[Path, Leftover]]:
    """Those that nobody can be making any more."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            there = [it.lstat() for it in (path, *path.rglob("*"))]
            changed = max(max(it.st_mtime, it.st_ctime) for it in there)
            if changed < clock.now().timestamp() - YOUNG_SECONDS:
                size = sum(it.st_blocks * BLOCK_BYTES for it in there)
                yield path, Leftover(name=str(path), server_id=server_id, size_bytes=size, held=held, shared=shared)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _rescued(domain: Any) -> bool:
    """Also where it does not say (any more): then all of its files stay."""
    try:
        return libvirt_domain.remembered(domain).rescued
    except libvirt.libvirtError:
        return True
