"""The table of verbs. A verb's module is imported only when that verb is called, so that every start is a short one."""

from __future__ import annotations

import importlib
import sys

import click

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("api.cli.demo", "Start the cloud, boot two servers on a network, reach one from outside, tell its story."),
    "up": ("api.cli.up", "Start the whole cloud in the background, and say how to use it."),
    "down": ("api.cli.down", "Stop the cloud; its guests keep running unless --guests."),
    "status": ("api.cli.status", "Show what runs, where, since when, and how far behind it is."),
    "logs": ("api.cli.logs", "Show the logs of all processes, or of some; -f follows them."),
    "test": ("api.cli.testing", "Install what the tests need, then run them all."),
    "check": ("api.cli.testing", "Check format, lint, types and the laws of the tree."),
    "serve": ("api.cli.serve", "Run one role in the foreground: a real deployment's unit."),
    "outside": ("api.cli.outside", "Run a command in the world outside of this machine's cloud: ssh to a floating IP."),
    "events": ("api.cli.events", "Read the log: every event, or a stream's, or as they come."),
    "story": ("api.cli.events", "Tell one thing's life from the log, with times, actors and causes."),
    "why": ("api.cli.why", "Say why a server is on its host, or on none; or where one would go."),
    "host": ("api.cli.host", "List the hosts and what they hold; take one out of service, bring it back, forget it."),
    "drift": ("api.cli.drift", "Show where servers, claims, ports and hosts differ; changes nothing."),
    "rebuild": ("api.cli.maintain", "Fold all documents anew from the log; must change nothing."),
    "verify": ("api.cli.maintain", "Check the log: dense positions, versions, hash chain, documents."),
    "doctor": ("api.cli.doctor", "Look at this machine and say what is missing, and what to do."),
}


class Verbs(click.Group):
    """A click group that knows its verbs' help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(importlib.import_module(VERBS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, 1)
            hint = f"did you mean {near[0]}?" if near else "`./cumulog --help` lists the verbs"
            raise click.UsageError(f"{error.message.rstrip('.')}; {hint}", ctx) from None


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cumulog() -> None:
    """Cumulog: a cloud whose heart is a log. It speaks the OpenStack APIs."""


def main() -> None:
    from api.cli.screen import explain

    try:
        cumulog(prog_name="cumulog", standalone_mode=False)
    except click.exceptions.Exit as exit:
        sys.exit(exit.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:  # noqa: BLE001  the last line of defence: no person is shown a bare traceback
        sys.exit(explain(error))


if __name__ == "__main__":
    main()
