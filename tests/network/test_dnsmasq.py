"""What dnsmasq is given to read, without dnsmasq."""

from __future__ import annotations

import msgspec

from agents.network import dnsmasq
from schema.network.wiring import Address, DhcpOption, HostRoute
from tests.network.dhcp_place import network, port, subnet

FOUR = subnet("s4", "10.1.0.0/24", gateway_ip="10.1.0.1")
SIX = subnet("s6", "2001:db8::/64", ipv6_address_mode="dhcpv6-stateful", ipv6_ra_mode="dhcpv6-stateful")


def lines(net):
    return dnsmasq.configuration(net, "q1", 3, "/f").splitlines()


def test_nothing_is_ever_asked_of_the_machines_own_resolver():
    assert {"no-resolv", "no-hosts"} <= set(lines(network("n", FOUR)))
    assert not any(line.startswith("server=") for line in lines(network("n", FOUR)))


def test_nameservers_of_a_subnet_are_told_and_asked():
    net = network("n", subnet("s4", "10.1.0.0/24", dns_nameservers=("192.0.2.53", "2001:db8::53")))
    assert "dhcp-option=tag:s4,option:dns-server,192.0.2.53" in lines(net)
    assert {"server=192.0.2.53", "server=2001:db8::53"} <= set(lines(net))


def test_without_a_gateway_there_is_no_default_route():
    net = network("n", subnet("s4", "10.1.0.0/24"))
    assert "dhcp-option=tag:s4,option:router" in lines(net)
    assert "dhcp-option=tag:s4,option:classless-static-route,169.254.169.254/32,10.1.0.2" in lines(net)


def test_a_default_route_of_ones_own_is_not_doubled():
    routes = (HostRoute(destination="0.0.0.0/0", nexthop="10.1.0.9"),)
    net = network("n", subnet("s4", "10.1.0.0/24", gateway_ip="10.1.0.1", host_routes=routes))
    told = next(line for line in lines(net) if "classless-static-route" in line)
    assert told.count("0.0.0.0/0") == 1
    assert "0.0.0.0/0,10.1.0.9" in told


def test_other_subnets_of_the_network_are_on_the_link():
    told = next(line for line in lines(network("n", FOUR, subnet("s5", "10.5.0.0/24"))) if "static-route" in line)
    assert "10.5.0.0/24,0.0.0.0" in told


def test_subnets_without_dhcp_are_left_alone():
    net = network("n", FOUR, subnet("s5", "10.5.0.0/24", dhcp=False))
    assert not any("10.5.0.0" in line for line in lines(net))
    assert dnsmasq.unserved(net) == []


def test_a_port_has_one_line_for_both_families_and_one_more_for_each_further_address():
    net = network("n", FOUR, SIX)
    one = port("p", net, 10, hostname="web")
    more = (*one.addresses, Address(ip="10.1.0.77", subnet_id="s4", prefix_length=24))
    told = dnsmasq.files_of_port(net, msgspec.structs.replace(one, addresses=more)).hosts
    assert told == ("fa:16:3e:00:01:0a,set:p,[2001:db8::a],10.1.0.10,web\nfa:16:3e:00:01:0a,set:p,10.1.0.77,web\n")


def test_an_address_the_guest_makes_itself_is_named_but_not_leased():
    slaac = subnet("s6", "2001:db8::/64", ipv6_address_mode="slaac", ipv6_ra_mode="slaac")
    net = network("n", slaac)
    files = dnsmasq.files_of_port(net, port("p", net, 10, hostname="web"))
    assert files.hosts == ""
    assert files.names == "2001:db8::a web.openstacklocal web\n"


def test_what_a_person_wrote_stays_in_its_place():
    """Lines of their own, paths, tags of another port: none of it comes through."""
    net = network("n", FOUR, dns_domain="x\nserver=192.0.2.1")
    options = (
        DhcpOption(name="bootfile-name", value="a\ndhcp-script=/bin/sh"),
        DhcpOption(name="x,tag:q", value="v"),
        DhcpOption(name="tftp-server", value="192.0.2.9"),
    )
    files = dnsmasq.files_of_port(net, port("p", net, 10, hostname="web\nevil,10.1.0.66", dhcp_options=options))
    assert files.options == "tag:p,option:tftp-server,192.0.2.9\n"
    assert files.names == "10.1.0.10 host-10-1-0-10.openstacklocal host-10-1-0-10\n"
    assert files.hosts.count("\n") == 1
    assert "evil" not in files.hosts
    assert not any("192.0.2.1" in line for line in lines(net))
