"""`demo`: from nothing to two servers on a network, reached from outside, through the public API like anybody else."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.cli import choices, client, database, demo_network, events, hypervisor, outside, steering
from api.cli.client import Client
from api.cli.demo_network import NAME, OUTSIDE_GATEWAY
from api.cli.install import apt, may_apt
from api.cli.screen import Failure, console, done, note, say, step
from api.cli.up import bring_up, introduce
from bus import clock
from bus.config import Settings
from bus.postgres_log import PostgresLog

T = TypeVar("T")

IMAGE = "cumulog-guest"
FLAVOR = "m1.nano"
USER = "cumulog"
HOSTS = 2
MARK = "cumulog-demo"
USER_DATA = """\
#!/bin/sh
# Waits until the other server and the world outside answer, and says so on the console.
say() {{ echo "{mark}: $*, $(cut -d' ' -f1 /proc/uptime) s after power on" > /dev/console; }}
say "user-data runs as $(id -un) on $(hostname)"
for there in {others}; do
    for try in $(seq 300); do ping -c 1 -W 1 $there > /dev/null 2>&1 && break; done
    ping -c 3 -W 1 $there | tail -n 2 > /dev/console
    say "$there answers"
done
say "all answer"
"""
IMAGE_SECONDS = 60.0
ACTIVE_SECONDS = 300.0
CONSOLE_SECONDS = 300.0
CONSOLE_ATTEMPTS = 3
SSH_SECONDS = 120.0
CONSOLE_LINES = 14


class Guest(msgspec.Struct, frozen=True):
    """A server of the demo, as it is ordered."""

    name: str
    host: str
    port_id: str
    ip: str


@click.command()
@click.option("--hypervisor", type=click.Choice(["auto", "libvirt", "simulated"]), help="As for `up`.")
@click.option("--delete", is_flag=True, help="Delete all of it in the end.")
def demo(hypervisor: str | None, delete: bool) -> None:
    """Start the cloud, boot two servers on two hosts, ping between them, reach one from outside, tell its story.

    All of it through the public HTTP API. The servers are left running, unless --delete.
    """
    started = clock.monotonic()
    settings = bring_up(hypervisor=hypervisor, hosts=max(HOSTS, choices.settings().hosts))
    done("The cloud is up", clock.monotonic() - started)
    api = client.login(settings)
    _clear(api)
    _await_networks(api, settings)
    laid = demo_network.lay(api)
    done(f"Network {NAME}: {demo_network.CIDR} behind a router, with a way out and a security group")
    guests = [_guest(api, laid, name, host) for name, host in zip(_names(), _hosts(settings), strict=True)]
    servers = _boot(settings, api, guests)
    address = demo_network.floating_ip(api, laid, guests[0].port_id)
    done(f"Floating IP {address} leads to {guests[0].name}, {guests[0].ip}")
    _show_console(settings, api, servers[0])
    _log_in(settings, address, guests[1].ip)
    _tell_story(servers[0])
    if delete:
        _clear(api)
    say()
    introduce(settings)
    if not delete:
        say(f"  openstack --os-cloud cumulog server show {guests[0].name}")
        if _real(settings):
            say(f"  ./cumulog outside ssh -i {_key(settings)} {USER}@{address}")


def _await_networks(api: Client, settings: Settings) -> None:
    """Until each host can wire ports."""
    hosts = set(_hosts(settings))

    def there() -> bool:
        return hosts <= {it["host"] for it in api.get("network", "/v2.0/agents?alive=true")["agents"]}

    if not _until(there, IMAGE_SECONDS):
        raise Failure("not every host has a network agent that lives", "`./cumulog logs` may say why.")


def _clear(api: Client) -> None:
    """Delete what an earlier demo has left."""
    path = f"/servers?name=^{NAME}(-[0-9]%2B)?$"
    servers = [server["id"] for server in api.get("compute", path)["servers"]]
    if servers:
        with step(f"Deleting server{'s' if len(servers) > 1 else ''} {' and '.join(servers)}"):
            for server in servers:
                api.call("DELETE", "compute", f"/servers/{server}", None)
            if not _until(lambda: not api.get("compute", path)["servers"] or None, ACTIVE_SECONDS):
                raise Failure(f"servers are still there after {ACTIVE_SECONDS:.0f} s", "`./cumulog events` shows why.")
    demo_network.clear(api)


def _names() -> list[str]:
    return [f"{NAME}-{number}" for number in range(1, HOSTS + 1)]


def _hosts(settings: Settings) -> Sequence[str]:
    """Where they are to be: each on a host of its own."""
    used = msgspec.structs.replace(settings, hypervisor=hypervisor.last(settings))
    return steering.host_names(used)[:HOSTS]


def _guest(api: Client, laid: demo_network.Laid, name: str, host: str) -> Guest:
    port_id, ip = demo_network.port(api, laid, name)
    return Guest(name=name, host=host, port_id=port_id, ip=ip)


def _boot(settings: Settings, api: Client, guests: Sequence[Guest]) -> list[str]:
    """Order them and wait until they are ACTIVE; their ids."""
    image = _until(lambda: _named(api.get("image", f"/v2/images?name={IMAGE}&status=active")["images"]), IMAGE_SECONDS)
    if image is None:
        raise Failure(f"there is no active image {IMAGE}", "`./cumulog logs` may say why it could not be built.")
    flavors = api.get("compute", "/flavors")["flavors"]
    flavor = next((it for it in flavors if it["name"] == FLAVOR), None)
    if flavor is None:
        raise Failure(f"there is no flavor {FLAVOR}", f"openstack flavor create --ram 128 --disk 1 {FLAVOR}")
    _import_key(settings, api)
    asked = clock.monotonic()
    ids: list[str] = []
    for guest in guests:
        others = [it.ip for it in guests if it is not guest] + [OUTSIDE_GATEWAY]
        body = {
            "name": guest.name,
            "imageRef": image["id"],
            "flavorRef": flavor["id"],
            "networks": [{"port": guest.port_id}],
            "availability_zone": f"nova:{guest.host}",
            "key_name": NAME,
            "user_data": base64.b64encode(USER_DATA.format(mark=MARK, others=" ".join(others)).encode()).decode(),
        }
        made = api.post("compute", "/servers", {"server": body}, X_OpenStack_Nova_API_Version="2.96")
        ids.append(made["server"]["id"])
        done(f"Server {ids[-1]} was ordered: {guest.name}, {IMAGE}, {FLAVOR}, {guest.ip} on {guest.host}")
    for id, guest in zip(ids, guests, strict=True):
        _await_active(api, id, guest, asked)
    return ids


def _await_active(api: Client, server: str, guest: Guest, asked: float) -> None:
    seen: list[str] = []

    def settled() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get("compute", f"/servers/{server}")["server"]
        state = found["status"] + (f" ({found['OS-EXT-STS:task_state']})" if found["OS-EXT-STS:task_state"] else "")
        if state not in seen:
            seen.append(state)
            say(f"    {clock.monotonic() - asked:6.2f} s  {guest.name}  {state}")
        return found if found["status"] in {"ACTIVE", "ERROR"} else None

    found = _until(settled, ACTIVE_SECONDS)
    if found is None or found["status"] != "ACTIVE":
        fault = (found or {}).get("fault", {}).get("message", f"it is {seen[-1]} after {ACTIVE_SECONDS:.0f} s")
        raise Failure(f"the server did not become active: {fault}", f"`./cumulog story server/{server}` tells why.")
    done(f"It is ACTIVE on {found.get('OS-EXT-SRV-ATTR:host', 'its host')}", clock.monotonic() - asked)


def _show_console(settings: Settings, api: Client, server: str) -> None:
    body = {"os-getConsoleOutput": {"length": None}}

    def output() -> str:
        answer = api.post("compute", f"/servers/{server}/action", body)
        return str(answer["output"])

    def patiently() -> str:
        """A host whose connection to the bus was cut a moment ago does not answer at once: it is asked again."""
        for _ in range(CONSOLE_ATTEMPTS - 1):
            try:
                return output()
            except Failure:
                time.sleep(1.0)
        return output()

    if not _real(settings):
        text = patiently()
        note("These guests are simulated: they have no processors, so nothing runs in them and nobody can log in.")
    else:
        with step("Waiting until it has pinged the other server and the world outside"):
            text = _until(lambda: t if f"{MARK}: all answer" in (t := output()) else None, CONSOLE_SECONDS) or ""
        if not text:
            raise Failure(
                f"its console did not show that they answered within {CONSOLE_SECONDS:.0f} s",
                f"openstack --os-cloud cumulog console log show {NAME}-1",
            )
    say("── the guest's own console " + "─" * 50)
    lines = [line.rstrip() for line in text.replace("\r", "").splitlines() if line.strip()]
    for line in lines[-CONSOLE_LINES:]:
        say(f"    {line}")


def _log_in(settings: Settings, address: str, other: str) -> None:
    """From outside by its floating IP, and from there to the other server."""
    if not _real(settings):
        return
    if may_apt() and not shutil.which("ssh"):
        apt(("openssh-client",), "logging in to the guest")
    line = [*outside.prefix(choices.settings()), "ssh", "-F", "none", "-i", str(_key(settings))]
    line += ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    line += ["-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", f"{USER}@{address}"]
    line += [f"echo I am $(hostname), $(ip -o -4 addr show dev eth0 | awk '{{print $4}}'); ping -c 3 {other}"]

    def answer() -> str | None:
        said = subprocess.run(line, capture_output=True, text=True, check=False, timeout=SSH_SECONDS)
        return said.stdout if said.returncode == 0 else None

    with step(f"ssh {USER}@{address}, from outside of the cloud"):
        text = _until(answer, SSH_SECONDS)
    if text is None:
        raise Failure(f"{address} did not let us in within {SSH_SECONDS:.0f} s", f"by hand: {' '.join(line[:-1])}")
    for row in text.splitlines():
        say(f"    {row}")


def _import_key(settings: Settings, api: Client) -> None:
    """A key pair made here; its public half is what the cloud hears of."""
    path = _key(settings)
    if not path.exists():
        path.touch(mode=0o600)
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
        path.write_bytes(Ed25519PrivateKey.generate().private_bytes(encoding, form, serialization.NoEncryption()))
    key = serialization.load_ssh_private_key(path.read_bytes(), None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    if any(it["keypair"]["name"] == NAME for it in api.get("compute", "/os-keypairs")["keypairs"]):
        api.call("DELETE", "compute", f"/os-keypairs/{NAME}", None)
    api.post("compute", "/os-keypairs", {"keypair": {"name": NAME, "public_key": public}})


def _key(settings: Settings) -> Path:
    return settings.home / "demo-key"


def _real(settings: Settings) -> bool:
    return hypervisor.last(settings) == "libvirt"


def _tell_story(server: str) -> None:
    async def tell(log: PostgresLog) -> None:
        say("── its story, from the log " + "─" * 50)
        found = await log.read_stream(f"server/{server}")
        for line in events.told(found, await events.names(log, found)):
            console().print(line)

    asyncio.run(database.with_log(choices.settings(), tell))


def _named(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    return found[0] if found else None


def _until(condition: Callable[[], T | None], seconds: float) -> T | None:
    """What the condition gives once it gives something; None when it never does."""
    deadline = clock.monotonic() + seconds
    pause = 0.05
    while not (found := condition()):
        if clock.monotonic() > deadline:
            return None
        time.sleep(pause)
        pause = min(pause * 1.3, 1.0)
    return found
