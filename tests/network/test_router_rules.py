"""What a router's namespace must hold: feet, routes, and who is turned into whom on the way."""

from agents.network.router_rules import Way, layout
from schema.network.wiring import Address, FloatingAddress, Forwarding, HostRoute, RouterPort, WiredRouter

inner = RouterPort(
    port_id="aaaaaaaa-aaaa-1",
    network_id="n",
    mac_address="fa:16:3e:00:00:01",
    addresses=(Address(ip="10.0.0.1", subnet_id="s", prefix_length=24),),
)
outer = RouterPort(
    port_id="bbbbbbbb-bbbb-1",
    network_id="public",
    mac_address="fa:16:3e:00:00:02",
    addresses=(Address(ip="203.0.113.10", subnet_id="t", prefix_length=24),),
)
router = WiredRouter(
    id="r",
    generation=1,
    ports=(inner,),
    gateway=outer,
    gateway_ips=("203.0.113.1",),
    floating=(FloatingAddress(id="f", floating_ip="203.0.113.20", fixed_ip="10.0.0.5"),),
    forwardings=(
        Forwarding(
            id="p",
            floating_ip="203.0.113.21",
            protocol="tcp",
            external_port=2201,
            external_port_end=2202,
            internal_ip="10.0.0.6",
            internal_port=22,
            internal_port_end=23,
        ),
    ),
    routes=(HostRoute(destination="192.0.2.0/24", nexthop="10.0.0.9"),),
)


def test_it_has_a_foot_in_each_network_and_holds_the_addresses_it_answers_for():
    feet = layout(router).feet
    assert feet["qaaaaaaaa-aa"].addresses == {"10.0.0.1/24"}
    assert feet["qbbbbbbbb-bb"].addresses == {"203.0.113.10/24", "203.0.113.20/32", "203.0.113.21/32"}
    assert feet["qbbbbbbbb-bb"].gateway


def test_it_leads_out_by_its_gateway_and_where_it_is_told():
    assert layout(router).ways == {
        Way("0.0.0.0/0", "203.0.113.1", "qbbbbbbbb-bb"),
        Way("192.0.2.0/24", "10.0.0.9"),
    }


def test_a_floating_address_is_turned_both_ways():
    rules = layout(router).rules
    assert "elements = { 203.0.113.20 : 10.0.0.5 }" in rules
    assert "elements = { 10.0.0.5 : 203.0.113.20 }" in rules


def test_a_range_goes_port_by_port():
    assert "2201-2202 dnat ip to 10.0.0.6 : tcp dport map { 2201 : 22, 2202 : 23 }" in layout(router).rules


def test_everybody_else_goes_out_as_the_gateway_unless_told_not_to():
    outwards = 'oifname "qbbbbbbbb-bb" ip saddr @inside snat ip to 203.0.113.10'
    assert outwards in layout(router).rules
    assert outwards not in layout(WiredRouter(id="r", generation=2, ports=(inner,), gateway=outer, snat=False)).rules


def test_one_that_is_switched_off_has_nothing():
    off = layout(WiredRouter(id="r", generation=2, admin_up=False, ports=(inner,), gateway=outer))
    assert (off.feet, off.ways) == ({}, frozenset())
    assert "snat" not in off.rules
