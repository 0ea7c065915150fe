"""Who has which address, packed: as a plain dictionary would have it, and free ones found without a walk."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.network.addressing import pick
from schema.network.allocation import Allocation, address_of, number_of
from schema.network.subnet import Pool, Subnet

FIRST, LAST = number_of("10.0.0.10"), number_of("10.0.0.29")
ips = st.integers(FIRST - 3, LAST + 3).map(lambda number: address_of(number, 4))
changes = st.lists(st.tuples(ips, st.sampled_from(["", "a", "b"])), max_size=60)


def _after(changes):
    """Records and a dictionary after the same changes; no port: released."""
    records, known = b"", {}
    for ip, port_id in changes:
        if port_id:
            records, known[ip] = Allocation(records, 4).with_(ip, port_id), port_id
        else:
            records = Allocation(records, 4).without(ip)
            known.pop(ip, None)
    return records, known


@settings(max_examples=200, deadline=None)
@given(changes)
def test_it_knows_what_a_dictionary_would(changes):
    records, known = _after(changes)
    packed = Allocation(records, 4)
    assert len(packed) == len(known)
    for number in range(FIRST - 4, LAST + 5):
        ip = address_of(number, 4)
        assert packed.has(ip) == (ip in known)
        assert [packed.given_to(ip, port_id) for port_id in "ab"] == [known.get(ip) == port_id for port_id in "ab"]
    free = [number for number in range(FIRST, LAST + 1) if address_of(number, 4) not in known]
    assert packed.free(FIRST, LAST) == len(free)
    assert [packed.nth_free(FIRST, LAST, nth) for nth in range(len(free))] == free


@settings(max_examples=200, deadline=None)
@given(changes, st.sets(ips, max_size=25), st.floats(0, 1, exclude_max=True))
def test_what_is_picked_is_free_and_something_is_if_anything_is_free(changes, held, chance):
    records, known = _after(changes)
    pools = (Pool(start="10.0.0.10", end="10.0.0.19"), Pool(start="10.0.0.22", end="10.0.0.29"))
    subnet = Subnet(gateway_ip="10.0.0.12", pools=pools, taken=records)
    numbers = [*range(FIRST, FIRST + 10), *range(FIRST + 12, LAST + 1)]
    usable = {address_of(number, 4) for number in numbers} - known.keys() - held - {"10.0.0.12"}
    ip = pick(subnet, held, chance)
    assert ip in usable if usable else ip is None


@pytest.mark.parametrize("version, pool", [(4, ("0.0.0.0", "255.255.255.255")), (6, ("::", ":".join(["ffff"] * 8)))])
def test_a_pool_may_be_all_there_is(version, pool):
    subnet = Subnet(ip_version=version, pools=(Pool(start=pool[0], end=pool[1]),))
    given = set()
    for _ in range(300):
        ip = pick(subnet, (), 0.999)
        assert ip not in given
        given.add(ip)
        subnet = replace(subnet, taken=subnet.allocation.with_(ip, "p"))
    assert len(subnet.allocation) == 300
    whole = number_of(pool[1]) + 1
    assert subnet.allocation.free(0, whole - 1) == whole - 300


def test_what_is_no_address_is_no_harm():
    records = Allocation(b"", 4).with_("nonsense", "a")
    assert Allocation(records, 4).given_to("nonsense", "a")
    assert Allocation(records, 4).without("nonsense") == b""
