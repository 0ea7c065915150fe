"""What a router's namespace must hold: feet, routes, and who is turned into whom on the way."""

from msgspec.structs import replace

from agents.network.dnsmasq import METADATA_ADDRESS
from agents.network.router_connections import Translated, Verdict
from agents.network.router_rules import MAIN, METADATA_TABLE, Way, layout
from schema.network.wiring import (
    Address,
    FloatingAddress,
    Forwarding,
    HostRoute,
    RouterPort,
    SiteConnection,
    WiredNetwork,
    WiredRouter,
    WiredSubnet,
)

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
    ways = {way for way in layout(router).ways if way.table == MAIN}
    assert ways == {
        Way("0.0.0.0/0", "203.0.113.1", "qbbbbbbbb-bb"),
        Way("192.0.2.0/24", "10.0.0.9"),
    }


def test_what_else_lies_on_the_gateways_link_is_reached_there():
    subnets = (
        WiredSubnet(id="t", cidr="203.0.113.0/24", ip_version=4),
        WiredSubnet(id="u", cidr="198.51.100.0/24", ip_version=4),
        WiredSubnet(id="v", cidr="2001:db8::/64", ip_version=6),
    )
    ways = layout(router, {"public": WiredNetwork(id="public", subnets=subnets)}).ways
    assert Way("198.51.100.0/24", interface="qbbbbbbbb-bb") in ways
    assert not any(way.destination in {"203.0.113.0/24", "2001:db8::/64"} for way in ways)


def test_of_several_ways_to_one_place_one_is_taken_and_the_routers_own_before_the_gateways():
    routes = tuple(
        HostRoute(destination=destination, nexthop=f"10.0.0.{number}")
        for destination in ("0.0.0.0/0", "192.0.2.0/24", "10.0.0.0/24")
        for number in (9, 8)
    )
    ways = {way for way in layout(replace(router, routes=routes)).ways if way.table == MAIN}
    assert ways == {Way("0.0.0.0/0", "10.0.0.8"), Way("192.0.2.0/24", "10.0.0.8")}


def test_metadata_answers_only_on_the_links_of_its_own_subnets():
    ways = {way for way in layout(router).ways if way.table == METADATA_TABLE}
    assert ways == {
        Way("10.0.0.0/24", interface="qaaaaaaaa-aa", table=METADATA_TABLE),
        Way("0.0.0.0/0", table=METADATA_TABLE),
    }
    assert f'iifname "qbbbbbbbb-bb" ip daddr {METADATA_ADDRESS} drop' in layout(router).rules


def test_what_belongs_into_a_tunnel_never_goes_out_beside_it():
    connection = SiteConnection(
        id="c",
        local_ip="203.0.113.10",
        local_id="a",
        peer_address="203.0.113.30",
        peer_id="b",
        local_cidrs=("10.0.0.0/24", "10.0.0.0/25"),
        peer_cidrs=("10.7.0.0/24", "2001:db8::/64"),
    )
    rule = 'oifname "qbbbbbbbb-bb" ip saddr { 10.0.0.0/24 } ip daddr { 10.7.0.0/24 } drop'
    assert rule in layout(replace(router, connections=(connection,))).rules
    assert rule not in layout(replace(router, connections=(replace(connection, admin_up=False),))).rules


def test_connections_go_on_as_long_as_they_would_be_led_the_same_way():
    verdict = Verdict(router)
    inwards = Translated(6, "192.0.2.1", "203.0.113.20", 22, "10.0.0.5", "192.0.2.1", 22)
    forwarded = Translated(6, "192.0.2.1", "203.0.113.21", 2202, "10.0.0.6", "192.0.2.1", 23)
    outwards = Translated(6, "10.0.0.5", "192.0.2.1", 80, "192.0.2.1", "203.0.113.20", 80)
    hidden = Translated(6, "10.0.0.8", "192.0.2.1", 80, "192.0.2.1", "203.0.113.10", 80)
    plain = Translated(17, "10.0.0.8", "10.3.0.1", 53, "10.3.0.1", "10.0.0.8", 53)
    assert all(verdict.stands(it) for it in (inwards, forwarded, outwards, hidden, plain))
    later = Verdict(replace(router, floating=(), forwardings=(), snat=False))
    assert [it for it in (inwards, forwarded, outwards, hidden, plain) if later.stands(it)] == [plain]
    assert not verdict.stands(inwards._replace(answered_from="10.0.0.9"))
    assert not verdict.stands(forwarded._replace(answered_port=22))


def test_a_floating_address_is_turned_both_ways():
    rules = layout(router).rules
    assert "elements = { 203.0.113.20 : 10.0.0.5 }" in rules
    assert "elements = { 10.0.0.5 : 203.0.113.20 }" in rules


def test_a_range_goes_port_by_port():
    assert "2201-2202 dnat ip to 10.0.0.6 : tcp dport map { 2201 : 22, 2202 : 23 }" in layout(router).rules


def test_everybody_else_goes_out_as_the_gateway_unless_told_not_to():
    outwards = 'oifname "qbbbbbbbb-bb" ip saddr != 203.0.113.10 snat ip to 203.0.113.10'
    assert outwards in layout(router).rules
    assert outwards not in layout(WiredRouter(id="r", generation=2, ports=(inner,), gateway=outer, snat=False)).rules


def test_one_that_is_switched_off_has_nothing():
    off = layout(WiredRouter(id="r", generation=2, admin_up=False, ports=(inner,), gateway=outer))
    assert (off.feet, off.ways) == ({}, frozenset())
    assert "snat" not in off.rules


def test_what_is_in_the_scope_of_the_outside_is_not_translated():
    scoped = replace(router, scopes={"s": "here", "t": "here"})
    lines = [line.strip() for line in layout(scoped).rules.splitlines()]
    accepted = 'oifname "qbbbbbbbb-bb" ip saddr { 10.0.0.0/24 } accept'
    translated = 'oifname "qbbbbbbbb-bb" ip saddr != 203.0.113.10 snat ip to 203.0.113.10'
    floating = 'oifname "qbbbbbbbb-bb" snat ip to ip saddr map @outwards'
    assert lines.index(floating) < lines.index(accepted) < lines.index(translated)
    for scopes in ({}, {"s": "here"}, {"s": "here", "t": "there"}, {"t": "there"}):
        assert accepted not in layout(replace(router, scopes=scopes)).rules


def test_who_was_translated_and_would_not_be_by_now_begins_anew():
    hidden = Translated(6, "10.0.0.8", "192.0.2.1", 80, "192.0.2.1", "203.0.113.10", 80)
    floating = Translated(6, "10.0.0.5", "192.0.2.1", 80, "192.0.2.1", "203.0.113.20", 80)
    forwarded = Translated(6, "10.0.0.8", "203.0.113.20", 22, "10.0.0.5", "203.0.113.10", 22)
    plain = Translated(6, "10.0.0.8", "192.0.2.1", 80, "192.0.2.1", "10.0.0.8", 80)
    scoped = Verdict(replace(router, scopes={"s": "here", "t": "here"}))
    assert [scoped.stands(it) for it in (hidden, floating, forwarded, plain)] == [False, True, True, True]
    assert Verdict(replace(router, scopes={"s": "here"})).stands(hidden)


def test_nothing_is_routed_from_one_scope_into_another():
    second = RouterPort(
        port_id="cccccccc-cccc-1",
        network_id="m",
        mac_address="fa:16:3e:00:00:03",
        addresses=(Address(ip="10.1.0.1", subnet_id="u", prefix_length=24),),
    )
    two = replace(router, ports=(inner, second))
    apart = 'iifname { "qaaaaaaaa-aa" } oifname { "qcccccccc-cc" } ct status & dnat == 0 drop'
    for gateway in (outer, None):
        scoped = replace(two, gateway=gateway, scopes={"s": "here", "t": "here"})
        assert f"meta nfproto ipv4 {apart}" in layout(scoped).rules
        assert apart not in layout(replace(scoped, scopes={"s": "here", "u": "here"})).rules
        assert apart not in layout(replace(scoped, scopes={})).rules
    inwards = 'iifname "qbbbbbbbb-bb" oifname { "qcccccccc-cc" } ct state new'
    outwards = 'iifname { "qcccccccc-cc" } oifname "qbbbbbbbb-bb" ip saddr != { 10.0.0.5 } ct state new drop'
    scoped = replace(two, scopes={"s": "here", "t": "here"})
    assert inwards in layout(scoped).rules
    assert outwards not in layout(scoped).rules
    assert outwards in layout(replace(scoped, snat=False)).rules
