"""What strongSwan is told of a connection, and how."""

import pytest
from msgspec.structs import replace

from agents.network.vici import decode, encode
from agents.network.vpn_rules import Unfit, connection_of, loaded, settings, tunnel_mtu
from schema.network.wiring import (
    IkePolicyWords,
    IpsecPolicyWords,
    PreSharedKey,
    RouterPort,
    SiteConnection,
    WiredRouter,
)

connection = SiteConnection(
    id="c",
    local_ip="203.0.113.10",
    local_id="east",
    peer_address="vpn.example.org",
    peer_id="west",
    local_cidrs=("10.1.0.0/24", "10.2.0.0/24"),
    peer_cidrs=("10.7.0.0/24",),
    psk=PreSharedKey(key="secret"),
)


def child(it, name="net0"):
    return loaded(it).connection["children"][name]


def test_a_message_is_read_as_it_was_written():
    message = {"a": "one", "b": ["two", "", "drei · 3"], "c": {"d": {}, "e": {"f": "x" * 300}}}
    assert decode(encode(message)) == message
    assert encode({"a": "b", "l": ["c"], "s": {}}) == b"\x03\x01a\x00\x01b\x04\x01l\x05\x00\x01c\x06\x01\x01s\x02"


def test_both_sides_are_said_with_their_names():
    said = loaded(connection).connection
    assert (said["local_addrs"], said["remote_addrs"]) == (["203.0.113.10"], ["vpn.example.org"])
    assert (said["local"]["id"], said["remote"]["id"]) == ("east", "west")
    assert loaded(connection).shared["owners"] == ["east", "west"]
    assert (child(connection)["local_ts"], child(connection)["remote_ts"]) == (
        ["10.1.0.0/24", "10.2.0.0/24"],
        ["10.7.0.0/24"],
    )


def test_the_old_protocol_has_a_child_for_each_pair_of_networks():
    old = loaded(replace(connection, ike=IkePolicyWords(version="v1")))
    assert old.children == 2
    assert [it["local_ts"] for it in old.connection["children"].values()] == [["10.1.0.0/24"], ["10.2.0.0/24"]]


@pytest.mark.parametrize(
    "cipher, digest, group, ike, esp",
    [
        ("aes-256", "sha256", "group14", "aes256-sha256-modp2048", "aes256-sha256-modp2048"),
        ("3des", "sha1", "group2", "3des-sha1-modp1024", "3des-sha1-modp1024"),
        ("aes-128-gcm-16", "sha512", "group20", "aes128gcm16-prfsha512-ecp384", "aes128gcm16-ecp384"),
        ("aes-192-ccm-8", "aes-xcbc", "group31", "aes192ccm8-prfaesxcbc-curve25519", "aes192ccm8-curve25519"),
        ("aes-128-ctr", "aes-cmac", "group5", "aes128ctr-aescmac-modp1536", "aes128ctr-aescmac-modp1536"),
    ],
)
def test_policies_become_proposals(cipher, digest, group, ike, esp):
    of_ike = IkePolicyWords(encryption_algorithm=cipher, auth_algorithm=digest, pfs=group)
    of_ipsec = IpsecPolicyWords(encryption_algorithm=cipher, auth_algorithm=digest, pfs=group)
    it = replace(connection, ike=of_ike, ipsec=of_ipsec)
    assert loaded(it).connection["proposals"] == [ike]
    assert child(it)["esp_proposals"] == [esp]


@pytest.mark.parametrize(
    "initiator, action, dead, closed, start",
    [
        ("bi-directional", "hold", "restart", "start", "start"),
        ("bi-directional", "restart-by-peer", "restart", "start", "start"),
        ("bi-directional", "clear", "clear", "none", "start"),
        ("response-only", "hold", "clear", "none", "none"),
    ],
)
def test_a_dead_peer_is_called_again_by_who_calls(initiator, action, dead, closed, start):
    said = child(replace(connection, initiator=initiator, dpd_action=action))
    assert (said["dpd_action"], said["close_action"], said["start_action"]) == (dead, closed, start)
    assert loaded(replace(connection, dpd_action="disabled")).connection["dpd_delay"] == "0s"


def test_keys_are_renewed_before_they_lapse():
    it = replace(connection, ike=IkePolicyWords(lifetime_seconds=7200), ipsec=IpsecPolicyWords(lifetime_seconds=60))
    said = loaded(it).connection
    assert (said["rekey_time"], said["over_time"]) == ("6480s", "720s")
    assert (child(it)["rekey_time"], child(it)["life_time"]) == ("54s", "60s")


def test_whatever_is_changed_has_another_name():
    names = {
        loaded(it).name
        for it in (
            connection,
            replace(connection, psk=PreSharedKey(key="other")),
            replace(connection, peer_cidrs=("10.8.0.0/24",)),
            replace(connection, dpd_interval_seconds=5),
        )
    }
    assert len(names) == 4
    assert {connection_of(name) for name in names} == {"c"}


@pytest.mark.parametrize(
    "change, why",
    [
        ({"ipsec": IpsecPolicyWords(transform_protocol="ah")}, "ah"),
        ({"ipsec": IpsecPolicyWords(encapsulation_mode="transport")}, "transport"),
        ({"ike": IkePolicyWords(encryption_algorithm="rot13")}, "rot13"),
        ({"ike": IkePolicyWords(pfs="group99")}, "group99"),
        ({"local_ip": ""}, "no address outside"),
        ({"psk": PreSharedKey()}, "pre-shared key"),
    ],
)
def test_what_cannot_be_done_is_said(change, why):
    with pytest.raises(Unfit, match=why):
        loaded(replace(connection, **change))


def test_a_tunnel_lets_through_what_fits_into_it():
    gateway = RouterPort(port_id="g", network_id="n", mac_address="m", addresses=(), mtu=1500)
    router = WiredRouter(id="r", generation=1, gateway=gateway, connections=(connection,))
    assert tunnel_mtu(router) == 1400
    assert tunnel_mtu(replace(router, connections=(replace(connection, mtu=1300),))) == 1300
    assert tunnel_mtu(replace(router, gateway=replace(gateway, mtu=1450))) == 1350


def test_the_daemon_is_shut_in():
    text = settings("/folder", "/folder/vici", "qgateway")
    for line in (
        "socket = unix:///folder/vici",
        "path = /folder/log",
        "interfaces_use = qgateway",
        "install_routes = no",
    ):
        assert line in text
    assert text.index("kernel-libipsec") < text.index("kernel-netlink")
