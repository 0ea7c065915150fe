"""Ports: one device at a time, one host at a time, and only that host's newest word counts."""

from handlers.network.port import PORTS
from handlers.network.router import Outdated
from schema.network.port_command import (
    ActivatePortBinding,
    AddAddressPairs,
    AddPortAddress,
    AddPortBinding,
    AttachPort,
    BindPort,
    ChangePortBinding,
    CreatePort,
    DeletePort,
    DetachPort,
    ReaddressPort,
    RemoveAddressPairs,
    RemovePortAddress,
    RemovePortBinding,
    ReportPortWired,
    UnbindPort,
    UpdatePort,
)
from schema.network.port_event import (
    PortAddressAdded,
    PortAddressRemoved,
    PortAttached,
    PortBindingActivated,
    PortBindingAdded,
    PortBindingChanged,
    PortBindingRemoved,
    PortBindingWired,
    PortBound,
    PortCreated,
    PortDeleted,
    PortDetached,
    PortUnbound,
    PortUpdated,
    PortWired,
)
from schema.network.port_state import Binding, FixedIp
from schema.network.wiring import AddressPair
from schema.refusal import Conflict, Invalid, NotFound
from tests.story import Story

ports = Story(PORTS)
created = PortCreated(parent_id="n", project_id="p", mac_address="fa:16:3e:00:00:01")
attached = PortAttached(device_id="server", device_owner="compute:nova")
bound = PortBound(host="one", vif_type="bridge")


def test_a_port_is_made_changed_and_deleted():
    command = CreatePort(parent_id="n", project_id="p", mac_address="fa:16:3e:00:00:01")
    made = ports.given().when(command).then(created)
    changed = made.when(UpdatePort(name="eth0")).then(PortUpdated(name="eth0"))
    changed.when(DeletePort()).then(PortDeleted())


def test_addresses_come_and_go_one_by_one():
    one, other = FixedIp(subnet_id="s", ip_address="10.0.0.2"), FixedIp(subnet_id="t", ip_address="10.1.0.2")
    first = ports.given(created).when(AddPortAddress(fixed_ip=one)).then(PortAddressAdded(fixed_ip=one))
    both = first.when(AddPortAddress(fixed_ip=other)).then(PortAddressAdded(fixed_ip=other))
    assert both.state.fixed_ips == (one, other)
    both.when(RemovePortAddress(fixed_ip=one, remains=False)).refused("other addresses by now", Outdated)
    left = both.when(RemovePortAddress(fixed_ip=one, remains=True)).then(PortAddressRemoved(fixed_ip=one))
    left.when(RemovePortAddress(fixed_ip=other, remains=True)).refused("other addresses by now", Outdated)
    left.when(RemovePortAddress(fixed_ip=other)).then(PortAddressRemoved(fixed_ip=other))
    gone = left.when(RemovePortAddress(fixed_ip=other, remains=False))
    after = gone.then(PortAddressRemoved(fixed_ip=other), PortDeleted())
    after.when(AddPortAddress(fixed_ip=one)).refused("went meanwhile", Outdated)


def test_one_device_has_it_at_a_time():
    taken = ports.given(created).when(AttachPort(device_id="server", device_owner="compute:nova")).then(attached)
    taken.when(AttachPort(device_id="other", device_owner="compute:nova")).refused("in use by server", Conflict)
    taken.when(DetachPort(device_id="other")).then()
    taken.when(DetachPort(device_id="server")).then(PortDetached())


def test_it_is_active_when_its_host_says_so():
    there = ports.given(created).when(BindPort(host="one")).then(bound)
    assert there.state.status == "DOWN"
    wired = there.when(ReportPortWired(host="one", generation=2, up=True)).then(PortWired(up=True))
    assert wired.state.status == "ACTIVE"
    gone = wired.when(UnbindPort()).then(PortUnbound())
    assert (gone.state.status, gone.state.host) == ("DOWN", "")


def test_one_that_is_switched_off_is_down():
    there = ports.given(created, bound, PortWired(up=True))
    off = there.when(UpdatePort(admin_state_up=False)).then(PortUpdated(admin_state_up=False))
    assert off.state.status == "DOWN"
    off.when(ReportPortWired(host="one", generation=9, up=True)).then()
    on = off.when(UpdatePort(admin_state_up=True)).then(PortUpdated(admin_state_up=True))
    assert on.state.status == "ACTIVE"


def test_an_older_word_and_another_host_say_nothing():
    moved = (created, bound, PortBound(host="two", vif_type="bridge"))
    ports.given(*moved).when(ReportPortWired(host="one", generation=9, up=True)).then()
    ports.given(*moved).when(ReportPortWired(host="two", generation=2, up=True)).then()
    ports.given(*moved).when(ReportPortWired(host="two", generation=3, up=True)).then(PortWired(up=True))


def test_what_is_gone_is_let_go_in_silence_but_not_taken():
    gone = (created, PortDeleted())
    ports.given(*gone).when(DetachPort(device_id="server")).then()
    ports.given(*gone).when(UnbindPort()).then()
    ports.given(*gone).when(AttachPort(device_id="server", device_owner="x")).refused("could not be found", NotFound)


def test_what_comes_back_with_it_are_the_addresses_it_has():
    a, b = (FixedIp(subnet_id="s", ip_address=ip) for ip in ("10.0.0.5", "10.0.0.6"))
    there = ports.given(PortCreated(parent_id="n", mac_address="fa:16:3e:00:00:01", fixed_ips=(a,)))
    moved = there.when(ReaddressPort(fixed_ips=(b,), before=(a,))).then(PortUpdated(fixed_ips=(b,)))
    moved.when(ReaddressPort(fixed_ips=(), before=(a,))).refused("other addresses by now", Outdated)
    moved.when(DeletePort(fixed_ips=(a,))).refused("other addresses by now", Outdated)
    moved.when(DeletePort(fixed_ips=(b,))).then(PortDeleted())


def test_another_host_prepares_for_it_and_takes_over():
    there = ports.given(created, attached, bound, PortWired(up=True))
    ready = Binding(host="two", vif_type="bridge", status="INACTIVE")
    prepared = there.when(AddPortBinding(host="two")).then(PortBindingAdded(binding=ready))
    assert (prepared.state.host, prepared.state.status) == ("one", "ACTIVE")
    prepared.when(AddPortBinding(host="one")).refused("already exists", Conflict)
    prepared.when(AddPortBinding(host="two", vnic_type="direct")).refused("already exists", Conflict)
    prepared.when(ActivatePortBinding(host="three")).refused("could not be found", NotFound)
    direct = prepared.when(ChangePortBinding(host="two", vnic_type="direct"))
    direct.then(PortBindingChanged(host="two", vnic_type="direct"))
    moved = prepared.when(ActivatePortBinding(host="two")).then(PortBindingActivated(host="two"))
    assert [(it.host, it.status) for it in moved.state.bindings] == [("two", "ACTIVE"), ("one", "INACTIVE")]
    assert moved.state.status == "DOWN"
    moved.when(ReportPortWired(host="one", generation=9, up=True)).then()
    left = moved.when(RemovePortBinding(host="one")).then(PortBindingRemoved(host="one"))
    assert left.state.inactive_bindings == ()
    assert left.state.device_id == "server"


def test_the_host_that_prepares_for_it_says_when_it_is_ready():
    prepared = PortBindingAdded(binding=Binding(host="two", vif_type="bridge", status="INACTIVE"))
    there = ports.given(created, attached, bound, PortWired(up=True), prepared)
    there.when(ReportPortWired(host="three", generation=9, up=True)).then()
    there.when(ReportPortWired(host="two", generation=2, up=True)).then()
    ready = there.when(ReportPortWired(host="two", generation=3, up=True)).then(PortBindingWired(host="two", up=True))
    assert ready.state.bound_to("two").wired
    assert (ready.state.host, ready.state.status) == ("one", "ACTIVE")
    ready.when(AddPortBinding(host="two")).then()
    lost = ready.when(ReportPortWired(host="two", generation=3, up=False, fault="no bridge"))
    assert not lost.then(PortBindingWired(host="two", up=False)).state.bound_to("two").wired
    moved = ready.when(ActivatePortBinding(host="two")).then(PortBindingActivated(host="two"))
    assert [(it.host, it.wired) for it in moved.state.bindings] == [("two", False), ("one", True)]


def test_bound_to_the_host_that_prepared_it_has_one_binding():
    prepared = PortBindingAdded(binding=Binding(host="two", vif_type="bridge", status="INACTIVE"))
    moved = ports.given(created, bound, prepared).when(BindPort(host="two"))
    assert moved.then(PortBound(host="two", vif_type="bridge")).state.inactive_bindings == ()


def test_address_pairs_come_and_go_whatever_others_are_there():
    a, b = (AddressPair(ip=f"192.0.2.{n}", mac_address="fa:16:3e:00:00:01") for n in (1, 2))
    one = ports.given(created, PortUpdated(allowed_address_pairs=(a,)))
    both = one.when(AddAddressPairs(pairs=(b, a))).then(PortUpdated(allowed_address_pairs=(a, b)))
    both.when(RemoveAddressPairs(pairs=(a,))).then(PortUpdated(allowed_address_pairs=(b,)))
    many = tuple(AddressPair(ip=f"198.51.100.{n}", mac_address="fa:16:3e:00:00:01") for n in range(10))
    one.when(AddAddressPairs(pairs=many)).refused("exceeds the maximum 10", Invalid)
