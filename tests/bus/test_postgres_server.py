"""The embedded PostgreSQL: idempotent, back after kill -9, and not fooled by a process id that is another's now."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from bus.postgres import EmbeddedPostgres


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    home = Path(tempfile.mkdtemp(prefix="cumulog-"))
    home.chmod(0o711)
    server = EmbeddedPostgres(home, durable=False)
    yield server
    server.stop()
    shutil.rmtree(home)


async def _remember(server: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.dsn())
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_it_starts_once_and_stops_once(server):
    first = server.start()
    assert server.start() == first == server.pid
    assert await _remember(server, "SELECT 1") == 1
    assert server.stop()
    assert not server.stop()
    assert server.pid is None


async def test_it_leaves_large_pages_to_guests(server):
    server.start()
    assert await _remember(server, "SHOW huge_pages_status") == "off"
    assert await _remember(server, "SHOW huge_pages") == "off"


async def test_what_was_committed_is_there_after_kill_9(server):
    server.start()
    await _remember(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    await _remember(server, "CHECKPOINT")
    os.kill(server.pid, signal.SIGKILL)
    server.start()
    assert await _remember(server, "SELECT answer FROM kept") == 42


def test_a_lock_that_names_a_foreign_process_does_not_stop_it(server):
    server.start()
    server.stop()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n1\n5432\n\n\n 1 2\nready\n")
    assert server.pid is None
    assert server.start() != os.getpid()


def test_a_long_home_still_has_a_socket_it_can_bind(tmp_path_factory):
    home = Path("/tmp") / ("long-" * 30)
    assert len(str(EmbeddedPostgres(home).socket / ".s.PGSQL.5432")) < 108


def test_it_listens_on_no_port(server):
    server.start()
    inodes = {str(fd.readlink()) for fd in Path(f"/proc/{server.pid}/fd").iterdir()}
    tcp = {f"socket:[{line.split()[9]}]" for name in ("tcp", "tcp6") for line in _lines(f"/proc/net/{name}")}
    assert not inodes & tcp


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines()[1:] if file.exists() else []
