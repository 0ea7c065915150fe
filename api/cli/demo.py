"""`demo`: the whole way from nothing to a running server and its story, through the public API like anybody else."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from api.cli import choices, client, database, events, hypervisor
from api.cli.client import Client
from api.cli.screen import Failure, console, done, note, say, step
from api.cli.up import bring_up, introduce
from bus import clock
from bus.config import Settings
from bus.postgres_log import PostgresLog

T = TypeVar("T")

NAME = "demo"
IMAGE = "cumulog-guest"
FLAVOR = "m1.nano"
MARK = "cumulog-demo"
USER_DATA = f"""\
#!/bin/sh
echo "{MARK}: user-data runs as $(id -un) on $(hostname), $(cut -d' ' -f1 /proc/uptime) s after power on" >/dev/console
"""
IMAGE_SECONDS = 60.0
ACTIVE_SECONDS = 300.0
CONSOLE_SECONDS = 300.0
CONSOLE_LINES = 12


@click.command()
@click.option("--hypervisor", type=click.Choice(["auto", "libvirt", "simulated"]), help="As for `up`.")
@click.option("--delete", is_flag=True, help="Delete the server in the end.")
def demo(hypervisor: str | None, delete: bool) -> None:
    """Start the cloud, boot a server, show its console and its story.

    All of it through the public HTTP API. The server is left running, unless --delete.
    """
    started = clock.monotonic()
    settings = bring_up(hypervisor=hypervisor)
    done("The cloud is up", clock.monotonic() - started)
    api = client.login(settings)
    _clear(api)
    server = _boot(api)
    _show_console(settings, api, server)
    _tell_story(server)
    if delete:
        _delete(api, server)
    say()
    introduce(settings)
    if not delete:
        say(f"  openstack --os-cloud cumulog server show {NAME}")


def _clear(api: Client) -> None:
    """Delete what an earlier demo has left."""
    for server in api.get("compute", f"/servers?name=^{NAME}$")["servers"]:
        _delete(api, server["id"])


def _boot(api: Client) -> str:
    image = _until(lambda: _named(api.get("image", f"/v2/images?name={IMAGE}&status=active")["images"]), IMAGE_SECONDS)
    if image is None:
        raise Failure(f"there is no active image {IMAGE}", "`./cumulog logs` may say why it could not be built.")
    flavors = api.get("compute", "/flavors")["flavors"]
    flavor = next((it for it in flavors if it["name"] == FLAVOR), None)
    if flavor is None:
        raise Failure(f"there is no flavor {FLAVOR}", f"openstack flavor create --ram 128 --disk 1 {FLAVOR}")
    body = {
        "server": {
            "name": NAME,
            "imageRef": image["id"],
            "flavorRef": flavor["id"],
            "networks": "none",
            "config_drive": True,
            "user_data": base64.b64encode(USER_DATA.encode()).decode(),
        }
    }
    asked = clock.monotonic()
    server: str = api.post("compute", "/servers", body, X_OpenStack_Nova_API_Version="2.96")["server"]["id"]
    done(f"Server {server} was ordered: {IMAGE}, {FLAVOR}", clock.monotonic() - asked)
    seen: list[str] = []

    def settled() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get("compute", f"/servers/{server}")["server"]
        state = found["status"] + (f" ({found['OS-EXT-STS:task_state']})" if found["OS-EXT-STS:task_state"] else "")
        if state not in seen:
            seen.append(state)
            say(f"    {clock.monotonic() - asked:6.2f} s  {state}")
        return found if found["status"] in {"ACTIVE", "ERROR"} else None

    found = _until(settled, ACTIVE_SECONDS)
    if found is None or found["status"] != "ACTIVE":
        fault = (found or {}).get("fault", {}).get("message", f"it is {seen[-1]} after {ACTIVE_SECONDS:.0f} s")
        raise Failure(f"the server did not become active: {fault}", f"`./cumulog story server/{server}` tells why.")
    done(f"It is ACTIVE on {found.get('OS-EXT-SRV-ATTR:host', 'its host')}", clock.monotonic() - asked)
    return server


def _show_console(settings: Settings, api: Client, server: str) -> None:
    body = {"os-getConsoleOutput": {"length": None}}

    def output() -> str:
        answer = api.post("compute", f"/servers/{server}/action", body)
        return str(answer["output"])

    simulated = hypervisor.last(settings) == "simulated"
    if simulated:
        text = output()
        note("This guest is simulated: it has no processor, so its user-data does not run.")
    else:
        with step("Waiting for its user-data to have run"):
            text = _until(lambda: t if MARK in (t := output()) else None, CONSOLE_SECONDS) or ""
        if not text:
            raise Failure(
                f"its console did not show that its user-data ran within {CONSOLE_SECONDS:.0f} s",
                f"openstack --os-cloud cumulog console log show {NAME}",
            )
    say("── the guest's own console " + "─" * 50)
    lines = [line.rstrip() for line in text.replace("\r", "").splitlines() if line.strip()]
    for line in lines[-CONSOLE_LINES:]:
        say(f"    {line}")


def _tell_story(server: str) -> None:
    async def tell(log: PostgresLog) -> None:
        say("── its story, from the log " + "─" * 50)
        found = await log.read_stream(f"server/{server}")
        for line in events.told(found, await events.names(log, found)):
            console().print(line)

    asyncio.run(database.with_log(choices.settings(), tell))


def _delete(api: Client, server: str) -> None:
    with step(f"Deleting server {server}"):
        api.call("DELETE", "compute", f"/servers/{server}", None)
        _until(lambda: not any(it["id"] == server for it in api.get("compute", "/servers")["servers"]), ACTIVE_SECONDS)


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
