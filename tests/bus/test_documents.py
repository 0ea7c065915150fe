"""Documents as read models: pages put together are the whole list, whatever the order and the filter."""

import random
from collections.abc import Callable

import asyncpg
import pytest

from bus.documents import NEWEST_FIRST, OLDEST_FIRST, Documents, Sort, Where
from bus.execute import Executor
from bus.log import Document
from bus.postgres_log import PostgresLog
from schema.refusal import NotFound
from tests.bus.words import TALLY, Add, End, Rename, wish


@pytest.fixture
async def documents(pool: asyncpg.Pool) -> Documents:
    """Sixty tallies: some with the same count, some without a name, some gone."""
    executor = Executor(PostgresLog(pool))
    chance = random.Random(7)
    for start in range(0, 60, 10):  # ten at a time share their created_at
        await executor.execute(
            *(wish(f"t{n:02}", Add(by=chance.choice([0, 1, 1, 5, 20]))) for n in range(start, start + 10))
        )
    await executor.execute(*(wish(f"t{n:02}", Rename(name=chance.choice("äbZ ") + f"{n % 7}-{n}")) for n in range(40)))
    await executor.execute(*(wish(f"t{n:02}", End()) for n in range(0, 60, 9)))
    await executor.close()
    return Documents(pool)


SORTS = [
    OLDEST_FIRST,
    NEWEST_FIRST,
    (Sort("name"), Sort("id")),
    (Sort("name", descending=True), Sort("id")),
    (Sort("count"), Sort("created_at", descending=True), Sort("id", descending=True)),
    (Sort("count", descending=True), Sort("id")),
    (Sort("id"),),
]


@pytest.mark.parametrize("gone", [False, True, None])
@pytest.mark.parametrize("sort", SORTS)
async def test_pages_put_together_are_the_whole_list(documents: Documents, sort: tuple[Sort, ...], gone: bool | None):
    whole = await documents.find(TALLY, sort=sort, gone=gone)
    assert len(whole) == {False: 53, True: 7, None: 60}[gone]
    for size in (1, 7, 52, 60):
        pages: list[Document] = []
        while page := await documents.find(
            TALLY, sort=sort, gone=gone, limit=size, marker=pages[-1].id if pages else None
        ):
            pages += page
        assert [d.id for d in pages] == [d.id for d in whole]


@pytest.mark.parametrize("sort", SORTS)
async def test_the_order_is_what_was_asked_for(documents: Documents, sort: tuple[Sort, ...]):
    found = await documents.find(TALLY, sort=sort)
    expected = list(found)
    for key in reversed(sort):
        expected.sort(key=lambda d, key=key: getattr(d.state, key.field), reverse=key.descending)  # type: ignore[misc]
    assert [d.id for d in found] == [d.id for d in expected]


FILTERS: list[tuple[Where, Callable[[Document], bool]]] = [
    (Where("count", "=", 1), lambda d: d.state.count == 1),
    (Where("count", "=", 0), lambda d: d.state.count == 0),
    (Where("count", "!=", 0), lambda d: d.state.count != 0),
    (Where("count", ">=", 5), lambda d: d.state.count >= 5),
    (Where("count", "<", 1), lambda d: d.state.count < 1),
    (Where("count", "in", [0, 20]), lambda d: d.state.count in (0, 20)),
    (Where("count", "not in", [0, 20]), lambda d: d.state.count not in (0, 20)),
    (Where("name", "~", "^[bZ]"), lambda d: d.state.name[:1] in ("b", "Z")),
    (Where("name", "is", True), lambda d: bool(d.state.name)),
    (Where("name", "is", False), lambda d: not d.state.name),
    (Where("name", "in", []), lambda d: False),
    (Where("id", "in", ["t05", "t06", "none"]), lambda d: d.id in ("t05", "t06")),
    (Where("project_id", "=", "p1"), lambda d: True),
    (Where("project_id", "=", "p2"), lambda d: False),
    (Where("name", "=", "'; DROP TABLE events; --"), lambda d: False),
]


@pytest.mark.parametrize("where, fits", FILTERS, ids=lambda it: f"{it.field} {it.op}" if isinstance(it, Where) else "")
async def test_a_filter_keeps_what_fits(documents: Documents, where: Where, fits: Callable[[Document], bool]):
    everything = await documents.find(TALLY)
    kept = await documents.find(TALLY, where=[where])
    assert [d.id for d in kept] == [d.id for d in everything if fits(d)]
    assert await documents.count(TALLY, where=[where]) == len(kept)


async def test_a_page_after_a_marker_that_is_gone_still_follows_it(documents: Documents):
    whole = await documents.find(TALLY, gone=None)
    marker = next(d for d in whole if d.state.deleted_at is not None)
    living_after = [d.id for d in whole[whole.index(marker) :] if d.state.deleted_at is None]
    assert [d.id for d in await documents.find(TALLY, marker=marker.id)] == living_after


async def test_an_unknown_marker_and_an_unknown_thing_are_not_found(documents: Documents):
    with pytest.raises(NotFound):
        await documents.find(TALLY, marker="never")
    with pytest.raises(NotFound):
        await documents.get(TALLY, "never")
    with pytest.raises(NotFound):
        await documents.get(TALLY, "t00")
    assert (await documents.get(TALLY, "t00", gone=True)).state.deleted_at is not None


async def test_many_by_id_and_by_name(documents: Documents):
    assert set(await documents.get_many(TALLY, ["t01", "t02", "never"])) == {"t01", "t02"}
    one = (await documents.get_many(TALLY, ["t01"]))["t01"]
    assert [d.id for d in await documents.named(TALLY, one.state.name)] == ["t01"]
