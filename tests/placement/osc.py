"""The `openstack` command with osc-placement."""

from __future__ import annotations

import shlex

from tests.command import Command

VERSION = "1.39"
SILENT = {("resource", "class", "create"), ("resource", "class", "set"), ("trait", "create"), ("trait", "show")}
"""Commands that print nothing (worth reading), besides those that delete."""


class Osc:
    """`await osc("resource provider list")`: what it printed, read as JSON, or None."""

    def __init__(self, command: Command) -> None:
        self._command = command

    async def __call__(self, line: str) -> object:
        return await self._command(*_words(line))

    async def refused(self, line: str) -> str:
        """What it says when Placement (or the command itself) says no."""
        return await self._command.refused(*_words(line))


def _words(line: str) -> list[str]:
    words = shlex.split(line)
    silent = bool({"delete", "unset"} & set(words)) or tuple(words[:3]) in SILENT or tuple(words[:2]) in SILENT
    return ["--os-placement-api-version", VERSION, *words, *([] if silent else ["-f", "json"])]
