"""The promises of servers."""

from datetime import timedelta

import pytest

from handlers.compute.action import ACTIONS as ROWS
from handlers.compute.server import ALLOWED, SERVERS
from schema.compute.server import deadline
from schema.compute.server_command import (
    AddServerTag,
    ChangeServerDetails,
    CreateServer,
    DeleteServer,
    EndServer,
    FailBuild,
    GiveUpTask,
    HardRebootServer,
    LockServer,
    ObserveServer,
    PauseServer,
    PlaceServer,
    RebootServer,
    RefusePlacement,
    RemoveServerTag,
    ReplaceServerMetadata,
    ReplaceServerTags,
    ResetServerState,
    ResumeServer,
    SetServerMetadata,
    StartServer,
    StopServer,
    SuspendServer,
    UnlockServer,
    UnpauseServer,
)
from schema.compute.server_event import (
    ActionFailed,
    BuildFailed,
    DeletionRequested,
    PauseRequested,
    PowerObserved,
    RebootRequested,
    ResumeRequested,
    ServerDeleted,
    ServerDetailsChanged,
    ServerFaulted,
    ServerLocked,
    ServerMetadataSet,
    ServerPaused,
    ServerPlaced,
    ServerRebooted,
    ServerRequested,
    ServerResumed,
    ServerStarted,
    ServerStateReset,
    ServerStopped,
    ServerSuspended,
    ServerTagsSet,
    ServerUnlocked,
    ServerUnpaused,
    StartRequested,
    StopRequested,
    SuspendRequested,
    UnpauseRequested,
)
from schema.compute.server_parts import Fault, Order, ServerFlavor, ServerImage
from schema.compute.task import PowerState, Task, VmState
from schema.refusal import Conflict, Invalid, NotFound, OverQuota
from tests.story import Story

server = Story(SERVERS, "4f1c")

RUNNING, SHUTDOWN, CRASHED, PAUSED = PowerState.RUNNING, PowerState.SHUTDOWN, PowerState.CRASHED, PowerState.PAUSED

what = {
    "name": "web",
    "project_id": "project-1",
    "order": Order(user_id="ada", attempts=2),
    "flavor": ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=5),
    "image": ServerImage(id="img"),
    "metadata": {"role": "web"},
    "tags": ("blue",),
    "request_id": "req-1",
}
requested = ServerRequested(**what)
placed = ServerPlaced(host="h1", provider_id="p1", zone="nova")
running = (requested, placed, ServerStarted())
stopped = (*running, StopRequested(), ServerStopped())
paused = (*running, PauseRequested(), ServerPaused())
suspended = (*running, SuspendRequested(), ServerSuspended())
no_kvm = Fault(message="no KVM here")


def seen(given, power_state=RUNNING, **fields):
    """What the server's host says when it has carried out the newest wish."""
    return ObserveServer(host="h1", generation=given.state.generation, power_state=power_state, **fields)


def test_a_server_is_ordered():
    state = server.given().when(CreateServer(**what)).then(requested).state
    assert (state.vm_state, state.task, state.request_id) == (VmState.BUILDING, Task.SCHEDULING, "req-1")
    assert state.host is None


def test_an_id_is_one_servers_for_ever():
    gone = (*running, DeletionRequested(), ServerDeleted())
    server.given(*gone).when(CreateServer(**what)).refused("ids are not used again", Conflict)


def test_a_server_is_placed_and_its_host_builds_it():
    given = server.given(requested).when(PlaceServer(host="h1", provider_id="p1", zone="nova")).then(placed)
    assert given.state.task is Task.SPAWNING
    state = given.when(seen(given)).then(ServerStarted()).state
    assert (state.vm_state, state.task, state.power_state) == (VmState.ACTIVE, None, RUNNING)
    assert state.launched_at == state.updated_at


def test_a_server_that_is_being_deleted_is_not_placed():
    given = server.given(requested, DeletionRequested())
    given.when(PlaceServer(host="h1", provider_id="p1")).refused("wants no host", Conflict)


def test_a_host_that_cannot_build_it_is_followed_by_another():
    given = server.given(requested, placed).when(FailBuild(host="h1", fault=no_kvm))
    state = given.then(BuildFailed(host="h1", fault=no_kvm)).state
    assert (state.vm_state, state.task, state.host) == (VmState.BUILDING, Task.SCHEDULING, None)
    assert state.failed_hosts == ("h1",)


def test_it_is_in_error_when_no_host_could_build_it():
    given = server.given(
        requested, placed, BuildFailed(host="h1", fault=no_kvm), ServerPlaced(host="h2", provider_id="p2")
    )
    fault = Fault(message="No host could build the server; tried h1, h2. The last one said: no KVM here")
    outcome = given.when(FailBuild(host="h2", fault=no_kvm))
    state = outcome.then(BuildFailed(host="h2", fault=no_kvm), ServerFaulted(fault=fault)).state
    assert (state.vm_state, state.task, state.host) == (VmState.ERROR, None, None)
    assert state.fault.message == fault.message
    assert state.fault.at == state.updated_at


def test_a_late_word_of_failure_from_a_host_that_has_it_no_more_is_nothing():
    given = server.given(
        requested, placed, BuildFailed(host="h1", fault=no_kvm), ServerPlaced(host="h2", provider_id="p2")
    )
    given.when(FailBuild(host="h1", fault=no_kvm)).then()
    server.given(*running).when(FailBuild(host="h1", fault=no_kvm)).refused("not being built on h1")


def test_it_is_in_error_when_no_host_will_do():
    fault = Fault(message="No valid host was found.")
    state = server.given(requested).when(RefusePlacement(fault=fault)).then(ServerFaulted(fault=fault)).state
    assert state.vm_state is VmState.ERROR
    server.given(requested, placed).when(RefusePlacement(fault=fault)).refused("has got a host", Conflict)


def test_a_guest_that_is_down_as_soon_as_it_was_up_was_built_all_the_same():
    given = server.given(requested, placed)
    state = given.when(seen(given, SHUTDOWN)).then(ServerStarted(), PowerObserved(power_state=SHUTDOWN)).state
    assert state.vm_state is VmState.STOPPED
    assert state.built


ACTIONS = [
    (running, StopServer, StopRequested, Task.POWERING_OFF, SHUTDOWN, ServerStopped, VmState.STOPPED),
    (stopped, StartServer, StartRequested, Task.POWERING_ON, RUNNING, ServerStarted, VmState.ACTIVE),
    (running, RebootServer, RebootRequested, Task.REBOOTING, RUNNING, ServerRebooted, VmState.ACTIVE),
    (running, PauseServer, PauseRequested, Task.PAUSING, PAUSED, ServerPaused, VmState.PAUSED),
    (paused, UnpauseServer, UnpauseRequested, Task.UNPAUSING, RUNNING, ServerUnpaused, VmState.ACTIVE),
    (
        running,
        SuspendServer,
        SuspendRequested,
        Task.SUSPENDING,
        PowerState.SUSPENDED,
        ServerSuspended,
        VmState.SUSPENDED,
    ),
    (suspended, ResumeServer, ResumeRequested, Task.RESUMING, RUNNING, ServerResumed, VmState.ACTIVE),
]


@pytest.mark.parametrize("history,action,begun,task,power_state,done,vm_state", ACTIONS)
def test_an_action_leads_from_state_to_state(history, action, begun, task, power_state, done, vm_state):
    before = server.given(*history)
    given = before.when(action(request_id="req-2")).then(begun(request_id="req-2"))
    assert (given.state.task, given.state.request_id) == (task, "req-2")
    assert given.state.generation == before.state.generation + 1
    state = given.when(seen(given, power_state)).then(done()).state
    assert (state.vm_state, state.task, state.power_state) == (vm_state, None, power_state)


@pytest.mark.parametrize("history,action,begun,task,power_state,done,vm_state", ACTIONS)
def test_an_action_that_its_host_cannot_do_leaves_the_server_as_it_was(
    history, action, begun, task, power_state, done, vm_state
):
    before = server.given(*history)
    given = before.after(begun())
    failed = ActionFailed(task=task, fault=Fault(message="libvirt is away"))
    state = given.when(seen(given, before.state.power_state, fault="libvirt is away")).then(failed).state
    assert (state.vm_state, state.task) == (before.state.vm_state, None)
    assert state.fault.message == "libvirt is away"
    assert state.generation == given.state.generation + 1


@pytest.mark.parametrize("history,action,begun,task,power_state,done,vm_state", ACTIONS)
def test_an_action_that_takes_too_long_is_given_up(history, action, begun, task, power_state, done, vm_state):
    given = server.given(*history, begun())
    assert timedelta(seconds=10) < deadline(given.state) - given.at < timedelta(minutes=11)
    late = Fault(message="it took too long")
    state = given.when(GiveUpTask(task=task, fault=late)).then(ActionFailed(task=task, fault=late)).state
    assert deadline(state) is None


@pytest.mark.parametrize(
    "history,action,where",
    [
        (running, StartServer, "vm_state active"),
        (running, UnpauseServer, "vm_state active"),
        (running, ResumeServer, "vm_state active"),
        (stopped, StopServer, "vm_state stopped"),
        (stopped, RebootServer, "vm_state stopped"),
        (stopped, PauseServer, "vm_state stopped"),
        (paused, PauseServer, "vm_state paused"),
        (suspended, SuspendServer, "vm_state suspended"),
        ((requested,), StopServer, "vm_state building"),
        ((*running, StopRequested()), PauseServer, "task_state powering-off"),
        ((*running, DeletionRequested()), HardRebootServer, "task_state deleting"),
    ],
)
def test_what_makes_no_sense_now_is_refused(history, action, where):
    server.given(*history).when(action()).refused(
        f"Cannot '{ROWS[action].verb}' server 4f1c while it is in {where}", Conflict
    )


def test_a_hard_reboot_helps_almost_always():
    for history in (running, stopped, paused, suspended, (*running, RebootRequested())):
        state = server.given(*history).when(HardRebootServer()).then(RebootRequested(hard=True)).state
        assert state.hard_reboots == 1


def test_a_server_without_a_host_can_only_be_deleted():
    given = server.given(requested, ServerFaulted(fault=no_kvm))
    given.when(HardRebootServer()).refused("no host has it", Conflict)
    given.when(DeleteServer()).then(DeletionRequested())


def test_what_a_host_said_before_it_heard_the_newest_wish_is_nothing():
    given = server.given(*running, StopRequested())
    given.when(ObserveServer(host="h1", generation=given.state.generation - 1, power_state=RUNNING)).then()


def test_what_another_host_says_is_nothing():
    given = server.given(*running)
    given.when(ObserveServer(host="h9", generation=99, power_state=SHUTDOWN)).then()


@pytest.mark.parametrize("power_state", [SHUTDOWN, CRASHED, PowerState.NOSTATE])
def test_a_guest_that_goes_down_by_itself_is_stopped(power_state):
    given = server.given(*running)
    state = given.when(seen(given, power_state)).then(PowerObserved(power_state=power_state)).state
    assert (state.vm_state, state.power_state) == (VmState.STOPPED, power_state)


def test_a_guest_paused_behind_our_back_is_paused():
    given = server.given(*running)
    assert given.when(seen(given, PAUSED)).then(PowerObserved(power_state=PAUSED)).state.vm_state is VmState.PAUSED


def test_a_stopped_guest_that_was_started_behind_our_back_is_stopped_again():
    given = server.given(*stopped)
    state = given.when(seen(given, RUNNING)).then(PowerObserved(power_state=RUNNING), StopRequested()).state
    assert state.task is Task.POWERING_OFF


def test_a_guest_that_went_down_by_itself_and_is_up_again_is_left_alone():
    given = server.given(*running, PowerObserved(power_state=SHUTDOWN))
    assert given.when(seen(given, RUNNING)).then(PowerObserved(power_state=RUNNING)).state.vm_state is VmState.ACTIVE


def test_a_server_is_deleted():
    given = server.given(*running).when(DeleteServer(request_id="req-3")).then(DeletionRequested(request_id="req-3"))
    assert given.state.task is Task.DELETING
    given.when(seen(given, SHUTDOWN)).then()
    state = given.when(EndServer()).then(ServerDeleted()).state
    assert (state.vm_state, state.deleted_at) == (VmState.DELETED, state.updated_at)


def test_a_server_does_not_end_unless_somebody_wants_it_to():
    server.given(*running).when(EndServer()).refused("nobody asked", Conflict)


def test_what_is_gone_is_not_found():
    gone = server.given(*running, DeletionRequested(), ServerDeleted())
    gone.when(StartServer()).refused("could not be found", NotFound)
    gone.when(DeleteServer()).then()


def test_a_locked_server_obeys_only_who_may_override():
    locked = (
        server.given(*running).when(LockServer(by="owner", reason="mine")).then(ServerLocked(by="owner", reason="mine"))
    )
    for command in (StopServer(), DeleteServer(), ChangeServerDetails(name="x"), AddServerTag(tag="x")):
        locked.when(command).refused("is locked", Conflict)
    locked.when(StopServer(overrides_lock=True)).then(StopRequested())
    locked.when(UnlockServer()).then(ServerUnlocked())


def test_what_an_administrator_locked_only_one_unlocks():
    locked = server.given(*running, ServerLocked(by="admin"))
    locked.when(UnlockServer()).refused("administrator", Conflict)
    locked.when(UnlockServer(overrides_lock=True)).then(ServerUnlocked())


def test_details_change():
    given = server.given(*running)
    changed = given.when(ChangeServerDetails(name="db", description="d")).then(
        ServerDetailsChanged(name="db", description="d")
    )
    assert (changed.state.name, changed.state.description) == ("db", "d")
    nameless = changed.when(ChangeServerDetails(name="db", description=None)).then(
        ServerDetailsChanged(description=None)
    )
    assert nameless.state.description is None
    assert nameless.state.generation == given.state.generation


def test_metadata_is_set_and_removed():
    given = server.given(*running)
    command = SetServerMetadata(metadata={"role": "web", "a": "1"})
    state = given.when(command).then(ServerMetadataSet(metadata={"a": "1"})).state
    assert state.metadata == {"role": "web", "a": "1"}
    replaced = given.when(ReplaceServerMetadata(metadata={"b": "2"}))
    assert replaced.then(ServerMetadataSet(metadata={"role": None, "b": "2"})).state.metadata == {"b": "2"}
    given.when(SetServerMetadata(metadata={"a": "1"}, limit=1)).refused("exceeds 1", OverQuota)


def test_tags_are_set_and_removed():
    given = server.given(*running)
    given.when(AddServerTag(tag="new")).then(ServerTagsSet(tags=("blue", "new")))
    given.when(AddServerTag(tag="new", limit=1)).refused("1 tags at most", Invalid)
    given.when(ReplaceServerTags(tags=("x", "y"))).then(ServerTagsSet(tags=("x", "y")))
    given.when(RemoveServerTag(tag="blue")).then(ServerTagsSet(tags=()))


def test_an_administrator_says_where_a_server_is():
    given = server.given(*running, StopRequested())
    state = given.when(ResetServerState(vm_state=VmState.ERROR)).then(ServerStateReset(vm_state=VmState.ERROR)).state
    assert (state.vm_state, state.task) == (VmState.ERROR, None)


@pytest.mark.law
def test_every_state_on_its_way_has_a_deadline():
    for task in Task:
        state = server.aggregate.kind.state(id="x", task=task, task_since=server.given(requested).at)
        assert deadline(state) is not None


@pytest.mark.law
def test_every_command_has_a_row():
    from schema.compute import server_command as words
    from schema.event import Command

    commands = {it for it in vars(words).values() if isinstance(it, type) and issubclass(it, Command)}
    assert commands - {Command, words.Action, words.MoveServer} == ALLOWED.keys()
