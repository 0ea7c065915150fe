"""`down`: stop every process of the cloud, in good order; guests go on unless they are to be stopped too."""

from __future__ import annotations

import time

import click
import msgspec

from agents.hypervisor import watchdog
from api.cli import choices, client, hypervisor, processes, steering, supervisor
from api.cli.screen import Failure, note, say, step
from bus import clock
from bus.config import Settings

GUESTS_SECONDS = 300.0


@click.command()
@click.option("--guests", is_flag=True, help="Shut every server down first, through the API.")
def down(guests: bool) -> None:
    """Stop the cloud; its guests and their networks keep running unless --guests. `up` finds them again."""
    settings = choices.settings()
    running = _running(settings)
    if not running:
        say("Nothing of this cloud runs.")
        return
    if guests:
        _stop_guests(settings)
    with step(f"Stopping {', '.join(running)}"):
        for _ in range(3):  # a role that noticed its supervisor's end may just have started another
            supervisor.stop(settings)
            if not _running(settings):
                break
    fenced = watchdog.fence(settings.home) if not _running(settings) else {}
    if hypervisor.last(settings) == "libvirt":
        _stop_libvirtd(settings)
        if guests:
            _remove_networks(settings)
    left = _running(settings)
    if left:
        raise Failure(f"{', '.join(left)} did not stop", f"See the logs in {settings.log_folder}.")
    if fenced:
        note("Guests stand still until `./cumulog up`: this machine fences, so they may be built on another.")
    elif not guests and hypervisor.last(settings) == "libvirt":
        note("Guests keep running; `./cumulog up` finds them again, `./cumulog down --guests` stops them.")


def _running(settings: Settings) -> list[str]:
    found = [part.name for part in supervisor.parts(settings) if part.pid is not None]
    others = [supervisor.NAME, *supervisor.EVERY_ROLE]
    return found + [n for n in others if n not in found and processes.find(settings.run_folder, n)]


def _stop_libvirtd(settings: Settings) -> None:
    """Each libvirtd that our agents have started; guests are processes of their own, and the machine's own is left."""
    from agents.hypervisor.libvirtd import LibvirtdFailed, PrivateLibvirtd

    for folder in (settings.home / "hypervisor" / "libvirtd", *(settings.home / "hosts").glob("*/libvirtd")):
        if folder.exists():
            try:
                PrivateLibvirtd(folder).stop()
            except LibvirtdFailed as failure:
                note(str(failure))


def _remove_networks(settings: Settings) -> None:
    """What served the guests; `up` makes all of it again."""
    joined = steering.fabric(msgspec.structs.replace(settings, hypervisor="libvirt"))
    if joined:
        with step("Taking the guests' networks down"):
            joined.remove()


def _stop_guests(settings: Settings) -> None:
    """os-stop for every server that runs, and wait until none does."""
    if not client.healthy(settings):
        raise Failure("the API does not answer, so guests cannot be stopped through it", "`./cumulog up` first.")
    api = client.login(settings)
    path = "/servers/detail?all_tenants=1&status=ACTIVE"
    stopped = [server["id"] for server in api.get("compute", path)["servers"]]
    for server in stopped:
        api.post("compute", f"/servers/{server}/action", {"os-stop": None})
    if not stopped:
        return
    guests = "1 guest" if len(stopped) == 1 else f"{len(stopped)} guests"
    with step(f"Shutting {guests} off"):
        deadline = clock.monotonic() + GUESTS_SECONDS
        while api.get("compute", path)["servers"]:
            if clock.monotonic() > deadline:
                raise Failure(f"some guests still run after {GUESTS_SECONDS:.0f} s", "`./cumulog events` shows why.")
            time.sleep(0.3)
