"""The actions of many steps, one row each: what must be so before, what is wished, and where it leads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec.structs import replace

from bus.cloud import Cloud
from bus.execute import Wish
from handlers.compute.cards import CardWanted, Hand, dealt
from handlers.compute.departure import begin, departure
from handlers.compute.moving import cancelling, confirming, reverting
from handlers.compute.quota import counting
from handlers.compute.server import SERVERS
from handlers.compute.snapshot_image import making
from handlers.network.addressing import Picks, with_addresses
from schema.compute.host import HOST, Host
from schema.compute.migration import MigrationType
from schema.compute.quota import DEFAULTS
from schema.compute.server import SERVER
from schema.compute.server_command import (
    Action,
    AttachNic,
    BackUpServer,
    CancelMove,
    ConfirmResize,
    CreateServer,
    DeleteServer,
    DetachNic,
    EvacuateServer,
    HardRebootServer,
    LiveMigrateServer,
    MigrateServer,
    OffloadServer,
    PauseServer,
    RebootServer,
    RebuildServer,
    RescueServer,
    ResizeServer,
    RestoreServer,
    ResumeServer,
    RevertResize,
    ShelveServer,
    SnapshotServer,
    StartServer,
    StopServer,
    SuspendServer,
    UnpauseServer,
    UnrescueServer,
    UnshelveServer,
)
from schema.compute.server_parts import Order, Rebuild, ServerImage
from schema.compute.server_state import Server
from schema.compute.shelf import NEVER
from schema.compute.task import VmState
from tests.saga.stage import Stage
from tests.simulation.machine import SMALL
from tests.simulation.process import IMAGE
from tests.simulation.world import PROJECT

ID = "00000000-0000-4000-8000-000000000001"
COPY_ID = "00000000-0000-4000-8000-000000000002"
LARGE = replace(SMALL, id="2", name="large", vcpus=2, ram_mb=768, disk_gb=2)

Do = Callable[[Cloud], Awaitable[Any]]


async def create(cloud: Cloud) -> None:
    """With a card of a port that is made for it."""
    order = Order(user_id="ada", build_seconds=60)

    if SERVER.stream(ID) in await cloud.log.load([SERVER.stream(ID)]):
        return  # it was granted, and who asked did not hear of it

    async def attempt(picks: Picks) -> None:
        its = await _card(cloud, picks, "")
        command = CreateServer(name="web", project_id=PROJECT, order=order, flavor=SMALL, nics=its.nics)
        await cloud.executor.execute(Wish(SERVERS, ID, command), counting(ID, PROJECT, DEFAULTS), *its.wishes)

    await with_addresses(cloud, attempt)


async def attach(cloud: Cloud) -> None:
    server: Server = await _now(cloud)
    if len(server.nics) > 1:
        return

    async def attempt(picks: Picks) -> None:
        its = await _card(cloud, picks, server.host or "")
        await cloud.executor.execute(Wish(SERVERS, ID, AttachNic(nic=its.nics[0])), *its.wishes)

    await with_addresses(cloud, attempt)


async def detach(cloud: Cloud) -> None:
    server: Server = await _now(cloud)
    for nic in server.nics:
        await cloud.executor.execute(Wish(SERVERS, ID, DetachNic(port_id=nic.port_id)))


async def _now(cloud: Cloud) -> Server:
    """As the log has it: who asked before may not have heard the answer."""
    stream = SERVER.stream(ID)
    server: Server = (await cloud.log.load([stream]))[stream].state
    return server


async def _card(cloud: Cloud, picks: Picks, host: str) -> Any:
    more: dict[str, Any] = {"host": host, "standing": "plugging"} if host else {}
    cards = [CardWanted(network_id="net-0")]
    [its] = await dealt(cloud, picks, [Hand(server_id=ID, project_id=PROJECT, hostname="web", cards=cards, **more)])
    return its


def act(action: Action) -> Do:
    async def do(cloud: Cloud) -> None:
        await cloud.executor.execute(Wish(SERVERS, ID, action))

    return do


def move(action: type[Any], type: MigrationType, **fields: Any) -> Do:
    async def do(cloud: Cloud) -> None:
        server: Server = await _now(cloud)
        if server.move is not None:
            return  # it was granted, and who asked did not hear of it
        wanted = fields | ({"old_flavor": server.flavor} if "new_flavor" in fields else {})
        if wanted.get("stays"):
            wanted["host"] = server.host
        leaving = await departure(cloud, server, type, **wanted)
        await begin(cloud, cloud.executor.execute, server, action(move=leaving), project_id=PROJECT, user_id="ada")

    return do


async def confirm(cloud: Cloud) -> None:
    await cloud.executor.execute(*confirming(await _now(cloud), ConfirmResize()))


async def revert(cloud: Cloud) -> None:
    await cloud.executor.execute(*reverting(await _now(cloud), RevertResize()))


async def evacuate(cloud: Cloud) -> None:
    server: Server = await _now(cloud)
    source = cloud.mirror(HOST).get(server.host) if server.host else None
    if source is None or source.state.alive:
        return  # it was granted, and who asked did not hear of it
    leaving = await departure(cloud, server, MigrationType.EVACUATION, source_epoch=source.state.epoch)
    action = EvacuateServer(move=leaving)
    await begin(cloud, cloud.executor.execute, server, action, project_id=PROJECT, user_id="ada")


async def call_off(cloud: Cloud) -> None:
    """A live migration, as soon as it is under way."""
    await move(LiveMigrateServer, MigrationType.LIVE)(cloud)
    server: Server = await _now(cloud)
    if server.move is not None:
        await cloud.executor.execute(*cancelling(server, CancelMove(migration_id=server.move.migration_id)))


async def lose_source(stage: Stage) -> None:
    """Its host is gone for good."""
    machine = stage.machine(stage.server(ID).host or "")
    stage.bury(machine.owner)
    machine.wiring.kill()
    machine.gone = True
    await stage.until(lambda: not stage.states(Host)[machine.name].alive)


async def snapshot(cloud: Cloud) -> None:
    await _with_image(cloud, SnapshotServer(image_id=COPY_ID))


async def back_up(cloud: Cloud) -> None:
    """One of which none is kept."""
    await _with_image(cloud, BackUpServer(image_id=COPY_ID, backup_type="daily", rotation=0))


def shelve(offload_seconds: int = 0) -> Do:
    async def do(cloud: Cloud) -> None:
        await _with_image(cloud, ShelveServer(image_id=COPY_ID, offload_seconds=offload_seconds))

    return do


async def unshelve(cloud: Cloud) -> None:
    if (await _now(cloud)).shelf is not None:  # else it was granted, and who asked did not hear of it
        await cloud.executor.execute(Wish(SERVERS, ID, UnshelveServer()))


async def delete_softly(cloud: Cloud) -> None:
    await cloud.executor.execute(Wish(SERVERS, ID, DeleteServer(reclaim_seconds=10**7)), counting(ID, PROJECT))


async def restore(cloud: Cloud) -> None:
    if (await _now(cloud)).soft_deleted_at is None:
        return  # it was granted, and who asked did not hear of it
    await cloud.executor.execute(Wish(SERVERS, ID, RestoreServer()), counting(ID, PROJECT, DEFAULTS))


async def _with_image(cloud: Cloud, action: SnapshotServer | BackUpServer | ShelveServer) -> None:
    if await cloud.log.load([f"image/{COPY_ID}"]):
        return  # it was granted, and who asked did not hear of it
    kind = {"backup_type": action.backup_type} if isinstance(action, BackUpServer) else {}
    image = making(await _now(cloud), None, image_id=COPY_ID, name="copy", project_id=PROJECT, user_id="ada", **kind)
    await cloud.executor.execute(Wish(SERVERS, ID, action), *image)


class Play(NamedTuple):
    do: Do
    leads: VmState
    before: tuple[Do, ...] = (create,)
    """What is done, one after the other, to have a server that this can be done to."""
    mishap: Callable[[Stage], Awaitable[None]] | None = None
    """What happens before it is wished."""
    or_else: frozenset[VmState] = frozenset()
    """Where else it may rest, if something goes wrong: beside where it was."""
    undone: frozenset[str] = frozenset()
    """The acts that, if they fail for good, are undone in steps of which each is tried, too."""


STOP, RESCUE = act(StopServer()), act(RescueServer(image=ServerImage(id=IMAGE)))
REBUILD = act(RebuildServer(rebuild=Rebuild(image=ServerImage(id=IMAGE))))
RESIZE = move(ResizeServer, MigrationType.RESIZE, new_flavor=LARGE)
IN_PLACE = move(ResizeServer, MigrationType.RESIZE, new_flavor=LARGE, stays=True)
ERROR, OFF = frozenset({VmState.ERROR}), frozenset({VmState.STOPPED})
BUILD, COPY, SEND = frozenset({"Start"}), frozenset({"Define"}), frozenset({"Prepare", "Send"})

PLAYS: dict[str, Play] = {
    "create": Play(create, VmState.ACTIVE, before=(), or_else=ERROR, undone=BUILD),
    "delete": Play(act(DeleteServer()), VmState.DELETED),
    "reboot": Play(act(RebootServer()), VmState.ACTIVE),
    "reboot hard": Play(act(HardRebootServer()), VmState.ACTIVE),
    "stop": Play(STOP, VmState.STOPPED),
    "start": Play(act(StartServer()), VmState.ACTIVE, (create, STOP)),
    "pause": Play(act(PauseServer()), VmState.PAUSED),
    "unpause": Play(act(UnpauseServer()), VmState.ACTIVE, (create, act(PauseServer()))),
    "suspend": Play(act(SuspendServer()), VmState.SUSPENDED),
    "resume": Play(act(ResumeServer()), VmState.ACTIVE, (create, act(SuspendServer()))),
    "rebuild": Play(REBUILD, VmState.ACTIVE, or_else=OFF),
    "rebuild stopped": Play(REBUILD, VmState.STOPPED, (create, STOP)),
    "rescue": Play(RESCUE, VmState.RESCUED, or_else=OFF),
    "unrescue": Play(act(UnrescueServer()), VmState.ACTIVE, (create, RESCUE)),
    "attach": Play(attach, VmState.ACTIVE),
    "detach": Play(detach, VmState.ACTIVE),
    "evacuate": Play(evacuate, VmState.ACTIVE, mishap=lose_source, or_else=ERROR, undone=BUILD),
    "resize": Play(RESIZE, VmState.RESIZED, undone=COPY),
    "resize in place": Play(IN_PLACE, VmState.RESIZED, or_else=OFF),
    "confirm": Play(confirm, VmState.ACTIVE, (create, RESIZE)),
    "revert": Play(revert, VmState.ACTIVE, (create, RESIZE), or_else=OFF | ERROR),
    "revert in place": Play(revert, VmState.ACTIVE, (create, IN_PLACE), or_else=OFF | ERROR),
    "migrate": Play(move(MigrateServer, MigrationType.MIGRATION), VmState.RESIZED),
    "migrate stopped": Play(move(MigrateServer, MigrationType.MIGRATION), VmState.RESIZED, (create, STOP)),
    "migrate live": Play(move(LiveMigrateServer, MigrationType.LIVE), VmState.ACTIVE, undone=SEND),
    "snapshot": Play(snapshot, VmState.ACTIVE),
    "snapshot suspended": Play(snapshot, VmState.SUSPENDED, (create, act(SuspendServer()))),
    "back up": Play(back_up, VmState.ACTIVE),
    "shelve": Play(shelve(), VmState.SHELVED_OFFLOADED),
    "shelve and stay": Play(shelve(NEVER), VmState.SHELVED),
    "offload": Play(act(OffloadServer()), VmState.SHELVED_OFFLOADED, (create, shelve(NEVER))),
    "unshelve": Play(unshelve, VmState.ACTIVE, (create, shelve()), undone=BUILD),
    "unshelve where it is": Play(unshelve, VmState.ACTIVE, (create, shelve(NEVER))),
    "delete shelved": Play(act(DeleteServer()), VmState.DELETED, (create, shelve())),
    "delete softly": Play(delete_softly, VmState.SOFT_DELETED),
    "restore": Play(restore, VmState.ACTIVE, (create, delete_softly)),
    "delete for good": Play(act(DeleteServer()), VmState.DELETED, (create, delete_softly)),
    "call off": Play(call_off, VmState.ACTIVE),
}
"""By name. An action more is a row more."""
