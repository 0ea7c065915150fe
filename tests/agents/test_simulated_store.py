"""Simulated guests outlive the agent that plays their hosts, however it ends."""

from pathlib import Path

import pytest

from agents.hypervisor.simulated_store import FILE, GROWTH, SAVE_SECONDS, SLACK_BYTES, Simulated, SimulatedStore
from schema.compute.domain import Observed
from tests.bus.conftest import until


@pytest.fixture
def store(tmp_path: Path) -> SimulatedStore:
    return SimulatedStore(tmp_path)


def put(store: SimulatedStore, host: str, id: str, *, console: str = "") -> None:
    store.domains(host)[id] = Simulated(Observed(server_id=id, power="running"), console=console)
    store.changed(host, id)


def remove(store: SimulatedStore, host: str, id: str) -> None:
    del store.domains(host)[id]
    store.changed(host, id)


def found(folder: Path, *hosts: str) -> dict[str, set[str]]:
    """What the next agent finds."""
    store = SimulatedStore(folder)
    return {host: set(store.domains(host)) for host in hosts}


async def test_domains_of_all_hosts_are_found_again(store, tmp_path):
    put(store, "h1", "a", console="a line\nand \u2028 another")
    put(store, "h1", "b")
    put(store, "h2", "c")
    remove(store, "h1", "b")
    store.save()
    assert found(tmp_path, "h1", "h2", "h3") == {"h1": {"a"}, "h2": {"c"}, "h3": set()}
    assert SimulatedStore(tmp_path).domains("h1")["a"] == store.domains("h1")["a"]


async def test_changes_are_written_without_anybody_asking(store, tmp_path):
    put(store, "h1", "a")
    await until(lambda: found(tmp_path, "h1") == {"h1": {"a"}}, 50 * SAVE_SECONDS)


async def test_a_host_that_is_not_played_for_a_while_keeps_what_it_has(store, tmp_path):
    put(store, "h1", "a")
    put(store, "h2", "b")
    store.save()
    between = SimulatedStore(tmp_path)
    put(between, "h1", "c")
    between.save()
    assert found(tmp_path, "h1", "h2") == {"h1": {"a", "c"}, "h2": {"b"}}


async def test_a_line_that_was_cut_off_costs_nothing_but_itself(store, tmp_path):
    put(store, "h1", "a")
    store.save()
    put(store, "h1", "b")
    store.save()
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-9])
    put(store, "h1", "c")
    store.save()
    assert found(tmp_path, "h1") == {"h1": {"a", "c"}}


async def test_the_file_does_not_grow_for_ever(store, tmp_path):
    for id in "ab":
        put(store, "h1", id, console="x" * 16_000)
    store.save()
    for _ in range(400):
        put(store, "h1", "a", console="y" * 16_000)
        store.save()
    assert (tmp_path / FILE).stat().st_size < GROWTH * 33_000 + SLACK_BYTES + 33_000
    assert SimulatedStore(tmp_path).domains("h1")["a"].console.startswith("y")
