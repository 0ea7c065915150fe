"""What each host must have, piece by piece, as of the position that last changed it: what network agents are told from.

    events ─▶ model ─▶ pieces that differ from the table's ─▶ network_host_v2 ─┬─▶ after the commit: deltas
                                                                                └─▶ `behind`: what a host lacks

What hosts have in common is there once, under a holder of its own. A piece that is gone stays as a tombstone, so that a
delta can say so. Whoever is behind the horizon, before which tombstones are missing, is told everything.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import asyncpg

from bus.consumer import Apply, Projection
from bus.log import Recorded
from bus.postgres_log import document
from projections.network.delta import Change, Common, Delta, Deltas, deltas
from projections.network.model import Model
from projections.network.places import COMMON, Place
from projections.network.relations import KINDS
from schema.network.wiring import Piece, decode_piece, encode

ROWS_AT_ONCE = 5000
"""Pieces in one statement, at most."""
KEPT_POSITIONS = 1_000_000
"""How long a tombstone stays, counted in events of the log."""
PRUNED_EVERY_POSITIONS = 10_000

NETWORK_HOSTS = Projection(
    "network.host",
    version=2,
    reads=chain.from_iterable(kind.events for kind in KINDS),
    tables="""
CREATE TABLE IF NOT EXISTS network_host_v2 (
    host     text COLLATE "C" NOT NULL,
    key      text COLLATE "C" NOT NULL,
    position bigint  NOT NULL,
    gone     boolean NOT NULL,
    piece    jsonb,
    PRIMARY KEY (host, key)
);
CREATE INDEX IF NOT EXISTS network_host_v2_since ON network_host_v2 (host, position);
CREATE INDEX IF NOT EXISTS network_host_v2_gone ON network_host_v2 (position) WHERE gone;
CREATE TABLE IF NOT EXISTS network_host_v2_horizon (position bigint NOT NULL);
""",
)


async def behind(pool: asyncpg.Pool, holding: Mapping[str, int]) -> Deltas:
    """What hosts lack that hold everything up to these positions. A few queries for all of them.

    Hosts that lack nothing are left out; all are while the projection is yet to be built.
    """
    # One snapshot: what is told as of a position must be all there is up to it.
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        horizon, head = await connection.fetchrow(_HORIZON)
        if horizon is None:
            return {}
        # Whoever holds what is yet to happen has it from a log that was restored since.
        asked = {host: position if horizon <= position <= head else 0 for host, position in holding.items()}
        found = {
            host: Delta(since=0, position=horizon, full=True)
            for host, position in holding.items()
            if not horizon <= position <= head
        }
        for host, key, position, piece in await connection.fetch(_BEHIND, list(asked), list(asked.values())):
            delta = found.setdefault(host, Delta(since=asked[host], position=0, full=asked[host] == 0))
            delta.position = max(delta.position, position)
            if piece is not None:
                delta.pieces[key] = decode_piece(piece)
            elif not delta.full:
                delta.gone.append(key)
        follows = await connection.fetch(_FOLLOWS, list(asked), list(asked.values()))
        news = await _news(connection, follows)
    for host, name, since in follows:
        common = news[name].since(since)
        if common is not None:
            delta = found.setdefault(host, Delta(since=asked[host], position=0, full=asked[host] == 0))
            delta.position = max(delta.position, news[name].position)
            delta.common.append(common)
    return found


class _News:
    """What changed of one thing that hosts have in common, in the order of positions."""

    def __init__(self, of: str) -> None:
        self._of = of
        self._positions: list[int] = []
        self._rows: list[tuple[str, Piece | None]] = []
        self._commons: dict[int, Common] = {}

    @property
    def position(self) -> int:
        """The newest."""
        return self._positions[-1]

    def add(self, position: int, key: str, piece: Piece | None) -> None:
        self._positions.append(position)
        self._rows.append((key, piece))

    def since(self, position: int) -> Common | None:
        """The same object for all who lack the same; None: nothing."""
        start = bisect_right(self._positions, position)
        if start == len(self._rows):
            return None
        if start not in self._commons:
            rows = self._rows[start:]
            self._commons[start] = Common(
                self._of,
                {key: piece for key, piece in rows if piece is not None},
                [key for key, piece in rows if piece is None],
            )
        return self._commons[start]


async def _news(connection: Any, follows: Iterable[tuple[str, str, int]]) -> dict[str, _News]:
    """By name, of all that is followed, from where the one begins who lacks the most."""
    sinces: dict[str, int] = {}
    for _, name, since in follows:
        sinces[name] = min(since, sinces.get(name, since))
    news = {name: _News(name.removeprefix(COMMON)) for name in sinces}
    for name, key, position, piece in await connection.fetch(_COMMON, list(sinces), list(sinces.values())):
        news[name].add(position, key, decode_piece(piece) if piece is not None else None)
    return news


async def hosts_of(pool: asyncpg.Pool, network_id: str = "") -> dict[str, set[str]]:
    """Network → the hosts that have it; of all networks, or of one."""
    found: dict[str, set[str]] = {}
    for key, host in await pool.fetch(_HOSTS_OF, f"network/{network_id or '%'}"):
        found.setdefault(key.partition("/")[2], set()).add(host)
    return found


class Keeper:
    """One worker's `apply`: it holds the model, and puts down what differs."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._newest: dict[str, int] = {}
        """Host → position of its newest piece."""
        self._floor = 0
        self._pruned = 0

    async def __call__(self, tx: Any, events: Sequence[Recorded]) -> Deltas | None:
        """Deltas by host, for the agents; None when nothing changed."""
        if self._model is None:
            touched = await self._load(tx)
        else:
            touched = []
        assert self._model is not None
        for event in events:
            self._model.apply(event)
        touched += self._model.take()
        position = max(self._floor, events[-1].position)
        deltas = await self._put(tx, dict.fromkeys(touched), position)
        if position - self._pruned >= PRUNED_EVERY_POSITIONS:
            await self._prune(tx, position)
        return deltas or None

    async def _load(self, tx: Any) -> list[Place]:
        """The model from the documents as they are now; all that it or the table has is then looked at.

        Events up to there change nothing more, so every position something is written at comes after all before.
        """
        model = self._model = Model()
        rows = await tx.fetch(_DOCUMENTS, [kind.name for kind in KINDS])
        self._floor = rows[0][0]
        documents = [document(row[1:]) for row in rows if row[1] is not None]
        for kind in KINDS:
            prefix = kind.stream("")
            model.load(kind, self._floor, [it for it in documents if it.stream.startswith(prefix)])
        model.take()
        self._newest = dict(await tx.fetch(_NEWEST))
        if await tx.fetchval("SELECT max(position) FROM network_host_v2_horizon") is None:
            await tx.execute("INSERT INTO network_host_v2_horizon VALUES ($1)", self._floor)
        held = await tx.fetch("SELECT host, key FROM network_host_v2 WHERE NOT gone")
        return [
            *((row[0], row[1]) for row in held),
            *((holder, key) for holder in model.holders() for key in model.keys(holder)),
        ]

    async def _put(self, tx: Any, touched: Iterable[Place], position: int) -> Deltas:
        changed: dict[Place, Change] = {}
        for places in _portions(list(touched)):
            changed |= await self._put_some(tx, places, position)
        assert self._model is not None
        return deltas(self._model, self._newest, position, changed)

    async def _put_some(self, tx: Any, places: Sequence[Place], position: int) -> dict[Place, Change]:
        model = self._model
        assert model is not None
        pieces = {(holder, key): model.piece(holder, key) for holder, key in places}
        changed = await tx.fetch(
            _PUT,
            [holder for holder, _ in pieces],
            [key for _, key in pieces],
            [encode(piece).decode() if piece is not None else None for piece in pieces.values()],
            [model.news_by_generation(key) for _, key in pieces],
            position,
        )
        return {(holder, key): Change(pieces[holder, key], fresh) for holder, key, fresh in changed}

    async def _prune(self, tx: Any, position: int) -> None:
        self._pruned = position
        oldest = position - KEPT_POSITIONS
        if await tx.fetchval("SELECT EXISTS (SELECT FROM network_host_v2 WHERE gone AND position <= $1)", oldest):
            await tx.execute("DELETE FROM network_host_v2 WHERE gone AND position <= $1", oldest)
            await tx.execute("UPDATE network_host_v2_horizon SET position = greatest(position, $1)", oldest)


@NETWORK_HOSTS.begins
def begin() -> Apply:
    return Keeper()


def _portions(places: Sequence[Place]) -> Iterable[Sequence[Place]]:
    for start in range(0, len(places), ROWS_AT_ONCE):
        yield places[start : start + ROWS_AT_ONCE]


_DOCUMENTS = """
SELECT h.position, d.stream, d.version, d.state
FROM head h LEFT JOIN documents d ON d.kind = ANY($1) AND NOT d.gone ORDER BY d.created_at, d.id
"""
"""One statement, so that all kinds are true at the same position."""

_PUT = """
WITH said AS (
  SELECT s.host, s.key, s.piece::jsonb AS piece, s.exactly, t.piece AS before, coalesce(t.gone, true) AS nothing
  FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[]) AS s (host, key, piece, exactly)
  LEFT JOIN network_host_v2 t ON t.host = s.host AND t.key = s.key
), differing AS (
  SELECT host, key, piece, nothing FROM said
  WHERE CASE
    WHEN piece IS NULL THEN NOT nothing
    WHEN nothing OR exactly THEN piece IS DISTINCT FROM before
    ELSE piece - 'generation' IS DISTINCT FROM before - 'generation'
  END
), put AS (
  INSERT INTO network_host_v2 (host, key, position, gone, piece)
  SELECT host, key, $5, piece IS NULL, piece FROM differing
  ON CONFLICT (host, key) DO UPDATE SET position = EXCLUDED.position, gone = EXCLUDED.gone, piece = EXCLUDED.piece
)
SELECT host, key, nothing FROM differing
"""
"""Only what differs is written; for some a generation alone makes no difference."""

_HORIZON = "SELECT (SELECT max(position) FROM network_host_v2_horizon), (SELECT position FROM head)"

_HOSTS_OF = "SELECT key, host FROM network_host_v2 WHERE key LIKE $1 AND NOT gone"

_BEHIND = """
SELECT a.host, t.key, t.position, t.piece
FROM unnest($1::text[], $2::bigint[]) AS a (host, position)
JOIN network_host_v2 t ON t.host = a.host AND t.position > a.position
ORDER BY t.position
"""

_FOLLOWS = """
SELECT a.host, '*' || t.key, CASE WHEN t.position > a.position THEN 0 ELSE a.position END
FROM unnest($1::text[], $2::bigint[]) AS a (host, position)
JOIN network_host_v2 t ON t.host = a.host AND NOT t.gone AND (t.key LIKE 'network/%' OR t.key LIKE 'members/%')
"""
"""Whoever does not know that it follows, lacks all of it."""

_COMMON = """
SELECT t.host, t.key, t.position, t.piece
FROM unnest($1::text[], $2::bigint[]) AS c (name, since)
JOIN network_host_v2 t ON t.host = c.name AND t.position > c.since
ORDER BY t.position
"""

_NEWEST = """
SELECT t.host, greatest(max(t.position), max(c.position))
FROM network_host_v2 t
LEFT JOIN (SELECT host, max(position) AS position FROM network_host_v2 WHERE host LIKE '*%' GROUP BY host) c
  ON c.host = '*' || t.key AND NOT t.gone
WHERE t.host NOT LIKE '*%' GROUP BY t.host
"""
"""Host → position of the newest of what it must have."""
