"""`doctor`: what this machine has and lacks, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator

import click
import msgspec

from agents.hypervisor import watchdog
from api.cli import choices, client, clouds_yaml, processes, supervisor
from api.cli.install import may_apt, missing
from api.cli.screen import say
from api.compute.console_proxy import novnc
from bus import rabbitmq_server
from bus.config import EMBEDDED, RABBITMQ, Settings, config_path
from bus.postgres import EmbeddedPostgres

FREE_BYTES = 2 * 1024**3


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at. `todo`: what to do; empty when all is well. `fatal`: the cloud cannot run without."""

    what: str
    todo: str = ""
    fatal: bool = False


@click.command()
def doctor() -> None:
    """Look at this machine and say what is missing, and what to do. Exit code 1 when the cloud could not run."""
    settings = choices.settings()
    fatal = False
    for finding in _examine(settings):
        mark = (
            click.style("✓", fg="green")
            if not finding.todo
            else click.style("✗" if finding.fatal else "!", fg="red" if finding.fatal else "yellow")
        )
        say(f"{mark} {finding.what}")
        if finding.todo:
            say(f"    {finding.todo}")
        fatal |= finding.fatal
    sys.exit(1 if fatal else 0)


def _examine(settings: Settings) -> Iterator[Finding]:
    yield Finding(
        f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {os.cpu_count()} cores"
    )
    path = config_path()
    yield Finding(f"settings: {path if path.exists() else 'defaults'} and the environment")
    yield _space(settings)
    yield _user(settings)
    yield _postgres(settings)
    if settings.bus == RABBITMQ or rabbitmq_server.installed():
        yield _rabbitmq(settings)
    yield from _hypervisor(settings)
    yield _novnc(settings)
    yield _processes(settings)
    yield _clouds_yaml(settings)


def _space(settings: Settings) -> Finding:
    folder = next(folder for folder in [settings.home, *settings.home.parents] if folder.exists())
    free = shutil.disk_usage(folder).free
    what = f"home {settings.home}: {free / 1024**3:.1f} GiB free"
    return Finding(what, "Make room, or choose another home (CUMULOG_HOME)." if free < FREE_BYTES else "")


def _user(settings: Settings) -> Finding:
    if os.geteuid() == 0:
        return Finding("root: real guests by libvirt, where it works")
    if settings.home.exists() and settings.home.stat().st_uid != os.geteuid():
        return Finding(f"{settings.home} is another user's", "Run as that user, or set CUMULOG_HOME.", fatal=True)
    return Finding("an ordinary user: simulated hypervisors; real guests need root")


def _postgres(settings: Settings) -> Finding:
    if settings.postgres != EMBEDDED:
        return Finding(f"PostgreSQL: {settings.postgres.rpartition('@')[2]}")
    server = EmbeddedPostgres(settings.home)
    try:
        programs = server.program("postgres").parent
    except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
        return Finding("PostgreSQL, embedded", str(error), fatal=True)
    state = f"runs as process {server.pid}" if server.pid else "stopped" if server.data.exists() else "not made yet"
    return Finding(f"PostgreSQL, embedded: {state}; programs in {programs}")


def _rabbitmq(settings: Settings) -> Finding:
    if not rabbitmq_server.installed():
        todo = "`./cumulog up --bus rabbitmq` installs it." if may_apt() else "As root: apt-get install rabbitmq-server"
        return Finding("RabbitMQ is not installed", todo, fatal=settings.bus == RABBITMQ)
    server = rabbitmq_server.RabbitServer(settings.home)
    return Finding(f"RabbitMQ: {f'runs as process {server.pid}' if server.pid else 'installed, not running'}")


def _hypervisor(settings: Settings) -> Iterator[Finding]:
    from agents.hypervisor.packages import APT_PACKAGES

    yield Finding(f"hypervisor: {settings.hypervisor}")
    if settings.hypervisor in {"auto", "libvirt"} and shutil.which("dpkg-query"):
        lacking = missing(APT_PACKAGES)
        if lacking:
            todo = "`./cumulog up` installs them." if may_apt() else f"As root: apt-get install {' '.join(lacking)}"
            yield Finding(f"libvirt lacks {', '.join(lacking)}", todo, fatal=settings.hypervisor == "libvirt")
    if settings.needs_watchdog and not watchdog.stands(settings.home):
        yield Finding("no watchdog stands here, so this machine does not fence", "`./cumulog up`, or serve watchdog.")


def _novnc(settings: Settings) -> Finding:
    folder = novnc(settings)
    if folder is None:
        return Finding("noVNC is not here: no console opens in a browser", "`./cumulog up` fetches it.")
    return Finding(f"noVNC: {folder}")


def _processes(settings: Settings) -> Finding:
    running = processes.find(settings.run_folder, supervisor.NAME)
    if running is None:
        return Finding("the cloud is down", "`./cumulog up` starts it.")
    if not client.healthy(settings):
        return Finding(f"the cloud runs, and {settings.url} does not answer", "`./cumulog logs` may say why.")
    return Finding(f"the cloud is up: {settings.url}")


def _clouds_yaml(settings: Settings) -> Finding:
    path = clouds_yaml.user_file()
    whose = clouds_yaml.owner(path)
    if whose is None:
        return Finding(f"{path} has no entry cumulog", "`./cumulog up` writes it.")
    if whose != str(settings.home):
        todo = f"Rename that entry, or use OS_CLIENT_CONFIG_FILE={settings.home / 'clouds.yaml'}"
        return Finding(f"{path} has an entry cumulog that is {whose or 'somebody else'}'s", todo)
    return Finding(f"{path} has our entry cumulog")
