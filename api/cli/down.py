"""`down`: stop every process of the cloud, in good order; guests go on unless they are to be stopped too."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import click
import msgspec

from agents.hypervisor import watchdog
from api.cli import choices, client, hypervisor, processes, steering, supervisor
from api.cli.screen import Failure, note, say, step
from bus import clock
from bus.config import Settings

STILL_SECONDS = 300.0
"""How long no guest may have shut down before the rest is given up: the slowest has its minute, and then some."""
SPEAK_SECONDS = 10.0
LOOK_SECONDS = 0.3
WORKERS = 8
AT_ONCE = 1000
"""Guests that are asked to shut down before it is looked again who has."""
SHOWN = 5
"""Guests that are named when they do not stop."""


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
    """os-stop for every server that runs, and wait until none does, for as long as they become fewer."""
    if not client.healthy(settings):
        raise Failure("the API does not answer, so guests cannot be stopped through it", "`./cumulog up` first.")
    api = client.login(settings)
    left = _that_run(api)
    if not left:
        return
    with step(f"Shutting {_guests(len(left))} off") as so_far, ThreadPoolExecutor(WORKERS) as workers:
        patience = Patience(len(left), clock.monotonic())
        asked: set[str] = set()
        while left:
            fresh = [id for id in left if id not in asked][:AT_ONCE]
            granted = workers.map(lambda id: _stop(api, id), fresh)
            asked |= {id for id, it in zip(fresh, granted, strict=True) if it}
            began = clock.monotonic()
            left = _that_run(api)
            now = clock.monotonic()
            if patience.ends(len(left), now):
                them = ", ".join(sorted(left)[:SHOWN]) + (", …" if len(left) > SHOWN else "")
                raise Failure(
                    f"{_guests(len(left))} of {patience.first} still run, and none shut down in {STILL_SECONDS:.0f} s:"
                    f" {them}",
                    "`./cumulog events` shows why; `./cumulog down` stops the cloud without them.",
                )
            if patience.speaks(now):
                so_far(f"{len(left)} of {patience.first} still run")
            if len(fresh) < AT_ONCE:
                time.sleep(max(LOOK_SECONDS, now - began))


class Patience:
    """How long guests are waited for: as long as they become fewer. It says how many are left, every so often."""

    def __init__(self, guests: int, now: float) -> None:
        self.first = self._fewest = guests
        self._moved_at = self._spoke_at = now

    def ends(self, left: int, now: float) -> bool:
        """Whether for too long none has gone."""
        if left < self._fewest:
            self._fewest, self._moved_at = left, now
        return left > 0 and now - self._moved_at > STILL_SECONDS

    def speaks(self, now: float) -> bool:
        """Whether it is time to say something."""
        due = now - self._spoke_at >= SPEAK_SECONDS
        if due:
            self._spoke_at = now
        return due


def _that_run(api: client.Client) -> list[str]:
    """The ids of all servers that are ACTIVE, page by page."""
    found: list[str] = []
    marker = ""
    while page := api.get("compute", f"/servers?all_tenants=1&status=ACTIVE{marker}")["servers"]:
        found += [server["id"] for server in page]
        marker = f"&marker={page[-1]['id']}"
    return found


def _stop(api: client.Client, id: str) -> bool:
    """Whether it is granted now; one that something is under way with is asked again."""
    try:
        api.post("compute", f"/servers/{id}/action", {"os-stop": None})
    except client.Refusal as refusal:
        if refusal.status not in {404, 409}:
            raise
        return False
    return True


def _guests(count: int) -> str:
    return "1 guest" if count == 1 else f"{count} guests"
