"""Route tables compiled into a tree of path segments: a request walks it, and no table is ever scanned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from api.wire.route import Route, Service, Version


class Row:
    """A route ready to run."""

    __slots__ = ("decode", "highest", "lowest", "names", "route", "service", "tally")

    def __init__(self, service: Service, route: Route, names: tuple[str, ...], tally: Any) -> None:
        self.service = service
        self.route = route
        self.names = names
        self.lowest: Version = route.lowest
        self.highest: Version = route.highest
        struct = route.body not in (None, bytes)
        self.decode = msgspec.json.Decoder(route.body, strict=not route.lenient).decode if struct else None
        self.tally = tally


class Methods:
    """What one path answers to: method → rows in table order; actions apart, by their word."""

    __slots__ = ("actions", "rows")

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}
        self.actions: dict[str, dict[str, list[Row]]] = {}

    def add(self, row: Row) -> None:
        route = row.route
        if route.action is None:
            self.rows.setdefault(route.method, []).append(row)
        else:
            self.actions.setdefault(route.method, {}).setdefault(route.action, []).append(row)

    @property
    def allowed(self) -> str:
        """For the Allow header."""
        methods = {*self.rows, *self.actions}
        if any(row.service.heads for row in self.rows.get("GET", ())):
            methods.add("HEAD")
        return ", ".join(sorted(methods))


class Node:
    __slots__ = ("literal", "methods", "name", "rest", "service", "variable")

    def __init__(self) -> None:
        self.literal: dict[str, Node] = {}
        self.variable: Node | None = None
        self.rest: Methods | None = None
        self.methods: Methods | None = None
        self.service: Service | None = None
        """Set where a service's prefix ends: unknown URLs below are refused in its own way."""


class Tables:
    """Every route of every service."""

    def __init__(self) -> None:
        self.root = Node()
        self.rows: list[Row] = []

    def mount(self, service: Service, tally: Any) -> None:
        """Add a service's routes. Raises ValueError when two rows would answer the same request."""
        base = self._node(_parts(service.prefix))
        base.service = service
        root = self._node(_parts(service.prefix)[:1])
        root.service = root.service or service
        for route in service.roots:
            self._add(service, route, _parts(route.path), tally)
        for route in service.routes:
            self._add(service, route, _parts(service.prefix) + _parts(route.path), tally)

    def _add(self, service: Service, route: Route, parts: list[str], tally: Any) -> None:
        node = self.root
        names: list[str] = []
        rest = bool(parts) and parts[-1].startswith("{") and parts[-1].endswith("*}")
        for part in parts[:-1] if rest else parts:
            if part.startswith("{"):
                names.append(part[1:-1])
                if node.variable is None:
                    node.variable = Node()
                node = node.variable
            else:
                node = node.literal.setdefault(part, Node())
        if rest:
            names.append(parts[-1][1:-2])
            methods = node.rest = node.rest or Methods()
        else:
            methods = node.methods = node.methods or Methods()
        row = Row(service, route, tuple(names), tally(service, route))
        rivals = (
            methods.actions.get(route.method, {}).get(route.action, [])
            if route.action
            else methods.rows.get(route.method, [])
        )
        for rival in rivals:
            if row.lowest <= rival.highest and rival.lowest <= row.highest:
                raise ValueError(f"{service.name}: two routes answer {route.method} {route.path}")
        methods.add(row)
        self.rows.append(row)

    def _node(self, parts: Sequence[str]) -> Node:
        node = self.root
        for part in parts:
            node = node.literal.setdefault(part, Node())
        return node

    def find(self, parts: Sequence[str]) -> tuple[Methods, tuple[str, ...]] | None:
        """What answers at this path, and the values of its variable parts. A literal part wins over a variable one."""
        return _find(self.root, parts, 0, ())

    def service_at(self, parts: Sequence[str]) -> tuple[Service | None, int]:
        """The service whose prefix this path lies below, and how many parts that prefix has."""
        node, found, depth = self.root, None, 0
        for nth, part in enumerate(parts, start=1):
            if part not in node.literal:
                break
            node = node.literal[part]
            if node.service is not None:
                found, depth = node.service, nth
        return found, depth


def _find(node: Node, parts: Sequence[str], at: int, values: tuple[str, ...]) -> tuple[Methods, tuple[str, ...]] | None:
    if at == len(parts):
        return (node.methods, values) if node.methods is not None else None
    part = parts[at]
    literal = node.literal.get(part)
    if literal is not None:
        found = _find(literal, parts, at + 1, values)
        if found is not None:
            return found
    if node.variable is not None:
        found = _find(node.variable, parts, at + 1, (*values, part))
        if found is not None:
            return found
    if node.rest is not None:
        return node.rest, (*values, "/".join(parts[at:]))
    return None


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
