"""What real guests get, and what a port takes through the whole cloud: python bench/guests.py [PORTS]        (as root)

A cloud of its own, `up --hypervisor libvirt --hosts 2`, with a guest on each host. Their TCP goes over VXLAN with rules
and all; then the cloud is stopped, which no guest notices, and the same two taps are put on one plain bridge. What
arrived is counted at the receiver's tap. Ports are ordered by HTTP and are done when HTTP shows them ACTIVE.
"""

import http.client
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from agents.network import namespace
from tests.cli.conftest import Person
from tests.network.real_cloud import HOSTS, Guest, Net, RealCloud, run, tcp

PORTS = 50
ROUNDS = 5
SECONDS = 4.0


def main(count: int, folder: Path) -> None:
    cloud = RealCloud(Person(folder / "home", 28774))
    plain = f"{cloud.fabric.outside}-plain"
    try:
        cloud.up()
        cloud.import_key()
        cloud.group("open", {"protocol": "icmp"}, tcp(22), tcp(9001))
        net = cloud.net("net", "10.77.0.0/24")
        _ports(cloud, net, count)
        near, far = (
            cloud.boot(f"guest-{n}", host, [{"uuid": net.network_id}], security_groups=[{"name": "open"}])
            for n, host in enumerate(HOSTS)
        )
        for guest in (near, far):
            guest.active().published().ready().reached()
        tunnelled = _throughput(near, far, str(cloud.place(far.host).namespace))
        print(f"TCP, two guests on two hosts, over VXLAN, rules and all   {_rates(tunnelled)}")
        cloud.types("down")
        _put_on_a_plain_bridge(cloud, plain, near, far)
        for guest in (near, far):
            guest.floating_ip, guest.side = guest.ip, plain
        bridged = _throughput(near, far, plain)
        print(f"TCP, the same two taps on one plain bridge                {_rates(bridged)}")
        share, best = statistics.median(tunnelled) / statistics.median(bridged), max(tunnelled) / max(bridged)
        print(f"over VXLAN against the plain bridge                       p50 {share:4.0%}   best {best:4.0%}")
    finally:
        cloud.person.types("down")
        cloud.fabric.remove()


def _ports(cloud: RealCloud, net: Net, count: int) -> None:
    """POST with binding:host_id → 201, and → GET shows it ACTIVE."""
    connection = http.client.HTTPConnection(cloud.person.listen)
    headers = {"X-Auth-Token": cloud.api.auth_token, "Content-Type": "application/json"}

    def call(method: str, path: str, body: object = None) -> dict[str, dict[str, str]]:
        connection.request(method, f"/networking/v2.0{path}", json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        found: dict[str, dict[str, str]] = json.loads(text) if text else {}
        return found

    answered, wired = [], []
    for number in range(count + 1):
        port = {"network_id": net.network_id, "binding:host_id": HOSTS[number % 2], "device_owner": "compute:nova"}
        started = time.perf_counter()
        id = call("POST", "/ports", {"port": port})["port"]["id"]
        answered.append((time.perf_counter() - started) * 1000)
        while call("GET", f"/ports/{id}?fields=status")["port"]["status"] != "ACTIVE":
            assert time.perf_counter() - started < 30, "it is not wired"
        wired.append((time.perf_counter() - started) * 1000)
    for what, times in (("POST /ports → 201", answered), ("POST /ports → ACTIVE", wired)):
        later = sorted(times[1:])  # the first makes bridge, tunnel, namespace and dnsmasq
        p50, p95 = statistics.median(later), later[int(0.95 * len(later))]
        print(f"{what:57} p50 {p50:7.1f} ms   p95 {p95:7.1f} ms   first of its network {times[0]:7.1f} ms")


def _throughput(near: Guest, far: Guest, space: str) -> list[float]:
    """Bits per second that arrive at `far`."""
    far.run("(sleep 999 | nc -l -p 9001) > /dev/null 2>&1 < /dev/null &")
    near.run(f"nc {far.ip} 9001 < /dev/zero > /dev/null 2>&1 & sleep 1")
    rates = []
    for _ in range(ROUNDS):
        before, started = _arrived(space, far.tap), time.perf_counter()
        time.sleep(SECONDS)
        rates.append(8 * (_arrived(space, far.tap) - before) / (time.perf_counter() - started))
    near.run("killall nc")
    return rates


def _arrived(space: str, tap: str) -> int:
    """Bytes, toward the guest."""
    [link] = json.loads(run(space, "ip", "-j", "-s", "link", "show", tap))
    return int(link["stats64"]["tx"]["bytes"])


def _put_on_a_plain_bridge(cloud: RealCloud, plain: str, *guests: Guest) -> None:
    """Out of their hosts into a namespace with nothing but a bridge; whoever holds a tap goes on holding it."""
    namespace.create(plain)
    run(plain, "ip", "link", "add", "plain", "mtu", "1450", "type", "bridge")
    run(plain, "ip", "address", "add", "10.77.0.250/24", "dev", "plain")
    run(plain, "ip", "link", "set", "plain", "up")
    for guest in guests:
        run(str(cloud.place(guest.host).namespace), "ip", "link", "set", guest.tap, "netns", plain)
        run(plain, "ip", "link", "set", guest.tap, "master", "plain", "up")


def _rates(rates: list[float]) -> str:
    return f"p50 {statistics.median(rates) / 1e6:7.1f} Mbit/s   best {max(rates) / 1e6:7.1f} Mbit/s"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(f"load {os.getloadavg()[0]:.1f}")
    home = Path(tempfile.mkdtemp(prefix="cumulog-"))
    home.chmod(0o711)
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else PORTS, home)
    finally:
        shutil.rmtree(home)
