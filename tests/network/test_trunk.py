"""Trunks: no tag twice, ports in one trunk at most, subports where the parent is."""

import pytest
from msgspec.structs import replace

from handlers.network.port import PORTS
from handlers.network.router import Outdated
from handlers.network.trunk import TRUNKS
from handlers.network.trunking import following
from schema.network.port_command import AttachPort, BindPort, DeletePort, JoinTrunk, LeaveTrunk, TrunkPort, UnbindPort
from schema.network.port_event import (
    PortBound,
    PortCreated,
    PortDeleted,
    PortJoinedTrunk,
    PortLeftTrunk,
    PortTrunked,
    PortUnbound,
    PortWired,
)
from schema.network.port_state import SUBPORT
from schema.network.trunk import (
    AddSubports,
    CreateTrunk,
    DeleteTrunk,
    RemoveSubports,
    SubportsAdded,
    SubportsRemoved,
    TrunkCreated,
    TrunkDeleted,
    TrunkSubport,
    TrunkUpdated,
    UpdateTrunk,
    status_of,
)
from schema.refusal import Conflict, NotFound
from tests.story import Story

trunks, ports = Story(TRUNKS), Story(PORTS)
created = TrunkCreated(name="t", project_id="p", parent_id="parent")
A, B = (TrunkSubport(port_id=id, segmentation_id=tag) for id, tag in (("a", 10), ("b", 20)))
port = PortCreated(project_id="p", parent_id="n", mac_address="fa:16:3e:00:00:01")
joined = PortJoinedTrunk(trunk_id="t", subport_of="parent", segmentation_id=10)
bound = PortBound(host="h", vif_type="ovs")


def test_a_trunk_is_made_changed_and_deleted():
    made = trunks.given().when(CreateTrunk(name="t", project_id="p", parent_id="parent")).then(created)
    more = made.when(AddSubports(subports=(A, B))).then(SubportsAdded(subports=(A, B)))
    less = more.when(RemoveSubports(port_ids=("a",))).then(SubportsRemoved(port_ids=("a",)))
    assert less.state.subports == (B,)
    less.when(DeleteTrunk(port_ids=("b",))).then(TrunkDeleted())
    less.when(DeleteTrunk(port_ids=("a", "b"))).refused("meanwhile", Outdated)


def test_a_tag_leads_to_one_port():
    there = trunks.given(created, SubportsAdded(subports=(A,)))
    twice = TrunkSubport(port_id="c", segmentation_id=10)
    there.when(AddSubports(subports=(twice,))).refused("segmentation_id 10 already in use", Conflict)
    trunks.given().when(CreateTrunk(parent_id="parent", subports=(A, twice))).refused("already in use", Conflict)


def test_what_is_disabled_stays_as_it_is():
    off = trunks.given(created, SubportsAdded(subports=(A,)), TrunkUpdated(admin_state_up=False))
    for command in (AddSubports(subports=(B,)), RemoveSubports(port_ids=("a",)), DeleteTrunk()):
        off.when(command).refused("currently disabled", Conflict)
    off.when(UpdateTrunk(admin_state_up=True)).then(TrunkUpdated(admin_state_up=True))
    trunks.given(created, TrunkDeleted()).when(AddSubports(subports=(B,))).refused("not be found", NotFound)


def test_a_parent_is_on_no_host_and_in_no_other_trunk():
    parent = ports.given(port).when(TrunkPort(trunk_id="t")).then(PortTrunked(trunk_id="t"))
    parent.when(TrunkPort(trunk_id="u")).refused("not eligible", Conflict)
    parent.when(JoinTrunk(trunk_id="u", subport_of="x", segmentation_id=1)).refused("not eligible", Conflict)
    parent.when(DeletePort()).refused("parent port for trunk t", Conflict)
    parent.when(LeaveTrunk(trunk_id="t")).then(PortLeftTrunk()).when(DeletePort()).then(PortDeleted())
    parent.after(bound).when(LeaveTrunk(trunk_id="t")).refused("in use", Conflict)
    ports.given(port, bound).when(TrunkPort(trunk_id="t")).refused("not eligible", Conflict)
    made = PortCreated(project_id="p", parent_id="n", made_by="server")
    ports.given(made).when(TrunkPort(trunk_id="t")).refused("not eligible", Conflict)


def test_a_subport_is_nobody_elses():
    wish = JoinTrunk(trunk_id="t", subport_of="parent", segmentation_id=10)
    sub = ports.given(port).when(wish).then(joined)
    assert (sub.state.device_owner, sub.state.device_id) == (SUBPORT, "t")
    sub.when(DeletePort()).refused("subport for trunk t", Conflict)
    sub.when(AttachPort(device_id="s", device_owner="compute:nova")).refused("subport for trunk t", Conflict)
    sub.when(TrunkPort(trunk_id="u")).refused("in use by another trunk", Conflict)
    sub.when(JoinTrunk(trunk_id="u", subport_of="x", segmentation_id=1)).refused("in use by another trunk", Conflict)
    left = sub.after(bound).when(LeaveTrunk(trunk_id="t")).then(PortLeftTrunk())
    assert (left.state.host, left.state.device_owner, left.state.device_id, left.state.subport_of) == ("", "", "", "")
    taken = PortCreated(project_id="p", parent_id="n", device_id="server")
    ports.given(taken).when(wish).refused("attached device server", Conflict)


def test_subports_follow_their_parent():
    trunk = trunks.given(created, SubportsAdded(subports=(A,))).state
    parent = ports.given(port, PortTrunked(trunk_id="it"))
    sub = ports.given(port, PortJoinedTrunk(trunk_id="it", subport_of="parent", segmentation_id=10))

    def commands(parent_state, sub_state):
        return [wish.command for wish in following(trunk, {"parent": parent_state, "a": replace(sub_state, id="a")})]

    assert commands(parent.state, sub.state) == []
    assert commands(parent.after(bound).state, sub.state) == [BindPort(host="h", vif_type="ovs")]
    assert commands(parent.after(bound).state, sub.after(bound).state) == []
    assert commands(parent.state, sub.after(bound).state) == [UnbindPort()]
    assert commands(parent.after(bound).state, ports.given(port).state) == []


@pytest.mark.parametrize(
    "parent, sub, status",
    [
        ((), (), "DOWN"),
        ((bound,), (), "BUILD"),
        ((bound, PortWired(up=True)), (bound,), "BUILD"),
        ((bound, PortWired(up=True)), (bound, PortWired(up=True)), "ACTIVE"),
        ((bound, PortWired(up=True)), (bound, PortWired(up=False, fault="no")), "DEGRADED"),
        ((bound, PortWired(up=False, fault="no")), (bound,), "ERROR"),
        ((bound, PortWired(up=True), PortUnbound()), (), "DOWN"),
    ],
)
def test_a_trunk_is_as_far_as_its_ports(parent, sub, status):
    assert status_of(ports.given(port, *parent).state, [ports.given(port, joined, *sub).state]) == status
