"""The rules of subnet pools and address scopes, as stories; and that free ranges are free and first."""

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.network.address_scope import ADDRESS_SCOPES
from handlers.network.subnet_pool import SUBNET_POOLS, compacted, free_range, without
from schema.network.address_scope import (
    AddAddressScopePool,
    AddressScopeCreated,
    AddressScopePoolAdded,
    AddressScopePoolRemoved,
    DeleteAddressScope,
    RemoveAddressScopePool,
)
from schema.network.subnet_pool import (
    AllotRange,
    DeleteSubnetPool,
    Range,
    RangeAllotted,
    RangeReturned,
    ReturnRange,
    SubnetPool,
    SubnetPoolCreated,
    SubnetPoolUpdated,
    UpdateSubnetPool,
)
from tests.story import Story

pool = Story(SUBNET_POOLS)
scope = Story(ADDRESS_SCOPES)
made = SubnetPoolCreated(project_id="p", prefixes=("10.0.0.0/24",), min_prefixlen=24, default_prefixlen=26)
allotted = RangeAllotted(subnet_id="s1", cidr="10.0.0.0/26", project_id="p")
scoped = AddressScopeCreated(project_id="p")


def test_a_range_is_given_once():
    pool.given(made).when(AllotRange(subnet_id="s1", cidr="10.0.0.0/26", project_id="p")).then(allotted)
    pool.given(made, allotted).when(AllotRange(subnet_id="s2", cidr="10.0.0.0/27")).refused("Cannot allocate")
    again = AllotRange(subnet_id="s2", cidr="10.0.0.0/26", chosen=True)
    pool.given(made, allotted).when(again).refused("taken meanwhile")


def test_a_range_comes_back_from_who_has_it():
    pool.given(made, allotted).when(ReturnRange(subnet_id="s1")).then(RangeReturned(subnet_id="s1"))
    pool.given(made, allotted).when(ReturnRange(subnet_id="s2")).then()


def test_a_pool_with_subnets_stays_and_keeps_what_they_have():
    pool.given(made, allotted).when(DeleteSubnetPool()).refused("existing allocations")
    pool.given(made, allotted).when(UpdateSubnetPool(prefixes=("10.1.0.0/24",))).refused("is allocated to a subnet")


def test_what_is_onboarded_becomes_a_prefix():
    taken = RangeAllotted(subnet_id="s1", cidr="10.9.0.0/24", project_id="p")
    pool.given(made).when(AllotRange(subnet_id="s1", cidr="10.9.0.0/24", project_id="p", onboarded=True)).then(
        SubnetPoolUpdated(prefixes=("10.0.0.0/24", "10.9.0.0/24")), taken
    )


def test_pools_of_a_scope_do_not_overlap():
    inside = AddressScopePoolAdded(pool_id="a", prefixes=("10.0.0.0/24",))
    scope.given(scoped).when(AddAddressScopePool(pool_id="a", prefixes=("10.0.0.0/24",), project_id="p")).then(inside)
    other = AddAddressScopePool(pool_id="b", prefixes=("10.0.0.128/25",), project_id="p")
    scope.given(scoped, inside).when(other).refused("unique prefixes")
    scope.given(scoped, inside).when(DeleteAddressScope()).refused("in use")
    scope.given(scoped, inside).when(RemoveAddressScopePool(pool_id="a")).then(AddressScopePoolRemoved(pool_id="a"))
    scope.given(scoped).when(AddAddressScopePool(pool_id="a", prefixes=("10.0.0.0/24",), project_id="q")).refused(
        "cannot be associated"
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(24, 30), st.booleans()), max_size=40))
def test_ranges_never_overlap_and_none_is_passed_over(steps):
    state = SubnetPool(id="p", prefixes=("10.0.0.0/24", "10.4.0.0/25"), min_prefixlen=24)
    ranges = {}
    for number, (length, returned) in enumerate(steps):
        if returned and ranges:
            del ranges[min(ranges)]
        now = SubnetPool(
            id="p", prefixes=state.prefixes, ranges={id: Range(cidr=it, project_id="") for id, it in ranges.items()}
        )
        found = free_range(now, length)
        candidates = (sub for it in state.prefixes for sub in _subnets(it, length))
        free = [it for it in candidates if not any(it.overlaps(ipaddress.ip_network(one)) for one in ranges.values())]
        assert found == (str(free[0]) if free else None)
        if found:
            ranges[number] = found


def _subnets(prefix, length):
    network = ipaddress.ip_network(prefix)
    return network.subnets(new_prefix=length) if length >= network.prefixlen else ()


def test_prefixes_are_joined_and_cut():
    assert compacted(["10.0.1.0/24", "10.0.0.0/24"]) == ("10.0.0.0/23",)
    assert without(["10.0.0.0/23"], ["10.0.1.0/24"]) == ("10.0.0.0/24",)
    assert without(["10.0.0.0/24"], ["10.0.0.0/8"]) == ()
