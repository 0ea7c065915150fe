"""What a tenant is promised, on a cloud as `up` makes it: two hosts, real guests, everything by the public API.

The tests are one story on one cloud, in order: each leaves `near` and `far` as it found them.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from agents.network import namespace, nft
from agents.network.firewall_base import TABLE
from tests.network.real_cloud import HOSTS, OUTSIDE_IP, SWEEP_SECONDS, Guest, Net, RealCloud, run, standing, tcp, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning"),
]

HEALED_SECONDS = 2 * SWEEP_SECONDS + 10.0
"""A sweep, and what a guest needs to notice."""
SCRIPT = f"""#!/bin/sh
echo "user-data runs as $(id -un) on $(hostname)"
for try in $(seq 60); do echo from $(hostname) | nc -w 2 {OUTSIDE_IP} 9000 && break; sleep 1; done
"""
ECHO = "while true; do nc -l -p 9001 -e /bin/cat; done"
SERVED = "nslookup other.example.org && timeout 5 wget -q -O - http://169.254.169.254/openstack"
"""By what serves DHCP, too."""


@dataclass
class Story:
    cloud: RealCloud
    near: Guest
    """On the first host."""
    far: Guest
    """On the second one, in the same network."""
    other: Guest
    """On the first host, in a network of its own, booted from a config drive. What is broken is its."""
    net: Net
    others: Net
    group_id: str
    heard: dict[str, str]
    """Who called the world outside → the address it called from."""


@pytest.fixture(scope="module")
def story(free_port: Callable[[], int]) -> Iterator[Story]:
    with told(free_port()) as story:
        yield story


@contextmanager
def told(port: int, driver: str = "") -> Iterator[Story]:
    """The cloud with its guests, until nothing of it is left."""
    with standing(port, driver) as cloud:
        yield _begun(cloud)


def _begun(cloud: RealCloud) -> Story:
    group_id = cloud.group("open", {"protocol": "icmp"}, tcp(22), tcp(9001, remote_group_id="own"))
    net, others = cloud.net("net", "10.77.0.0/24"), cloud.net("others", "10.78.0.0/24")
    heard: dict[str, str] = {}
    listener = cloud.outside_socket()
    groups = {"security_groups": [{"name": "open"}]}
    other = cloud.boot("other", HOSTS[0], [{"uuid": others.network_id}], config_drive=True, script=SCRIPT, **groups)
    near = cloud.boot("near", HOSTS[0], [{"uuid": net.network_id}], script=SCRIPT, **groups)
    far = cloud.boot("far", HOSTS[1], [{"uuid": net.network_id}], **groups)
    for guest in (other, near, far):
        guest.active()
    far.published()
    with listener:
        listener.settimeout(180)
        while len(heard) < 2:
            connection, (ip, _) = listener.accept()
            with connection:
                heard[connection.makefile().readline().removeprefix("from ").strip()] = ip
    for guest in (near, other):
        guest.published()
    for guest in (near, far, other):
        guest.ready().reached()
    return Story(cloud, near, far, other, net, others, group_id, heard)


def test_guests_find_their_addresses_keys_and_user_data(story):
    assert f"eth0 has {story.near.ip}/24 by DHCP" in story.near.console
    assert "metadata from 169.254.169.254" in story.near.console
    assert "metadata from the config drive" in story.other.console
    for guest in (story.near, story.other):
        assert "user-data runs as root on" in guest.run("cat /var/log/user-data*")


def test_the_config_drive_carries_what_the_metadata_service_says(story):
    names = "meta_data.json user_data network_data.json vendor_data.json vendor_data2.json"
    url = "http://169.254.169.254/openstack/latest"
    said = story.other.run(
        f"for f in {names}; do timeout 9 wget -q -O /tmp/$f {url}/$f && cmp /tmp/$f /run/config/openstack/latest/$f"
        " && echo same; done"
    )
    assert said.split() == ["same"] * 5
    assert story.other.run("cat /tmp/user_data") == SCRIPT.strip()


def test_who_has_no_floating_ip_reaches_the_world_as_its_router(story):
    for net, name in ((story.net, "near"), (story.others, "other")):
        gateway = story.cloud.api.network.get_router(net.router_id).external_gateway_info
        assert story.heard[name] == gateway["external_fixed_ips"][0]["ip_address"]


def test_guests_on_two_hosts_find_each_other_by_name_and_fill_their_frames(story):
    near, far = story.near, story.far
    assert far.ip in near.run("nslookup far.example.org")
    assert near.run("cat /sys/class/net/eth0/mtu") == "1450"
    assert " 0% packet loss" in near.run("ping -c 3 -s 1422 far")
    sent = near.run("head -c 3000000 /dev/urandom > /tmp/sent; sha256sum < /tmp/sent")
    far.run("(sleep 60 | nc -l -p 9001 > /tmp/got) > /dev/null 2>&1 < /dev/null &")
    near.run(f"timeout 50 nc {far.ip} 9001 < /tmp/sent")
    until(lambda: far.run("sha256sum < /tmp/got") == sent, 20, "it did not arrive whole")


def test_a_group_without_ssh_lets_nobody_in(story):
    network, port = story.cloud.api.network, story.far.port_id
    closed = story.cloud.group("closed", {"protocol": "icmp"})
    network.update_port(port, security_groups=[closed])
    until(lambda: _refuses(story, story.far, 22), 20, "ssh is not refused")
    assert story.cloud.outside("ping", "-c", "2", "-W", "5", story.far.floating_ip).returncode == 0
    network.update_port(port, security_groups=[story.group_id])
    story.far.reached()
    network.delete_security_group(closed)


def test_a_revoked_rule_cuts_a_connection_that_stands(story):
    story.far.run(f"({ECHO}) > /dev/null 2>&1 < /dev/null &")
    rule = story.cloud.rule(story.group_id, **tcp(9001))

    def connected() -> socket.socket | None:
        with suppress(OSError):
            return story.cloud.call(story.far.floating_ip, 9001)
        return None

    with until(connected, 20, "the rule lets nobody in") as connection:
        until(lambda: _echoes(connection, b"before"), 20, "nobody answers")
        for number in range(20):  # and the guest is answering while it is revoked
            connection.sendall(b"under way %d\n" % number)
        story.cloud.api.network.delete_security_group_rule(rule)
        until(lambda: not _echoes(connection, b"on"), 10, "the connection goes on")
        until(lambda: _refuses(story, story.far, 9001), 10, "others are still let in")
        assert not any(_echoes(connection, b"again %d" % number) for number in range(4))


def test_a_second_card_is_plugged_in_and_finds_its_address(story):
    cloud, near = story.cloud, story.near
    second = cloud.net("second", "10.79.0.0/24", routed=False)
    cloud.openstack("server", "add", "network", near.id, second.network_id)
    [port] = until(lambda: list(cloud.api.network.ports(device_id=near.id, network_id=second.network_id)))
    ip = port.fixed_ips[0]["ip_address"]
    until(lambda: ip in near.run("ip -4 -o addr show dev eth1 || true"), 40, "the card has no address")
    assert near.run("cat /sys/class/net/eth1/address") == port.mac_address
    cloud.openstack("server", "remove", "network", near.id, second.network_id)
    until(lambda: "eth1" not in near.run("ls /sys/class/net"), 60, "the card is still there")
    until(lambda: cloud.api.network.find_port(port.id) is None)
    cloud.api.network.delete_network(second.network_id)


def delete_tap(story: Story) -> None:
    story.cloud.on(HOSTS[0], "ip", "link", "del", story.other.tap)


def delete_bridge(story: Story) -> None:
    story.cloud.on(HOSTS[0], "ip", "link", "del", story.others.bridge)


def delete_dhcp(story: Story) -> None:
    run("", "ip", "netns", "del", story.cloud.namespace_of(HOSTS[0], "d", story.others.network_id))


def delete_router(story: Story) -> None:
    for host in HOSTS:
        name = story.cloud.namespace_of(host, "r", story.others.router_id)
        if namespace.exists(name):
            run("", "ip", "netns", "del", name)


def delete_rules(story: Story) -> None:
    for family in ("bridge", "inet"):
        story.cloud.inside(HOSTS[0], nft.apply, f"delete table {family} {TABLE}")


@pytest.mark.parametrize("harm", [delete_tap, delete_bridge, delete_dhcp, delete_router, delete_rules])
def test_what_somebody_destroys_is_made_anew_and_touches_nobody_else(story, harm):
    destroyed(story, harm)


def destroyed(story: Story, harm: Callable[[Story], None]) -> None:
    """And made anew, soon, while `near` and `far` notice nothing."""
    before = story.cloud.inside(HOSTS[0], _rules)
    with story.near.pinging(story.far.ip) as pings:
        harm(story)
        harmed = time.monotonic()
        story.other.reached(HEALED_SECONDS)
        until(lambda: story.cloud.inside(HOSTS[0], _rules) == before, HEALED_SECONDS, "the rules are not back")
        until(lambda: story.other.try_run(SERVED).returncode == 0, HEALED_SECONDS, "no names, or no metadata")
        took = time.monotonic() - harmed
        until(lambda: _refuses(story, story.near, 9001), 10, "the rules do not hold")
    assert took < HEALED_SECONDS
    assert pings.all_answered(at_least=5)


def test_guests_whose_bridge_goes_come_back_by_themselves(story):
    story.cloud.on(HOSTS[0], "ip", "link", "del", story.net.bridge)
    story.near.reached(HEALED_SECONDS)
    assert " 0% packet loss" in story.near.run(f"ping -c 3 {story.far.ip}")


def test_a_host_that_was_cut_off_is_reached_again(story):
    link = ("ip", "link", "set", "f2")
    with story.near.pinging(story.far.ip) as pings:
        run(story.cloud.fabric.outside, *link, "down")
        until(lambda: story.near.try_run(f"ping -c 1 -W 1 {story.far.ip}").returncode != 0, 10, "it is not cut off")
        run(story.cloud.fabric.outside, *link, "up")
        restored = time.monotonic()
        until(lambda: story.near.try_run(f"ping -c 1 -W 1 {story.far.ip}").returncode == 0, HEALED_SECONDS)
        assert time.monotonic() - restored < HEALED_SECONDS
    assert pings.missing


def test_a_killed_process_comes_back_and_finishes_what_it_began(story):
    cloud = story.cloud
    victim = cloud.person.pids()["all"]
    with story.near.pinging(story.far.ip) as pings:
        enough = time.monotonic() + 5  # for twenty of them, however fast all that is
        third = cloud.boot("third", HOSTS[1], [{"uuid": story.net.network_id}])
        [port] = until(lambda: list(cloud.api.network.ports(device_id=third.id)))
        until(lambda: cloud.api.network.get_port(port.id).binding_host_id == HOSTS[1], 30)
        os.kill(victim, signal.SIGKILL)
        until(lambda: cloud.person.pids().get("all", victim) != victim, 30, "nobody starts it again")
        until(lambda: cloud.person.types("status").returncode == 0, 60)
        third.active()
        until(lambda: cloud.api.network.get_port(port.id).status == "ACTIVE", 30, "the port is not wired")
        until(lambda: time.monotonic() > enough)
    assert pings.all_answered(at_least=20)
    third.ready()
    cloud.delete(third)


def test_a_cloud_that_stops_and_starts_touches_no_guest(story):
    with story.near.pinging(story.far.ip) as pings:
        enough = time.monotonic() + 5  # for thirty of them, however fast it stops and starts
        story.cloud.types("down")
        story.cloud.types("up")
        story.other.reached()
        assert {guest.status for guest in (story.near, story.far, story.other)} == {"ACTIVE"}
        until(lambda: time.monotonic() > enough)
    assert pings.all_answered(at_least=30)


def test_a_guest_moves_while_it_runs_and_its_network_goes_with_it(story):
    """There and back: what it runs goes on, and of ten pings a second fewer than ten are lost each time."""
    near = story.near
    near.run("(while true; do date +%s >> /tmp/ticks; sleep 1; done) > /dev/null 2>&1 < /dev/null &")
    boot = near.run("cat /proc/sys/kernel/random/boot_id")
    for target in HOSTS[::-1]:
        with story.far.pinging(near.ip) as pings:
            assert story.cloud.openstack("server", "migrate", "--live-migration", "--host", target, near.id) == ""
            _moved(story, target, "ACTIVE")
            near.reached()
        assert len(pings.missing) < 10, f"{len(pings.missing)} of {pings.sent} were lost: {pings.missing}"
    assert near.run("cat /proc/sys/kernel/random/boot_id") == boot
    ticks = [int(it) for it in near.run("cat /tmp/ticks").split()]
    assert max(b - a for a, b in pairwise(ticks)) < 10


def test_a_guest_becomes_larger_on_another_host_and_goes_back(story):
    near, cloud = story.near, story.cloud
    near.run("echo remember > /home/cumulog/note; sync")
    cloud.openstack("flavor", "create", "m1.more", "--ram", "256", "--disk", "2", "--vcpus", "1")
    cloud.openstack("server", "resize", "--flavor", "m1.more", near.id)
    host = _moved(story, "", "VERIFY_RESIZE")
    near.reached(120)
    assert near.run("cat /home/cumulog/note") == "remember"
    assert int(near.run("cat /sys/block/vda/size")) * 512 == 2 * 1024**3
    cloud.openstack("server", "resize", "revert", near.id)
    assert _moved(story, HOSTS[0], "ACTIVE") == HOSTS[0]
    near.reached(120)
    assert near.run("cat /home/cumulog/note") == "remember"
    assert int(near.run("cat /sys/block/vda/size")) * 512 < 2 * 1024**3
    if host != HOSTS[0]:
        until(lambda: not _guest_folder(story, host, near.id).exists(), 30, "files are left")


def _moved(story: Story, host: str, status: str) -> str:
    """Until the guest that moves has that status, on that host if one is named, and left no files anywhere else."""
    near, api = story.near, story.cloud.api

    def settled() -> str:
        server = api.compute.get_server(near.id)
        assert server.status != "ERROR", server.fault
        there = server.status == status and server.task_state is None and host in {"", server.compute_host}
        return str(server.compute_host) if there else ""

    near.host = until(settled, 150, f"it is not {status}")
    if status == "ACTIVE":
        for other in set(HOSTS) - {near.host}:
            left = _guest_folder(story, other, near.id)
            until(lambda left=left: not left.exists(), 30, "files are left")
    return near.host


def _guest_folder(story: Story, host: str, id: str) -> Path:
    return story.cloud.person.home / "hosts" / host / "guests" / id


def test_a_server_that_goes_leaves_nothing(story):
    cloud, other, host = story.cloud, story.other, HOSTS[0]
    cloud.delete(other)
    assert cloud.api.network.find_port(other.port_id) is None
    until(lambda: other.tap not in cloud.on(host, "ip", "-o", "link"), what="the tap is still there")
    assert not (cloud.person.home / "hosts" / host / "guests" / other.id).exists()
    network = cloud.api.network
    for ip in network.ips(floating_ip_address=other.floating_ip):
        network.delete_ip(ip.id)
    network.remove_interface_from_router(story.others.router_id, subnet_id=story.others.subnet_id)
    network.delete_router(story.others.router_id)
    network.delete_network(story.others.network_id)
    things = [story.others.network_id[:11], story.others.router_id[:11]]
    until(lambda: not [it for it in namespace.names("cl-") if any(id in it for id in things)], what="a namespace stays")
    for each in HOSTS:
        until(lambda each=each: story.others.bridge not in cloud.on(each, "ip", "-o", "link"), what="a bridge stays")


def test_a_machine_that_was_restarted_has_all_its_guests_again(story):
    cloud = story.cloud
    cloud.types("down")
    cloud.fabric.remove()  # with every guest: nothing of a namespace survives a restart
    cloud.types("up")
    for guest in (story.near, story.far):
        until(lambda guest=guest: guest.status == "ACTIVE" and guest.runs, 60, "it does not run")
        guest.reached(150)
    assert " 0% packet loss" in story.near.run(f"ping -c 3 {story.far.ip}")


def test_guests_that_were_shut_down_with_the_cloud_can_be_started_again(story):
    cloud = story.cloud
    cloud.types("down", "--guests")
    assert not namespace.names(cloud.fabric.outside.removesuffix("outside"))
    cloud.types("up")
    assert {guest.status for guest in (story.near, story.far)} == {"SHUTOFF"}
    cloud.api.compute.start_server(story.near.id)
    until(lambda: story.near.status == "ACTIVE", 60)
    story.near.reached(150)


def _echoes(connection: socket.socket, word: bytes) -> bool:
    """Whether this comes back, whatever came before it: an emulated guest may take its time."""
    connection.settimeout(2)
    heard = b""
    with suppress(OSError):
        connection.sendall(word + b"\n")
        while word + b"\n" not in heard:
            if not (more := connection.recv(4096)):
                return False
            heard += more
        return True
    return False


def _refuses(story: Story, guest: Guest, port: int) -> bool:
    """Whether its group lets nobody in from outside; by silence, which a guest itself would not answer with."""
    try:
        story.cloud.call(guest.floating_ip, port, seconds=1).close()
    except TimeoutError:
        return True
    except OSError:
        return False
    return False


def _rules() -> list[tuple[str, str]]:
    """What stands in the tables of the namespace this thread is in, without what is counted or numbered."""
    listed = [it for family in ("bridge", "inet") for it in nft.listed(family, TABLE) or []]
    return sorted((kind, str(what.get("name") or what.get("comment"))) for it in listed for kind, what in it.items())
