"""What a host should hold of a server. Pure: how it is told so is telling.py's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from handlers.compute.move import second_host
from handlers.compute.moving import moving
from schema.compute.domain import Domain, ImageRef, Nic, Passage, Reboots, Seed, Snapshot
from schema.compute.move import Move, Phase
from schema.compute.server_parts import ServerImage
from schema.compute.server_state import Server
from schema.compute.task import WAYS, Power, PowerState, Task, VmState
from schema.network.wiring import tap_name

_POWER_BY_VM_STATE: dict[VmState, Power] = {
    VmState.BUILDING: "running",
    VmState.ACTIVE: "running",
    VmState.STOPPED: "stopped",
    VmState.PAUSED: "paused",
    VmState.SUSPENDED: "suspended",
    VmState.RESCUED: "running",
    VmState.SHELVED: "stopped",
    VmState.SHELVED_OFFLOADED: "absent",
    VmState.SOFT_DELETED: "stopped",
    VmState.DELETED: "absent",
}
_POWER_AS_IT_IS: dict[PowerState, Power] = {
    PowerState.RUNNING: "running",
    PowerState.PAUSED: "paused",
    PowerState.SUSPENDED: "suspended",
}


def power(server: Server) -> Power:
    """What its guest should be doing. A server in ERROR is left as it was found."""
    if moving(server) and server.move is not None and (guest := _power_on_the_way(server.move)):
        return guest
    if server.task is Task.REBUILD_DISK:
        return "stopped" if server.vm_state is VmState.STOPPED else "running"
    if server.task is not None and (guest := WAYS[server.task].guest):
        return guest
    if server.vm_state in {VmState.ERROR, VmState.RESIZED}:
        return _POWER_AS_IT_IS.get(server.power_state, "stopped")
    return _POWER_BY_VM_STATE[server.vm_state]


def _power_on_the_way(move: Move) -> Power | None:
    match move.phase:
        case Phase.ARRIVING:
            return "running" if move.running else "stopped"
        case Phase.RETURNING:
            return "stopped" if move.in_place else "absent"
        case Phase.LEAVING if move.cold:
            return "stopped"
    return None


def domain(
    server: Server,
    image: ImageRef | None = None,
    seed: Seed | None = None,
    rescue: ImageRef | None = None,
    snapshot: Snapshot | None = None,
) -> Domain:
    """What its host should hold of a server.

    Image and seed are for one that is to be built, `rescue` for one that is to boot from another disk; without it, one
    that is rescued is only said to stay so.
    """
    wanted = image_wanted(server)
    properties = wanted.properties if wanted else {}
    flavor, resizes = server.flavor, server.resizes
    move = server.move if server.move and server.move.cold and server.move.departed else None
    returning = move is not None and move.phase is Phase.RETURNING
    if move is not None and move.in_place and returning:
        flavor, resizes = move.old_flavor or flavor, resizes - 1
    return Domain(
        server_id=server.id,
        name=instance_name(server),
        generation=server.generation,
        power=power(server),
        vcpus=flavor.vcpus,
        ram_mb=flavor.ram_mb,
        disk_gb=flavor.disk_gb,
        ephemeral_gb=flavor.ephemeral_gb,
        swap_mb=flavor.swap_mb,
        image=image,
        built=server.built,
        config_drive=server.order.config_drive,
        seed=seed,
        reboots=Reboots(soft=server.soft_reboots, hard=server.hard_reboots),
        properties=_heard(server, properties) | _hardware(flavor.extra_specs),
        topology=server.topology,
        remade=server.rebuilds if server.task is Task.REBUILD_DISK else server.rebuilt,
        resized=resizes,
        kept=move is not None and not returning,
        rescue=rescue or _staying_rescued(server),
        snapshot=snapshot,
        keep_ephemeral=server.rebuild is not None and server.rebuild.keep_ephemeral,
        networks=tuple(
            Nic(port_id=nic.port_id, mac_address=nic.mac_address, tap=tap_name(nic.port_id), mtu=nic.mtu)
            for nic in server.nics
            if nic.standing != "unplugging"
        ),
    )


def elsewhere(
    server: Server, seed: Seed | None = None, disks: Mapping[str, int] | None = None
) -> tuple[str, Domain] | None:
    """A second host that is to hold something of a server on its way, and what.

    `seed`, `disks`: for one that is awaited there; the latter by name, in bytes.
    """
    host, move = second_host(server), server.move
    if not host or move is None:
        return None
    if move.live:
        return host, replace(domain(server, seed=seed), awaited=dict(disks or {}), topology=move.target_topology)
    before = replace(server, flavor=move.old_flavor or server.flavor, topology=move.source_topology, move=None)
    return host, replace(domain(before), power="stopped")


def _staying_rescued(server: Server) -> ImageRef | None:
    """For a host that has the copy already, whatever became of the image."""
    if server.rescue_image is None or server.task is Task.UNRESCUING:
        return None
    return ImageRef(id=server.rescue_image.id, url="")


def _heard(server: Server, properties: Mapping[str, str]) -> dict[str, str]:
    """What its image says; as what disk a rescue image stands beside its own is for that image to say."""
    own = {key: value for key, value in properties.items() if key not in _RESCUE_DISK}
    if server.rescue_image is None or server.task is Task.UNRESCUING:
        return own
    return own | {key: value for key, value in server.rescue_image.properties.items() if key in _RESCUE_DISK}


_RESCUE_DISK = frozenset({"hw_rescue_bus", "hw_rescue_device"})


def image_wanted(server: Server) -> ServerImage | None:
    """The image its root disk is of, or is to be made of now."""
    return server.rebuild.image if server.rebuild else server.image


def absent(server: Server) -> Domain:
    """That a host should hold nothing of it (any more)."""
    return Domain(server_id=server.id, name=instance_name(server), generation=server.generation, power="absent")


def instance_name(server: Server) -> str:
    """The guest's name on its host."""
    return f"instance-{server.id.partition('-')[0]}"


def on_the_way(server: Server, move: Move, way: Passage | None) -> Domain:
    """What its host should hold of it. A way without a secret is one that is told later."""
    if move.cold and move.phase is Phase.ARRIVING and not move.in_place:
        return replace(domain(server), copy_from=way or Passage(host=move.source_host))
    if move.live and move.phase is Phase.LEAVING and not move.cancelled:
        way = way or Passage(host=move.target_host)
        return replace(domain(server), send_to=way, topology=move.target_topology)
    return domain(server)


def _hardware(extra_specs: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in extra_specs.items() if key.startswith(_HEARD)}


_HEARD = ("hw:", "hw_rng:", "hw_video:", "hide_hypervisor_id", "os:", "quota:")
"""Extra specs that a hypervisor heeds."""
