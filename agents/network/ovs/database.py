"""The database of a host's Open vSwitch (RFC 7047): what bridges and ports it is to have, and what it made of that.

`Database` keeps a copy of the rows of interest, which the server keeps up to date, and changes them by transactions.
Its own few lines because the `ovs` package's replica wants a poll loop and a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.network.ovs import jsonrpc
from agents.network.ovs.jsonrpc import RpcError

NAME = "Open_vSwitch"
COLUMNS = {
    "Open_vSwitch": ("bridges", "cur_cfg", "next_cfg", "other_config"),
    "Bridge": ("name", "ports", "datapath_type", "fail_mode", "external_ids", "other_config"),
    "Port": ("name", "interfaces", "qos", "external_ids", "tag", "trunks"),
    "Interface": ("name", "type", "ofport", "ofport_request", "external_ids", "error"),
    "QoS": ("type", "external_ids"),
}
"""What is copied, by table."""
SETTLED_SECONDS = 10.0

Row = dict[str, Any]
Operation = dict[str, Any]


class Database:
    """One connection; `gone` is called when the server went away."""

    def __init__(self, connection: jsonrpc.Connection, changed: Callable[[], None]) -> None:
        self._connection = connection
        self._changed = changed
        self._news = asyncio.Event()
        self.tables: dict[str, dict[str, Row]] = {name: {} for name in COLUMNS}
        """Table → UUID → column → value; sets as lists, maps as dicts, references as UUIDs."""

    async def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """All of it or nothing; one result for each. Raises RpcError."""
        results: list[Any] = await self._connection.ask("transact", [NAME, *operations])
        for result in results:
            if result and result.get("error"):
                raise RpcError(f"the switch's database refused: {result.get('details') or result['error']}")
        return results

    async def settled(self, operations: Sequence[Operation]) -> None:
        """Transact, and wait until the switch has done what that says. Raises RpcError."""
        bump = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        look = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}
        results = await self.transact([*operations, bump, look])
        wanted = results[-1]["rows"][0]["next_cfg"]
        try:
            async with asyncio.timeout(SETTLED_SECONDS):
                while self.root.get("cur_cfg", 0) < wanted:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise RpcError("the switch did not do what its database says: does ovs-vswitchd run?") from None

    @property
    def root(self) -> Row:
        """The one row of the table Open_vSwitch."""
        return next(iter(self.tables["Open_vSwitch"].values()), {})

    def named(self, table: str, name: str) -> tuple[str, Row] | None:
        """(UUID, row) of a bridge, port or interface."""
        return next(((uuid, row) for uuid, row in self.tables[table].items() if row["name"] == name), None)

    @property
    def gone(self) -> bool:
        """The server went away."""
        return self._connection.gone

    async def close(self) -> None:
        await self._connection.close()

    def take(self, updates: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> bool:
        """What the server tells of rows; whether any of it is of weight (not only a counter of configurations)."""
        weighty = False
        for table, rows in updates.items():
            for uuid, change in rows.items():
                if "new" in change:
                    before = self.tables[table].get(uuid, {})
                    after = {column: plain(value) for column, value in change["new"].items()}
                    self.tables[table][uuid] = {**before, **after}
                    weighty |= table != "Open_vSwitch"
                else:
                    self.tables[table].pop(uuid, None)
                    weighty = True
        self._news.set()
        return weighty

    def notified(self, method: str, params: list[Any]) -> None:
        if method == "update" and self.take(params[1]):
            self._changed()


async def opened(path: Path, changed: Callable[[], None], gone: Callable[[], None]) -> Database:
    """Connected, and with the copy filled. Raises RpcError."""
    holder: list[Database] = []

    def notified(method: str, params: list[Any]) -> None:
        if holder:
            holder[0].notified(method, params)

    connection = await jsonrpc.connect(path, notified, gone)
    database = Database(connection, changed)
    holder.append(database)
    try:
        asked = {table: {"columns": list(columns)} for table, columns in COLUMNS.items()}
        database.take(await connection.ask("monitor", [NAME, None, asked]))
        if not database.root:
            await database.transact([{"op": "insert", "table": "Open_vSwitch", "row": {}}])
    except BaseException:
        await connection.close()
        raise
    return database


def insert(table: str, name: str, row: Row) -> Operation:
    """`name` is what `made` refers to within the same transaction."""
    return {"op": "insert", "table": table, "uuid-name": name, "row": row}


def made(name: str) -> list[str]:
    return ["named-uuid", name]


def reference(uuid: str) -> list[str]:
    return ["uuid", uuid]


def update(table: str, uuid: str, row: Row) -> Operation:
    return {"op": "update", "table": table, "where": [["_uuid", "==", reference(uuid)]], "row": row}


def mutate(table: str, uuid: str | None, column: str, how: str, value: Any) -> Operation:
    """No UUID: every row."""
    where = [["_uuid", "==", reference(uuid)]] if uuid else []
    return {"op": "mutate", "table": table, "where": where, "mutations": [[column, how, value]]}


def many(items: Iterable[Any]) -> list[Any]:
    return ["set", list(items)]


def pairs(items: Mapping[str, str]) -> list[Any]:
    return ["map", [list(item) for item in items.items()]]


def plain(value: Any) -> Any:
    """A value of the wire: sets as lists, maps as dicts, references as UUIDs."""
    match value:
        case ["set", items]:
            return [plain(item) for item in items]
        case ["map", items]:
            return {key: plain(item) for key, item in items}
        case ["uuid" | "named-uuid", uuid]:
            return uuid
    return value
