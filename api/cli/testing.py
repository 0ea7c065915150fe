"""`test` and `check`: what CI runs, the same at home."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import click

from api.cli.install import ROOT, apt, extra, may_apt
from api.cli.screen import Failure, note, say
from bus import clock

REPORT = ROOT / "reports" / "junit.xml"
PROCESSES = 2
BROWSER = ("chromium",)
"""With which tests open the pages that people open."""
GUESTS = ("busybox-static", "curl", "iperf3", "iputils-ping", "openssh-client")
"""Debian packages with which tests play guests and people: they ask for leases and metadata, measure, and log in."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PYTEST ARGUMENTS]…")
def test(arguments: tuple[str, ...]) -> None:
    """Install what the tests need, then run them all, or those pytest's arguments choose.

    Tests marked `live` share one process and so never meet each other; the rest run beside them. The JUnit report is
    reports/junit.xml.
    """
    _prepare()
    REPORT.parent.mkdir(exist_ok=True)
    alone = {"-n", "-p", "-x", "--pdb", "-s"} & set(arguments)
    shared = [] if alone else ["-n", str(PROCESSES), "--dist", "loadgroup"]
    sys.exit(_python("-m", "pytest", *shared, f"--junitxml={REPORT}", "--durations=15", *arguments))


@click.command()
@click.option("--fix", is_flag=True, help="Let ruff format and mend what it can.")
def check(fix: bool) -> None:
    """Check format, lint, types and the laws of the tree; all of it, whatever fails first."""
    extra("dev")
    wrong = []
    steps = {
        "format": ("-m", "ruff", "format", *([] if fix else ["--check"]), "."),
        "lint": ("-m", "ruff", "check", *(["--fix"] if fix else []), "."),
        "types": ("-m", "mypy"),
        "laws": ("-m", "pytest", "-q", "-m", "law"),
    }
    for name, arguments in steps.items():
        say(f"── {name}")
        started = clock.monotonic()
        if _python(*arguments):
            wrong.append(name)
        say(f"   {clock.monotonic() - started:.1f} s")
    if wrong:
        raise Failure(f"{' and '.join(wrong)} found something", "`./cumulog check --fix` mends what can be mended.")


def _prepare() -> None:
    from agents.hypervisor.packages import APT_PACKAGES as HYPERVISOR
    from agents.network.packages import APT_PACKAGES as NETWORK
    from bus.rabbitmq_server import APT_PACKAGES as RABBITMQ

    extra("dev")
    if may_apt():
        apt([*RABBITMQ, *HYPERVISOR, *NETWORK, *GUESTS, *BROWSER], "the tests")
        extra("hypervisor")
    else:
        note(
            "Only root on Debian or Ubuntu can have daemons installed; tests that need one that is missing will say so."
        )


def _python(*arguments: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, *_plain(arguments)], cwd=ROOT, env=environment, check=False).returncode


def _plain(arguments: Sequence[str]) -> list[str]:
    return [str(argument) for argument in arguments]
