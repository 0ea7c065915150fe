"""The promises of hosts."""

from handlers.compute.host import HOSTS
from schema.compute.domain import HostFacts
from schema.compute.host import (
    ChangeHostFacts,
    DisableHost,
    EnableHost,
    EndForcedDown,
    ForceHostDown,
    HostDisabled,
    HostEnabled,
    HostFactsChanged,
    HostForcedDown,
    HostForcedDownEnded,
    HostJoinedAggregate,
    HostLeftAggregate,
    HostLost,
    HostRegistered,
    HostRemoved,
    HostReturned,
    JoinAggregate,
    LeaveAggregate,
    LoseHost,
    RegisterHost,
    RemoveHost,
    ReturnHost,
)
from schema.refusal import Conflict, NotFound
from tests.story import Story

host = Story(HOSTS, "rack1-07")
facts = HostFacts(hypervisor_type="QEMU", vcpus=8, memory_mb=16_384, disk_gb=200)
register = RegisterHost(provider_id="p", service_id="s", facts=facts)
registered = HostRegistered(provider_id="p", service_id="s", facts=facts)


def test_a_host_registers_and_is_usable():
    assert host.given().when(register).then(registered).state.usable


def test_facts_change():
    more = HostFacts(hypervisor_type="QEMU", vcpus=8, memory_mb=32_768, disk_gb=200)
    host.given(registered).when(ChangeHostFacts(facts=more)).then(HostFactsChanged(facts=more))
    host.given(registered).when(ChangeHostFacts(facts=facts)).then()


def test_a_silent_host_is_lost_and_its_epoch_raised():
    lost = host.given(registered).when(LoseHost(epoch=1, silent_seconds=15.0))
    assert not lost.then(HostLost(epoch=2, silent_seconds=15.0)).state.usable


def test_a_lease_that_lapsed_before_the_host_came_back_loses_nothing():
    host.given(registered, HostLost(epoch=2), HostReturned(epoch=2)).when(LoseHost(epoch=1)).then()


def test_a_lost_host_returns():
    state = host.given(registered, HostLost(epoch=2)).when(ReturnHost()).then(HostReturned(epoch=2)).state
    assert state.usable


def test_a_disabled_host_is_up_but_not_usable():
    state = host.given(registered).when(DisableHost(reason="fan")).then(HostDisabled(reason="fan")).state
    assert state.alive
    assert not state.usable
    host.given(registered, HostDisabled(reason="fan")).when(EnableHost()).then(HostEnabled())


def test_a_host_forced_down_stays_down_until_an_operator_says_otherwise():
    forced = host.given(registered).when(ForceHostDown()).then(HostForcedDown(epoch=2))
    assert not forced.state.alive
    assert not forced.after(HostLost(epoch=3), HostReturned(epoch=3)).state.alive
    assert forced.when(EndForcedDown()).then(HostForcedDownEnded()).state.usable


def test_a_host_is_in_one_zone_only():
    given = host.given(registered, HostJoinedAggregate(aggregate_id="1", zone="north"))
    assert given.state.zone == "north"
    given.when(JoinAggregate(aggregate_id="2", zone="south")).refused(
        "in the availability zone north already", Conflict
    )
    given.when(JoinAggregate(aggregate_id="2")).then(HostJoinedAggregate(aggregate_id="2", zone=""))
    given.when(JoinAggregate(aggregate_id="1", zone="east")).then(HostJoinedAggregate(aggregate_id="1", zone="east"))
    left = given.when(LeaveAggregate(aggregate_id="1")).then(HostLeftAggregate(aggregate_id="1"))
    assert left.state.zone == "nova"


def test_a_removed_host_may_come_back_as_a_new_one_with_a_higher_epoch():
    removed = host.given(registered, HostDisabled(reason="old")).when(RemoveHost()).then(HostRemoved())
    again = HostRegistered(provider_id="p2", service_id="s2", facts=facts, epoch=2)
    state = removed.when(RegisterHost(provider_id="p2", service_id="s2", facts=facts)).then(again).state
    assert state.usable
    assert state.deleted_at is None


def test_nobody_disables_what_is_not_there():
    host.given().when(DisableHost()).refused("rack1-07 could not be found", NotFound)
