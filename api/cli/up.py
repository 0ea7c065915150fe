"""`up`: the whole cloud in the background, from whatever state this machine is in."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

import click

from api.cli import choices, client, clouds_yaml, hypervisor, novnc, processes, status, steering, supervisor
from api.cli.screen import Failure, done, note, say
from bus import clock
from bus.config import EMBEDDED, MEMORY, RABBITMQ, Settings
from bus.postgres import EmbeddedPostgres
from handlers.placement import filters, weighers

READY_SECONDS = 120.0
HOSTS_SECONDS = 60.0
POLL_SECONDS = 0.02


@click.command()
@click.option(
    "--bus", metavar="memory|rabbitmq|URL", help="In the process, RabbitMQ on this machine, or one elsewhere."
)
@click.option(
    "--hypervisor",
    type=click.Choice(["auto", "libvirt", "simulated", "none"]),
    help="auto takes libvirt where it works, else simulated.",
)
@click.option("--hosts", type=int, help="How many hosts this machine plays.")
@click.option("--listen", metavar="HOST:PORT", help="Where the API listens; 127.0.0.1:8774 by default.")
def up(**options: str | int | None) -> None:
    """Start the whole cloud in the background, and say how to use it.

    What is running already is left alone. Options hold until another `up` says otherwise.
    """
    started = clock.monotonic()
    settings = bring_up(**options)
    done("The cloud is up", clock.monotonic() - started)
    introduce(settings)


def bring_up(**options: str | int | None) -> Settings:
    """Everything `up` does but the introduction; the settings of the cloud that runs."""
    settings = choices.settings(**options)
    _check_scheduler(settings)
    _make_home(settings)
    with (settings.home / ".up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = choices.remembered(settings.home)
        choices.remember(settings.home, before | choices.from_options(options))
        try:
            settings = _prepare(choices.settings())
        except BaseException:
            choices.remember(settings.home, before)
            raise
        supervisor.spawn(settings)
        _wait(settings)
        _wait_for_hosts(settings)
    return settings


def _prepare(settings: Settings) -> Settings:
    """All that may stand in the way of a start, before anything is started."""
    settings = hypervisor.choose(settings)
    hypervisor.make_image(settings)
    if settings.hypervisor != "none":
        novnc.prepare(settings)
    if settings.bus == RABBITMQ:
        _install_rabbitmq()
    if settings.postgres == EMBEDDED:
        EmbeddedPostgres(settings.home).check()
    now = choices.in_force(settings.home)
    running = _running(settings)
    if not running or now is None or now.listen != settings.listen:
        _check_port(settings)
    if running and now != settings:
        say("The settings have changed: restarting")
        supervisor.stop(settings)
    choices.admin_password(settings.home)
    choices.put_in_force(settings)
    return settings


def _check_scheduler(settings: Settings) -> None:
    """Names of filters and weighers that there are none of would end the role that places, again and again."""
    filters.chosen(settings.scheduler)
    weighers.chosen(settings.scheduler)


def _make_home(settings: Settings) -> None:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        settings.run_folder.mkdir(exist_ok=True)
        settings.log_folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Failure(
            f"the home {settings.home} cannot be made: {error.strerror}",
            "Choose another one: CUMULOG_HOME=~/somewhere ./cumulog up",
        ) from None
    if settings.home.stat().st_uid != os.geteuid():
        raise Failure(
            f"the home {settings.home} belongs to another user",
            "Run as that user, or choose another home: CUMULOG_HOME=~/somewhere ./cumulog up",
        )


def _install_rabbitmq() -> None:
    from api.cli.install import apt
    from bus import rabbitmq_server

    if not rabbitmq_server.installed():
        apt(rabbitmq_server.APT_PACKAGES, "the bus")


def _running(settings: Settings) -> bool:
    """Whether any role runs; PostgreSQL alone may have been left by a kill -9 of all else."""
    names = (supervisor.NAME, *supervisor.EVERY_ROLE)
    return any(processes.find(settings.run_folder, name) for name in names)


def _check_port(settings: Settings) -> None:
    """Refuse early, and by name, when somebody else has the port."""
    family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.listen_host, settings.listen_port))
        except OSError as error:
            raise Failure(
                f"{settings.listen} cannot be listened on: {error.strerror}",
                "Another program has that port? Choose another: ./cumulog up --listen 127.0.0.1:18774",
            ) from None


def _wait(settings: Settings) -> None:
    """Until the API answers. Raises Failure with the newest lines of the log when it does not."""
    deadline = clock.monotonic() + READY_SECONDS
    while not client.healthy(settings):
        if clock.monotonic() > deadline:
            role = "all" if settings.bus == MEMORY else "api"
            log = settings.log_folder / f"{role}.log"
            raise Failure(
                f"the API did not answer within {READY_SECONDS:.0f} s; the end of {log}:\n{_tail(log)}",
                "`./cumulog status` shows what runs, `./cumulog doctor` what this machine lacks.",
            )
        time.sleep(POLL_SECONDS)


def _wait_for_hosts(settings: Settings) -> None:
    """Until all hosts of this machine are there; a hypervisor that does not come up is told, and stops nothing."""
    wanted = len(steering.host_names(settings))
    deadline = clock.monotonic() + HOSTS_SECONDS
    while (there := status.samples(settings).get(("cumulog_agents", "up"), 0)) < wanted:
        if clock.monotonic() > deadline:
            role = "all" if settings.bus == MEMORY else "agent"
            late = f"{there:.0f} of {wanted} hosts are up after {HOSTS_SECONDS:.0f} s"
            note(f"{late}: `./cumulog logs {role}` may say why.")
            return
        time.sleep(POLL_SECONDS)


def introduce(settings: Settings) -> None:
    """Say where it is and how to use it; write clouds.yaml."""
    password = client.admin_password(settings)
    say(f"  API         {settings.url}   (identity: {settings.url}/identity/v3)")
    say(f"  home        {settings.home}")
    try:
        path = clouds_yaml.write(settings, password)
        say(f"  clouds.yaml {path}, entry cumulog")
        prefix = ""
    except clouds_yaml.Foreign as foreign:
        note(f"{foreign}; it was left as it is.")
        prefix = f"OS_CLIENT_CONFIG_FILE={settings.home / 'clouds.yaml'} "
    say()
    say(f"  {prefix}openstack --os-cloud cumulog server list")
    say("  ./cumulog status | logs -f | events -f | down")


def _tail(path: Path, lines: int = 12) -> str:
    try:
        return "\n".join("  " + line for line in path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "  (there is none)"
