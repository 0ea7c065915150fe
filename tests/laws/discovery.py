"""Everything the laws are about, found by walking the tree."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from api.wire import Service
from bus.execute import AGGREGATES, Aggregate
from schema.event import Command, Event, Kind, kinds

ROOT = Path(__file__).parents[2]
LAYERS = ("schema", "bus", "handlers", "projections", "agents", "api")


@cache
def all_kinds() -> list[Kind[Any]]:
    """Those of the schema; tests beside these may have kinds of their own."""
    known = [kind for kind in kinds().values() if kind.state.__module__.startswith("schema.")]
    return sorted(known, key=lambda kind: kind.name)


@cache
def all_aggregates() -> list[Aggregate]:
    _import_all("handlers")
    return [AGGREGATES[kind.name] for kind in all_kinds() if kind.name in AGGREGATES]


@cache
def all_events() -> list[type[Event]]:
    return sorted((event for kind in all_kinds() for event in kind.events), key=lambda event: event.__name__)


@cache
def all_commands() -> list[type[Command]]:
    """Every command the schema knows; what they have in common is none itself."""
    all_kinds()
    found, waiting = [], [Command]
    while waiting:
        for command in waiting.pop().__subclasses__():
            waiting.append(command)
            if command.__module__.startswith("schema.") and not command.__subclasses__():
                found.append(command)
    return sorted(found, key=lambda command: command.__name__)


@cache
def all_services() -> list[Service]:
    """`SERVICE` of every api/<service>/service.py."""
    modules = [
        importlib.import_module(f"api.{path.parent.name}.service")
        for path in sorted((ROOT / "api").glob("*/service.py"))
    ]
    return [module.SERVICE for module in modules]


@cache
def all_sources() -> list[Path]:
    """Every Python file of the layers."""
    return sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _import_all(package: str) -> None:
    for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
        importlib.import_module(module.name)
