"""Documents as read models: one thing, many things by id, or a filtered, sorted page of a kind. One query each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal

import asyncpg
import msgspec

from bus.log import Document
from bus.postgres_log import document
from schema.event import Kind, kind_named
from schema.refusal import NotFound

LIMIT = 1000
"""Documents in one page, unless the caller asks for fewer (or, for inner use, more)."""

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~", "in", "not in", "contains", "has", "has not", "is"]

_COLUMNS = {"project_id", "parent_id", "name", "created_at", "updated_at", "version", "id", "gone"}
_NUMBERS = (int, float)


class Where(msgspec.Struct, frozen=True):
    """One condition on a document.

    `field` is a column (project_id, parent_id, name, id, created_at, updated_at) or a dotted path into the state
    (`status`, `flavor.id`). Operators: comparisons; `~` case-sensitive regular expression (PostgreSQL's); `in` a list;
    `contains` the state's object or array contains this JSON; `has` the state's array or object has this string,
    `has not` the opposite (true of one that is not there);
    `is` with True (present) or False (absent or default).
    """

    field: str
    op: Operator
    value: Any


class ParentIn(msgspec.Struct, frozen=True):
    """Its parent is one of the living things of a kind that meet these conditions, which are of columns."""

    kind: str
    where: Sequence[Where]


class AnyOf(msgspec.Struct, frozen=True):
    """One of several sets of conditions: `AnyOf([[a, b], [c]])` is (a and b) or c."""

    alternatives: Sequence[Sequence[Where | ParentIn]]


Condition = Where | ParentIn | AnyOf


def kinds_named(where: Sequence[Condition]) -> set[str]:
    """The kinds that conditions look into besides their own."""
    found: set[str] = set()
    for condition in where:
        if isinstance(condition, AnyOf):
            found = found.union(*map(kinds_named, condition.alternatives))
        elif isinstance(condition, ParentIn):
            found.add(condition.kind)
    return found


class Sort(msgspec.Struct, frozen=True):
    field: str
    descending: bool = False


NEWEST_FIRST = (Sort("created_at", True), Sort("id", True))
OLDEST_FIRST = (Sort("created_at"), Sort("id"))


class Documents:
    """Queries over the documents table. All raise ConnectionError/asyncpg errors when PostgreSQL is away."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def get(self, kind: Kind[Any], id: str, *, gone: bool = False) -> Document:
        """One thing. Raises NotFound when it never was, or is gone and `gone` was not asked for."""
        found = await self.pool.fetchrow(
            "SELECT stream, version, state FROM documents WHERE stream = $1", kind.stream(id)
        )
        if found is None or ((it := document(found)).state.deleted_at is not None and not gone):
            raise NotFound(f"{kind.name} {id} could not be found")
        return it

    async def get_many(self, kind: Kind[Any], ids: Sequence[str]) -> dict[str, Document]:
        """Things by id, whatever their state; those that never were are left out."""
        rows = await self.pool.fetch(
            "SELECT stream, version, state FROM documents WHERE stream = ANY($1)", [kind.stream(id) for id in ids]
        )
        return {it.id: it for it in map(document, rows)}

    async def named(self, kind: Kind[Any], name: str, *where: Where) -> list[Document]:
        """Every living thing of that name."""
        return await self.find(kind, where=(Where("name", "=", name), *where))

    async def find(
        self,
        kind: Kind[Any],
        *,
        where: Sequence[Condition] = (),
        sort: Sequence[Sort] = OLDEST_FIRST,
        limit: int | None = LIMIT,
        marker: str | None = None,
        gone: bool | None = False,
    ) -> list[Document]:
        """A page: past the thing whose id is `marker`, in that order. `gone`: False living, True deleted, None both.

        Raises NotFound when the marker is not of this kind.
        """
        query = await self._query(kind, where, sort, marker, gone=gone)
        rows = await self.pool.fetch(query.select("stream, version, state", sort, limit), *query.arguments)
        return [document(row) for row in rows]

    async def versions(
        self,
        kind: Kind[Any],
        *,
        where: Sequence[Condition] = (),
        sort: Sequence[Sort] = OLDEST_FIRST,
        limit: int | None = LIMIT,
        marker: str | None = None,
        gone: bool | None = False,
    ) -> list[tuple[str, int]]:
        """The same page as ids and versions, for who keeps what it made of the states."""
        query = await self._query(kind, where, sort, marker, gone=gone)
        rows = await self.pool.fetch(query.select("id, version", sort, limit), *query.arguments)
        return [(row[0], row[1]) for row in rows]

    async def count(self, kind: Kind[Any], *, where: Sequence[Condition] = (), gone: bool | None = False) -> int:
        """How many match."""
        query = await self._query(kind, where, (), None, gone=gone)
        return int(await self.pool.fetchval(query.select("count(*)", (), None), *query.arguments))

    async def _query(
        self,
        kind: Kind[Any],
        where: Sequence[Condition],
        sort: Sequence[Sort],
        marker: str | None,
        *,
        gone: bool | None,
    ) -> _Query:
        query = _Query(kind)
        if gone is not None:
            query.where(Where("gone", "=", gone))
        for condition in where:
            query.where(condition)
        if marker is not None:
            query.past(await self.get(kind, marker, gone=True), sort)
        return query


class _Query:
    """SQL put together from conditions; every value travels as an argument."""

    def __init__(self, kind: Kind[Any]) -> None:
        self.kind = kind_named(kind.name)
        self.arguments: list[Any] = [kind.name]
        self._conditions = ["kind = $1"]

    def where(self, condition: Condition) -> None:
        if isinstance(condition, AnyOf):
            sets = [" AND ".join(map(self._condition, each)) or "true" for each in condition.alternatives]
            self._conditions.append("(" + (" OR ".join(f"({each})" for each in sets) or "false") + ")")
        else:
            self._conditions.append(self._condition(condition))

    def _condition(self, condition: Where | ParentIn) -> str:
        if isinstance(condition, ParentIn):
            kind = self._argument(condition.kind)
            theirs = " AND ".join(["kind = " + kind, "NOT gone", *map(self._plain, condition.where)])
            return f"parent_id IN (SELECT id FROM documents WHERE {theirs})"
        if condition.field == "id" and condition.op == "=":
            return f"stream = {self._argument(self.kind.stream(condition.value))}"  # by key, however many there are
        return self._plain(condition)

    def _plain(self, condition: Where) -> str:
        field, op, value = condition.field, condition.op, condition.value
        if field == "gone":
            return "gone" if value else "NOT gone"
        if op == "is":
            there = f"{self._path(field)} IS NOT NULL"
            return there if value else f"NOT ({there})"
        if op == "contains":
            return f"{self._json(field)} @> {self._argument(_json(value))}::jsonb"
        if op == "has":
            return f"{self._json(field)} ? {self._argument(value)}"
        if op == "has not":
            return f"NOT coalesce({self._json(field)} ? {self._argument(value)}, false)"
        if op in ("in", "not in"):
            values = list(value)
            any_of = f"{self._value(field, values[0] if values else '')} = ANY({self._argument(values)})"
            return any_of if op == "in" else f"NOT coalesce({any_of}, false)"
        if value is None:
            return f"{self._path(field)} IS {'NOT ' if op == '!=' else ''}NULL"
        op_sql = "IS DISTINCT FROM" if op == "!=" else op
        return f"{self._value(field, value)} {op_sql} {self._argument(value)}"

    def past(self, marker: Document, sort: Sequence[Sort]) -> None:
        """Keep what comes after the marker in that order (keyset paging: stable under inserts and deletes)."""
        stream = self._argument(marker.stream)
        alternatives = []
        equal: list[str] = []
        for key in sort:
            mine = self._sort_key(key.field)
            theirs = f"(SELECT {mine} FROM documents WHERE stream = {stream})"
            alternatives.append(" AND ".join([*equal, f"{mine} {'<' if key.descending else '>'} {theirs}"]))
            equal.append(f"{mine} = {theirs}")
        self._conditions.append("(" + " OR ".join(f"({a})" for a in alternatives) + ")")

    def select(self, columns: str, sort: Sequence[Sort], limit: int | None) -> str:
        order = ", ".join(f"{self._sort_key(key.field)} {'DESC' if key.descending else 'ASC'}" for key in sort)
        return (
            f"SELECT {columns} FROM documents WHERE {' AND '.join(self._conditions)}"
            + (f" ORDER BY {order}" if order else "")
            + (f" LIMIT {self._argument(limit)}" if limit is not None else "")
        )

    def _argument(self, value: Any) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def _sort_key(self, field: str) -> str:
        if field in ("project_id", "parent_id", "name"):
            return f"coalesce({field}, '')"
        if field in _COLUMNS:
            return field
        default = _default(self.kind.name, field)
        return f"coalesce({self._value(field, default if isinstance(default, _NUMBERS) else '')}, {_zero(default)})"

    def _path(self, field: str) -> str:
        if field in _COLUMNS:
            return field
        parts = field.split(".")
        return f"(state #>> {self._argument(parts)}::text[])" if len(parts) > 1 else f"(state ->> {self._text(field)})"

    def _json(self, field: str) -> str:
        return f"(state #> {self._argument(field.split('.'))}::text[])"

    def _value(self, field: str, like: Any) -> str:
        """The field as the type of the value it is compared with; absent counts as the struct's default."""
        if field in _COLUMNS:
            # Only of names: that somebody has no project shows them nothing of what belongs to none.
            return f"coalesce({field}, '')" if field == "name" and like == "" else field
        path = self._path(field)
        default = _default(self.kind.name, field)
        if isinstance(like, bool):
            return f"coalesce({path}::boolean, {'true' if default else 'false'})"
        if isinstance(like, _NUMBERS):
            return f"coalesce({path}::double precision, {float(default or 0)})"
        if isinstance(like, datetime):
            return f"({path})::timestamptz"
        if isinstance(default, str) and (default or like == ""):
            return f"coalesce({path}, {self._text(default)})"
        return path

    def _text(self, literal: str) -> str:
        quoted = literal.replace("'", "''")
        return f"'{quoted}'"


@cache
def _default(kind: str, field: str) -> Any:
    """What a field (or a dotted path) has that is not in the JSON; None where there is no telling."""
    name, *path = field.split(".")
    for it in msgspec.structs.fields(kind_named(kind).state):
        if it.encode_name == name:
            default = it.default
            if default is msgspec.NODEFAULT:
                default = it.default_factory() if it.default_factory is not msgspec.NODEFAULT else None
            for part in path:
                default = getattr(default, part, None)
            return default
    return None


def _zero(default: Any) -> str:
    if isinstance(default, bool):
        return "false"
    return "0" if isinstance(default, _NUMBERS) else "''"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
