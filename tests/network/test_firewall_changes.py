"""A firewall changing under running guests: what is revoked is cut, what is deleted comes back, the rest is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.l2 import Ether

from agents.network import nft
from schema.network.wiring import AddressPair, Members, Quality
from tests.network.cabling import ANYTHING_OUT, Guest, Site, group, ingress, port_of
from tests.network.ovs_place import OvsSite

pytestmark = pytest.mark.live

OUT_ONLY = group("out", *ANYTHING_OUT)
SSH, WEB = ingress("tcp", 22), ingress("tcp", 80)


@pytest.fixture(params=[Site, OvsSite], ids=["linuxbridge", "ovs"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    with request.param() as site:
        yield site
        await site.firewall.close()


@pytest.fixture
def linux() -> Iterator[Site]:
    """Where rules and wiring are two parts, and the rules are nftables'."""
    with Site() as site:
        yield site


class Call:
    """A TCP connection from one guest to another, held open."""

    def __init__(self, caller: Guest, server: Guest, port: int) -> None:
        with server.listen(port) as listening:
            self.near = caller.socket()
            self.near.connect((server.ip, port))
            self.far, _ = listening.accept()

    def carries(self, seconds: float = 10.0) -> bool:
        self.far.settimeout(seconds)
        try:
            self.near.send(b"word")
            return bool(self.far.recv(100))
        except TimeoutError:
            return False

    def answers(self, seconds: float = 10.0) -> bool:
        """Something that the server said has come."""
        self.near.settimeout(seconds)
        try:
            return bool(self.near.recv(100))
        except TimeoutError:
            return False

    def close(self) -> None:
        for end in (self.near, self.far):
            end.close()


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    made: list[Call] = []
    yield made
    for call in made:
        call.close()


async def test_revoking_a_rule_cuts_its_connections_and_no_others(site: Site, calls: list[Call]) -> None:
    network = site.network()
    server = group("server", SSH, WEB)
    a, b = site.guest(network, 1, OUT_ONLY), site.guest(network, 2, server)
    c = site.guest(network, 3, group("other", SSH))
    await site.sweep()
    ssh, web, other = Call(a, b, 22), Call(a, b, 80), Call(a, c, 22)
    calls += [ssh, web, other]
    assert ssh.carries()
    assert await site.apply(replace(server, rules=(WEB,))) == {}
    assert not ssh.carries(seconds=1.0)
    assert web.carries()
    assert other.carries()


async def test_a_guest_that_answers_does_not_bring_back_what_was_cut(site: Site, calls: list[Call]) -> None:
    """Taken for a new connection, its next packet would be one that it may begin."""
    network = site.network()
    server = group("server", SSH, *ANYTHING_OUT)
    a, b = site.guest(network, 1, OUT_ONLY), site.guest(network, 2, server)
    await site.sweep()
    ssh = Call(a, b, 22)
    calls.append(ssh)
    assert ssh.carries()
    await site.apply(replace(server, rules=ANYTHING_OUT))
    for _ in range(3):
        ssh.far.send(b"answer")
        assert not ssh.answers(seconds=0.3)
    assert not ssh.carries(seconds=1.0)
    await site.restart()
    await site.sweep()
    assert not ssh.carries(seconds=1.0)
    await site.apply(server)
    assert ssh.answers()
    assert ssh.carries()


async def test_leaving_a_group_or_losing_a_member_cuts_too(site: Site, calls: list[Call]) -> None:
    network = site.network()
    inner = group("inner", ingress("tcp", remote_members="friends"))
    a, b = site.guest(network, 1, OUT_ONLY), site.guest(network, 2, inner)
    c = site.guest(network, 3, OUT_ONLY)
    friends = Members(id="friends", addresses=(a.ip, c.ip))
    site.pieces["members/friends"] = friends
    await site.sweep()
    first, second = Call(a, b, 22), Call(c, b, 22)
    calls += [first, second]
    await site.apply(replace(friends, addresses=(c.ip,)))
    assert not first.carries(seconds=1.0)
    assert second.carries()
    await site.apply(replace(b.port, group_ids=()))
    assert not second.carries(seconds=1.0)


async def test_a_revocation_while_the_agent_was_away_cuts_when_it_is_back(site: Site, calls: list[Call]) -> None:
    network = site.network()
    server = group("server", SSH, WEB)
    a, b = site.guest(network, 1, OUT_ONLY), site.guest(network, 2, server)
    await site.sweep()
    ssh, web = Call(a, b, 22), Call(a, b, 80)
    calls += [ssh, web]
    await site.restart()
    site.pieces["group/server"] = replace(server, rules=(WEB,))
    await site.sweep()
    assert not ssh.carries(seconds=1.0)
    assert web.carries()


async def test_an_agent_that_starts_anew_changes_nothing(site: Site, calls: list[Call]) -> None:
    network = site.network()
    a = site.guest(network, 1, OUT_ONLY, quality=Quality(dscp_mark=10))
    b = site.guest(network, 2, group("server", SSH, ingress("icmp", remote_members="friends")))
    site.pieces["members/friends"] = Members(id="friends", addresses=("10.0.0.1", "10.3.0.0/16", "fd00::/16"))
    await site.sweep()
    ssh = Call(a, b, 22)
    calls.append(ssh)
    before = await site.stamp()
    await site.restart()
    assert await site.sweep() == {}
    assert await site.stamp() == before
    assert ssh.carries()


@pytest.mark.parametrize(
    "harm",
    [
        "delete table bridge cumulog",
        "delete table inet cumulog",
        "flush chain bridge cumulog group-server-ingress",
        "flush chain bridge cumulog guard",
        "delete chain bridge cumulog receiving",
        "flush map bridge cumulog receivers",
        "flush set bridge cumulog macs",
        "flush set bridge cumulog secured",
        "flush ruleset",
        "insert rule bridge cumulog receiving accept",
        "insert rule bridge cumulog group-server-ingress tcp dport 23 accept",
        "chain bridge cumulog sending { policy drop; }",
        "add element bridge cumulog from4 { tapx . fa:16:3e:00:00:01 . 10.0.0.9 }",
        "add chain bridge cumulog theirs",
    ],
)
async def test_what_somebody_did_to_the_rules_is_put_right(linux: Site, harm: str) -> None:
    network = linux.network()
    a = linux.guest(network, 1, OUT_ONLY, kernel=False)
    b = linux.guest(network, 2, group("server", SSH), kernel=False)
    await linux.sweep()

    def fine() -> bool:
        head = Ether(src=a.mac, dst=b.mac) / IP(src=a.ip, dst=b.ip)
        spoofed = Ether(src=a.mac, dst=b.mac) / IP(src=b.ip, dst=b.ip) / TCP(dport=22)
        return a.arrivals(head / TCP(dport=22), head / TCP(dport=23), spoofed, at=b) == [True, False, False]

    assert fine()
    linux.space.call(nft.apply, harm)
    assert await linux.sweep() == {}
    assert fine()
    quiet = await linux.stamp()
    await linux.sweep()
    assert await linux.stamp() == quiet


async def test_a_tap_that_outlives_its_port_passes_nothing(linux: Site) -> None:
    network = linux.network()
    a, b = linux.guest(network, 1, OUT_ONLY), linux.guest(network, 2, group("server", SSH))
    c = linux.guest(network, 3, secured=False)
    await linux.sweep()
    with b.listen(22), c.listen(22):
        assert a.reaches(b, 22)
        await linux.drop(f"port/{b.port.id}", f"port/{c.port.id}", "group/server")
        for guest in (b, c):
            assert not a.reaches(guest, 22, seconds=0.3)
        with a.listen(9):
            assert not c.reaches(a, 9, seconds=0.3)
        await linux.restart()
        await linux.sweep()
        assert not a.reaches(b, 22, seconds=0.3)
        await linux.apply(b.port, group("server", SSH))
        assert a.reaches(b, 22)


async def test_large_packets_in_fragments_pass_and_are_judged_whole(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, OUT_ONLY, kernel=False)
    b = site.guest(network, 2, group("server", ingress("udp", 53)), kernel=False)
    await site.sweep()

    def pieces(port: int) -> list[Ether]:
        whole = IP(src=a.ip, dst=b.ip, id=port) / UDP(sport=9, dport=port) / (b"0123456789" * 300)
        return [Ether(src=a.mac, dst=b.mac) / IP(bytes(it)) for it in fragment(whole, 1400)]

    assert a.arrivals(*pieces(53), at=b) == [True] * 3
    assert a.arrivals(*pieces(54), at=b) == [False] * 3


async def test_a_port_marks_what_it_sends(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, OUT_ONLY, kernel=False, quality=Quality(dscp_mark=46))
    b = site.guest(network, 2, group("server", ingress("icmp")), kernel=False)
    await site.sweep()
    plain = Ether(src=a.mac, dst=b.mac) / IP(src=a.ip, dst=b.ip) / ICMP(type=8) / b"ping"
    marked = Ether(src=a.mac, dst=b.mac) / IP(src=a.ip, dst=b.ip, tos=46 << 2) / ICMP(type=8) / b"ping"
    with b._raw() as hearing:
        hearing.settimeout(5)
        a.send(plain)
        assert hearing.recv(2000) == bytes(marked)
    await site.apply(replace(a.port, quality=Quality()))
    assert a.arrivals(plain, at=b) == [True]


async def test_a_rule_that_cannot_be_said_spoils_no_other(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, OUT_ONLY, kernel=False)
    b = site.guest(network, 2, group("odd", ingress("no-such-protocol"), SSH), kernel=False)
    faults = await site.sweep()
    assert list(faults) == ["group/odd"]
    assert "no-such-protocol" in faults["group/odd"]
    assert a.arrivals(Ether(src=a.mac, dst=b.mac) / IP(src=a.ip, dst=b.ip) / TCP(dport=22), at=b) == [True]


async def test_a_port_the_kernel_refuses_is_shut_and_spoils_no_other(site: Site) -> None:
    network = site.network()
    server = group("server", SSH)
    a = site.guest(network, 1, OUT_ONLY, kernel=False)
    await site.sweep()
    b = site.guest(network, 2, server, kernel=False)
    refused = site.guest(network, 3, server, kernel=False)
    odd = AddressPair(ip="10.0.0.9", mac_address="no MAC at all")
    faults = await site.apply(server, b.port, replace(refused.port, address_pairs=(odd,)))
    assert list(faults) == [f"port/{refused.port.id}"]
    syns = {it.name: Ether(src=a.mac, dst=it.mac) / IP(src=a.ip, dst=it.ip) / TCP(dport=22) for it in (b, refused)}
    assert a.arrivals(syns[b.name], at=b) == [True]
    with pytest.raises(TimeoutError):
        a.arrivals(syns[refused.name], at=refused, seconds=0.3)
    assert await site.apply(refused.port) == {}
    assert a.arrivals(syns[refused.name], at=refused) == [True]


async def test_pairs_and_members_of_any_width_are_taken(site: Site) -> None:
    network = site.network()
    inner = group("inner", *ANYTHING_OUT, ingress(remote_members="inner"))
    cidrs = (
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.0/25",
        "10.1.2.128/25",
        "0.0.0.0/0",
        "::/0",
        "fd00::/8",
    )
    pairs = tuple(AddressPair(ip=it, mac_address=mac) for it in cidrs for mac in ("", "00:00:5e:00:01:01"))
    a = site.guest(network, 1, inner, kernel=False, address_pairs=pairs)
    b = site.guest(network, 2, inner, kernel=False)
    site.pieces["members/inner"] = Members(id="inner", addresses=(*cidrs, a.ip, b.ip))
    assert await site.sweep() == {}
    head = Ether(src=a.mac, dst=b.mac)
    anywhere = head / IP(src="192.0.2.77", dst=b.ip) / UDP()
    assert a.arrivals(anywhere, at=b) == [True]
    quiet = await site.stamp()
    await site.restart()
    await site.sweep()
    assert await site.stamp() == quiet
    few = tuple(AddressPair(ip=it, mac_address="") for it in cidrs[1:4])
    fewer = Members(id="inner", addresses=(*cidrs[2:5], b.ip))
    assert await site.apply(replace(a.port, address_pairs=few), fewer) == {}
    assert a.arrivals(anywhere, at=b) == [False]
    assert a.arrivals(head / IP(src="10.1.2.3", dst=b.ip) / UDP(), at=b) == [True]


async def test_rules_are_there_before_the_tap(linux: Site) -> None:
    network = linux.network()
    server = group("server", SSH)
    a = linux.guest(network, 1, OUT_ONLY)
    await linux.sweep()
    port = port_of(network, 2, server)
    assert await linux.apply(server, port) == {}
    b = linux._plug(network, port, kernel=True)
    with b.listen(22), b.listen(23):
        assert a.reaches(b, 22)
        assert not a.reaches(b, 23, seconds=0.3)


async def test_what_others_do_to_our_rules_is_noticed_and_nothing_else(linux: Site) -> None:
    noticed = asyncio.Event()
    await linux.firewall.start(noticed.set)
    try:
        network = linux.network()
        linux.guest(network, 1, OUT_ONLY)
        await linux.sweep()
        for number in range(2, 12):
            await linux.apply(port_of(network, number, OUT_ONLY))
        await linux.space.run(nft.apply, "add table inet theirs")
        await linux.apply(replace(OUT_ONLY, rules=(SSH,)))
        await asyncio.sleep(0)  # the kernel's words are read here
        await linux.space.run(nft.generation)
        assert not noticed.is_set()
        await linux.space.run(nft.apply, "delete table inet cumulog")
        async with asyncio.timeout(5):
            await noticed.wait()
        await linux.sweep()
        assert await linux.space.run(nft.listed, "inet", "cumulog")
    finally:
        await linux.firewall.close()
