"""What there is of guests on a libvirt host: domains, and folders without one. Blocking: for threads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import libvirt

from agents.hypervisor import libvirt_domain, moving
from agents.hypervisor.libvirt_guests import Guests, is_uuid
from schema.compute.domain import Observed

_NOTHING = Observed(server_id="")


def look(connection: Any, guests: Guests, ids: Collection[str] | None) -> dict[str, Observed]:
    if ids is None:
        folders = {path.name for path in guests.folder.iterdir() if is_uuid(path.name) and guests.holds(path.name)}
        domains = {domain.UUIDString(): domain for domain in connection.listAllDomains()}
    else:
        folders = {id for id in ids if guests.holds(id)}
        domains = {id: domain for id in ids if (domain := libvirt_domain.lookup(connection, id))}
    found = {id: _without_domain(id, guests) for id in folders}
    for id, domain in domains.items():
        if found.get(id, _NOTHING).awaiting and not domain.isPersistent():
            continue  # it is coming
        try:
            seen = _look_at(guests, id, domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            continue
        if seen:
            found[id] = seen
    return found


def _look_at(guests: Guests, id: str, domain: Any) -> Observed | None:
    """None if it is not Cumulog's."""
    try:
        memory = libvirt_domain.remembered(domain)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise
    power = libvirt_domain.power(domain)
    frozen = power == "running" and guests.frozen.holds(id)
    if frozen:
        power = "paused"
    return Observed(
        server_id=id,
        power=power,
        generation=memory.generation,
        reboots=memory.reboots,
        position=memory.position,
        fenced=frozen or (memory.fenced and power == "paused"),
        interrupted=power in {"stopped", "crashed"} and memory.boot not in {"", guests.boot},
        taps=libvirt_domain.taps(domain),
        remade=memory.remade,
        rescued=memory.rescued,
        snapshot=memory.snapshot,
        resized=memory.resized,
        kept=memory.kept,
    )


def _without_domain(id: str, guests: Guests) -> Observed:
    """What a guest's folder is that libvirt has no domain of."""
    awaiting, sent = (moving.noted(guests.note(id, what)) for what in (moving.AWAITING, moving.SENT))
    generation = awaiting if awaiting is not None else sent or 0
    return Observed(
        server_id=id, generation=generation, awaiting=awaiting is not None, sent=sent is not None and awaiting is None
    )
