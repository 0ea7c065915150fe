"""Neighbours are told where an address is: what is said, as others read it."""

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from agents.network.announcing import frames

MAC = "fa:16:3e:00:00:01"


def test_arp_says_it_as_a_question_and_as_an_answer():
    question, answer = (Ether(it) for it in frames("203.0.113.10", MAC))
    for it in (question, answer):
        assert (it.src, it.dst, it[ARP].psrc, it[ARP].pdst) == (MAC, "ff:ff:ff:ff:ff:ff", *2 * ("203.0.113.10",))
        assert it[ARP].hwsrc == MAC
    assert (question[ARP].op, answer[ARP].op) == (1, 2)


def test_ipv6_says_it_to_all_nodes_and_overrides_what_they_knew():
    (frame,) = (Ether(it) for it in frames("2001:db8::1", MAC))
    said = frame[ICMPv6ND_NA]
    assert (frame.src, frame.dst) == (MAC, "33:33:00:00:00:01")
    assert (frame[IPv6].src, frame[IPv6].dst, frame[IPv6].hlim) == ("2001:db8::1", "ff02::1", 255)
    assert (said.tgt, said.O, said.S, said.R) == ("2001:db8::1", 1, 0, 1)
    assert said[ICMPv6NDOptDstLLAddr].lladdr == MAC
    told = said.cksum
    del frame[ICMPv6ND_NA].cksum
    assert Ether(bytes(frame))[ICMPv6ND_NA].cksum == told
