"""A cloud as a person has it, `up --hypervisor libvirt --hosts 2`, and its guests, reached by ssh from outside."""

from __future__ import annotations

import base64
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import openstack

from agents.network import namespace
from agents.network.fabric import OUTSIDE_ADDRESSES, PHYSICAL_NETWORK, Fabric, HostPlace
from agents.network.namespace import enter
from tests.cli.conftest import Person
from tests.command import OPENSTACK
from tests.guest import guest_image
from tests.network.dhcp_place import apart

T = TypeVar("T")

SWEEP_SECONDS = 3.0
BOOT_SECONDS = 180.0
HOSTS = ("host", "host-2")
CALL_PORT = 9000
OUTSIDE_IP = OUTSIDE_ADDRESSES[0].partition("/")[0]
IMAGE, FLAVOR, KEY = "cumulog-guest", "m1.nano", "key"
_SSH = ("-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
_SSH_QUIET = ("-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR")
_COUNTED = re.compile(r"(\d+) packets transmitted")


def until(condition: Callable[[], T], seconds: float = 30.0, what: str = "it did not come true") -> T:
    """What the condition gives once it gives something; fails when it does not in time."""
    deadline, pause = time.monotonic() + seconds, 0.05
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} within {seconds:.0f} s"
        time.sleep(pause)
        pause = min(1.2 * pause, 0.3)
    return found


@dataclass
class Net:
    """A network of a tenant behind a router of its own."""

    network_id: str
    subnet_id: str
    router_id: str

    @property
    def bridge(self) -> str:
        return f"br{self.network_id[:11]}"


@dataclass
class Guest:
    """A server on a host of the test's choice."""

    cloud: RealCloud
    id: str
    host: str
    port_id: str = ""
    ip: str = ""
    floating_ip: str = ""
    side: str = ""
    """The namespace it is reached from; empty: the world outside."""

    @property
    def tap(self) -> str:
        return f"tap{self.port_id[:11]}"

    @property
    def status(self) -> str:
        return str(self.cloud.api.compute.get_server(self.id).status)

    @property
    def runs(self) -> bool:
        """Whether its host has a process for it."""
        folder = self.cloud.person.home / "hosts" / self.host / "libvirtd" / "run" / "qemu"
        return any(folder.glob(f"*{self.id}*.pid"))

    @property
    def console(self) -> str:
        return str(self.cloud.api.compute.get_server_console_output(self.id)["output"])

    def active(self) -> Guest:
        """Once it is there."""

        def settled() -> Any:
            server = self.cloud.api.compute.get_server(self.id)
            return server if server.status in {"ACTIVE", "ERROR"} else None

        server = until(settled, BOOT_SECONDS, "it is still building")
        assert server.status == "ACTIVE", server.fault
        [port] = self.cloud.api.network.ports(device_id=self.id)
        self.port_id, self.ip = port.id, port.fixed_ips[0]["ip_address"]
        return self

    def ready(self) -> Guest:
        """Once it has booted and run its user-data."""
        until(lambda: "cumulog-guest: ready" in self.console, BOOT_SECONDS, "it has not booted")
        return self

    def published(self) -> Guest:
        """With a floating IP."""
        made = self.cloud.api.network.create_ip(floating_network_id=self.cloud.outside_id, port_id=self.port_id)
        self.floating_ip = made.floating_ip_address
        return self

    def try_run(self, script: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        command = ["ssh", *_SSH, *_SSH_QUIET, "-i", str(self.cloud.key), f"cumulog@{self.floating_ip}", script]
        return _try(self.side or self.cloud.fabric.outside, *command, seconds=seconds)

    def run(self, script: str, seconds: float = 60.0) -> str:
        """What a shell in the guest says, by ssh from outside."""
        done = self.try_run(script, seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    @contextmanager
    def pinging(self, ip: str) -> Iterator[Pings]:
        """Ten times a second, in the guest: answered before the block begins, and again after it ends."""
        pings = Pings()
        self.run(f"ping -i 0.1 {ip} > /tmp/pings 2>&1 < /dev/null & echo $! > /tmp/pinging; {_answers_more_than(0)}")
        try:
            yield pings
        finally:
            self.reached()
            self.run(_answers_more_than("$(grep -c seq= /tmp/pings)"))
            self.run("p=$(cat /tmp/pinging); kill -INT $p; while kill -0 $p 2> /dev/null; do sleep 0.1; done")
            said = self.run("cat /tmp/pings")
            found = _COUNTED.search(said)
            assert found, said
            pings.sent = int(found[1])
            numbers = [int(it) for it in re.findall(r"seq=(\d+)", said)]
            pings.missing = sorted(set(range(numbers[-1])) - set(numbers)) if numbers else []

    def reached(self, seconds: float = 60.0) -> None:
        """Once ssh answers."""
        until(self._listens, seconds, f"{self.floating_ip} does not listen")
        until(lambda: self.try_run("true").returncode == 0, seconds, f"{self.floating_ip} does not let us in")

    def _listens(self) -> bool:
        """Asked every second: one ssh would repeat its call ever more seldom, and miss the moment by long."""
        try:
            _in(self.side or self.cloud.fabric.outside, socket.create_connection, (self.floating_ip, 22), 1.0).close()
        except OSError:
            return False
        return True


@dataclass
class Pings:
    sent: int = 0
    missing: list[int] = field(default_factory=list)

    def all_answered(self, at_least: int) -> bool:
        """Those behind the last answer, which came after all was over, may be on their way."""
        assert self.sent >= at_least, f"only {self.sent} pings were sent"
        return not self.missing


def _answers_more_than(count: int | str) -> str:
    """What a guest's shell does until so many pings, and one more, were answered."""
    return f"n={count}; while [ $(grep -c seq= /tmp/pings) -le $n ]; do sleep 0.1; done"


@contextmanager
def standing(port: int, driver: str = "", **environment: str) -> Iterator[RealCloud]:
    """A cloud with its image, its key and no guests, until nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    folder.chmod(0o711)
    cloud = RealCloud(Person(folder / "home", port), driver=driver)
    cloud.person.environment.update(environment)
    try:
        cloud.up()
        cloud.import_key()
        yield cloud
        cloud.types("down", "--guests")
        assert not namespace.names(cloud.fabric.outside.removesuffix("outside"))
        assert not _processes(folder)
    finally:
        cloud.person.types("down")
        cloud.fabric.remove()
        shutil.rmtree(folder)


class RealCloud:
    """`person` types; `api` is the SDK of the admin's clouds.yaml."""

    def __init__(self, person: Person, *, driver: str = "") -> None:
        self.person = person
        self.key = person.home.parent / "key"
        person.environment["CUMULOG_HOST_NAME"] = HOSTS[0]
        person.environment["CUMULOG_NETWORK_SWEEP_SECONDS"] = str(SWEEP_SECONDS)
        if driver:
            person.environment["CUMULOG_NETWORK_DRIVER"] = driver
        self.fabric = Fabric(person.home, HOSTS)

    # The cloud itself

    def up(self) -> None:
        image = self.person.home / "guest" / "cumulog-guest.qcow2"
        if not image.exists():
            image.parent.mkdir(parents=True)
            built = guest_image()
            for suffix in (".qcow2", ".version"):
                shutil.copy(built.with_suffix(suffix), image.with_suffix(suffix))
        self.person.up("--hypervisor", "libvirt", "--hosts", str(len(HOSTS)))

    def types(self, *arguments: str) -> str:
        done = self.person.types(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @cached_property
    def api(self) -> Any:
        return openstack.connect(
            auth={
                "auth_url": f"http://{self.person.listen}/identity",
                "username": "admin",
                "password": (self.person.home / "admin-password").read_text().strip(),
                "project_name": "admin",
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
            region_name="RegionOne",
            load_yaml_config=False,
            load_envvars=False,
        )

    def place(self, host: str) -> HostPlace:
        return self.fabric.place(host)

    def on(self, host: str, *command: str) -> str:
        """What a command says that root runs on a host."""
        return run(self.place(host).namespace or "", *command)

    def outside(self, *command: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command in the world outside, as `./cumulog outside` runs it."""
        return _try(self.fabric.outside, *command, seconds=seconds)

    def outside_socket(self) -> socket.socket:
        """Listens out there for guests that call."""
        return _in(self.fabric.outside, socket.create_server, (OUTSIDE_IP, CALL_PORT))

    def call(self, ip: str, port: int, seconds: float = 3.0) -> socket.socket:
        """From outside. Raises OSError."""
        return _in(self.fabric.outside, socket.create_connection, (ip, port), seconds)

    def inside(self, host: str, function: Callable[..., T], *arguments: Any) -> T:
        """In the namespace that is this host."""
        return _in(self.place(host).namespace or "", function, *arguments)

    def namespace_of(self, host: str, what: str, id: str) -> str:
        """Of a router (`r`) or a network's DHCP (`d`) on a host."""
        return f"cl-{self.place(host).tag}-{what}-{id[:11]}"

    def openstack(self, *words: str) -> str:
        """What the real command line client prints."""
        command = [str(OPENSTACK), "--os-cloud", "cumulog", *words]
        environment = {**self.person.environment, "OS_COMPUTE_API_VERSION": "2.96"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # What a tenant does

    @cached_property
    def outside_id(self) -> str:
        network = self.api.network.create_network(
            name="public",
            is_router_external=True,
            provider_network_type="flat",
            provider_physical_network=PHYSICAL_NETWORK,
        )
        self.api.network.create_subnet(
            network_id=network.id,
            ip_version=4,
            cidr="172.24.4.0/24",
            gateway_ip=OUTSIDE_IP,
            allocation_pools=[{"start": "172.24.4.10", "end": "172.24.4.250"}],
            enable_dhcp=False,
        )
        return str(network.id)

    def net(self, name: str, cidr: str, *, routed: bool = True) -> Net:
        network = self.api.network.create_network(name=name, dns_domain="example.org.")
        subnet = self.api.network.create_subnet(network_id=network.id, ip_version=4, cidr=cidr)
        if not routed:
            return Net(network.id, subnet.id, "")
        router = self.api.network.create_router(name=name, external_gateway_info={"network_id": self.outside_id})
        self.api.network.add_interface_to_router(router.id, subnet_id=subnet.id)
        return Net(network.id, subnet.id, router.id)

    def group(self, name: str, *rules: dict[str, Any]) -> str:
        """Of a rule whose `remote_group_id` is "own", that is the group itself."""
        made = self.api.network.create_security_group(name=name)
        for rule in rules:
            own = {"remote_group_id": made.id} if rule.get("remote_group_id") == "own" else {}
            self.rule(made.id, **(rule | own))
        return str(made.id)

    def rule(self, group_id: str, **rule: Any) -> str:
        made = self.api.network.create_security_group_rule(
            security_group_id=group_id, direction="ingress", ether_type="IPv4", **rule
        )
        return str(made.id)

    def import_key(self) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.api.compute.create_keypair(name=KEY, public_key=self.key.with_suffix(".pub").read_text().strip())

    def boot(self, name: str, host: str, networks: Sequence[dict[str, str]] | str, **more: Any) -> Guest:
        script = more.pop("script", None)
        if script:
            more["user_data"] = base64.b64encode(script.encode()).decode()
        image = more.pop("image", None) or next(iter(self.api.image.images(name=IMAGE)))
        flavor = self.api.compute.find_flavor(FLAVOR)
        made = self.api.compute.create_server(
            name=name,
            image_id=image.id,
            flavor_id=flavor.id,
            networks=networks,
            availability_zone=f"nova:{host}",
            key_name=KEY,
            **more,
        )
        return Guest(self, made.id, host)

    def delete(self, guest: Guest) -> None:
        self.api.compute.delete_server(guest.id)
        until(lambda: self.api.compute.find_server(guest.id) is None, 60, "it is not gone")


def tcp(port: int, **more: str) -> dict[str, Any]:
    """What a rule says that opens it."""
    return {"protocol": "tcp", "port_range_min": port, "port_range_max": port, **more}


@apart
def _in(name: str, function: Callable[..., T], *arguments: Any) -> T:
    with enter(name):
        return function(*arguments)


def run(namespace: str, *command: str) -> str:
    """What it says; in the machine's own namespace when none is named."""
    done = _try(namespace, *command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def _try(namespace: str, *command: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    inside = ["nsenter", f"--net=/run/netns/{namespace}", "--"] if namespace else []
    return subprocess.run([*inside, *command], capture_output=True, text=True, check=False, timeout=seconds)


def _processes(folder: Path) -> list[str]:
    """What runs with a path below it in its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder).encode() in (line := path.read_bytes()):
                found.append(line.replace(b"\0", b" ").decode())
    return found
