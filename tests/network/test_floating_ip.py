"""Floating IPs: given to one port, or forwarded by ports."""

from msgspec.structs import replace

from handlers.network.floating_ip import FLOATING_IPS
from schema.network.floating_ip import (
    FLOATING_IP,
    AddPortForwarding,
    AssociateFloatingIp,
    ChangePortForwarding,
    CreateFloatingIp,
    DeleteFloatingIp,
    DisassociateFloatingIp,
    FloatingIpAssociated,
    FloatingIpCreated,
    FloatingIpDeleted,
    FloatingIpDisassociated,
    FloatingIpUpdated,
    PortForwarding,
    PortForwardingAdded,
    PortForwardingChanged,
    PortForwardingRemoved,
    RemovePortForwarding,
    UpdateFloatingIp,
)
from schema.refusal import Conflict, Invalid, NotFound
from tests.story import Story

floating = Story(FLOATING_IPS)
created = FloatingIpCreated(project_id="p", parent_id="outside", floating_ip_address="203.0.113.9", outer_port_id="o")
given_to = FloatingIpAssociated(port_id="port", fixed_ip_address="10.0.0.5", router_id="r")
ssh = PortForwarding(
    id="1",
    protocol="tcp",
    external_port=2222,
    external_port_end=2222,
    internal_port_id="port",
    internal_ip_address="10.0.0.5",
    internal_port=22,
    internal_port_end=22,
)
forwarded = PortForwardingAdded(forwarding=ssh, router_id="r")


def test_it_is_made_described_and_deleted():
    command = CreateFloatingIp(
        project_id="p", parent_id="outside", floating_ip_address="203.0.113.9", outer_port_id="o"
    )
    made = floating.given().when(command).then(created)
    assert made.state.status == "DOWN"
    made.when(UpdateFloatingIp(description="web")).then(FloatingIpUpdated(description="web"))
    made.when(DeleteFloatingIp()).then(FloatingIpDeleted())
    floating.given(created, FloatingIpDeleted()).when(UpdateFloatingIp(description="x")).refused("not be", NotFound)


def test_it_is_given_to_a_port_and_taken_back():
    command = AssociateFloatingIp(port_id="port", fixed_ip_address="10.0.0.5", router_id="r")
    after = floating.given(created).when(command).then(given_to)
    assert after.state.status == "ACTIVE"
    assert set(FLOATING_IP.unique(after.state)) == {("floating outside", "port 10.0.0.5"), ("led to port", "it")}
    after.when(DisassociateFloatingIp(port_id="another")).then()
    free = after.when(DisassociateFloatingIp(port_id="port")).then(FloatingIpDisassociated())
    assert (free.state.status, free.state.router_id) == ("DOWN", None)


def test_forwarding_and_giving_exclude_each_other():
    command = AssociateFloatingIp(port_id="port", fixed_ip_address="10.0.0.5", router_id="r")
    floating.given(created, forwarded).when(command).refused("in use by Port Forwarding", Conflict)
    floating.given(created, given_to).when(AddPortForwarding(forwarding=ssh, router_id="r")).refused("the whole of it")


def test_forwardings_come_change_and_go():
    after = floating.given(created).when(AddPortForwarding(forwarding=ssh, router_id="r")).then(forwarded)
    other = replace(ssh, external_port=2022, external_port_end=2022)
    changed = after.when(ChangePortForwarding(forwarding=other, router_id="r")).then(
        PortForwardingChanged(forwarding=other, router_id="r")
    )
    left = changed.when(RemovePortForwarding(forwarding_id="1")).then(PortForwardingRemoved(forwarding_id="1"))
    assert (left.state.router_id, left.state.status) == (None, "DOWN")
    unknown = replace(ssh, id="2")
    after.when(ChangePortForwarding(forwarding=unknown, router_id="r")).refused("could not be found", NotFound)


def test_no_outer_nor_inner_port_is_forwarded_twice():
    given = floating.given(created, forwarded)
    around = replace(
        ssh, id="2", external_port=2200, external_port_end=2300, internal_port=2200, internal_port_end=2300
    )
    given.when(AddPortForwarding(forwarding=around, router_id="r")).refused("duplicate port forwarding", Invalid)
    same_inner = replace(ssh, id="2", external_port=80, external_port_end=80)
    given.when(AddPortForwarding(forwarding=same_inner, router_id="r")).refused("duplicate port forwarding", Invalid)
    udp = replace(ssh, id="2", protocol="udp")
    given.when(AddPortForwarding(forwarding=udp, router_id="r")).then(
        PortForwardingAdded(forwarding=udp, router_id="r")
    )
    elsewhere = replace(ssh, id="2", external_port=80, external_port_end=80, internal_port_id="other")
    given.when(AddPortForwarding(forwarding=elsewhere, router_id="r2")).refused("is forwarded by router r", Conflict)
