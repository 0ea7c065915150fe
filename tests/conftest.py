"""What every test may ask for: a PostgreSQL of its own, a database per module or per test, free ports, a RabbitMQ."""

import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from bus import postgres_log
from bus.config import Settings
from bus.postgres import EmbeddedPostgres

_databases = 0


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in a hook of its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Live tests share one process, so that daemons and guests never meet each other's; some name another one."""
    for item in items:
        if item.get_closest_marker("live") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("live"))


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path that PostgreSQL's system user can reach (pytest's own are closed and long)."""
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(short_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL without fsync, one per test process."""
    server = EmbeddedPostgres(short_folder, durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of an empty database, shared by a module's tests."""
    with _database(postgres) as dsn:
        yield dsn


@pytest.fixture
def fresh_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of an empty database for one test."""
    with _database(postgres) as dsn:
        yield dsn


@pytest.fixture
async def pool(fresh_database: str) -> AsyncIterator[asyncpg.Pool]:
    """Connections to a fresh database with the log's tables in it."""
    pool = await postgres_log.connect(fresh_database, maximum=8)
    await postgres_log.install(pool)
    yield pool
    await pool.close()


@pytest.fixture
def settings(short_folder: Path) -> Iterator[Settings]:
    """Settings with a home of their own."""
    home = Path(tempfile.mkdtemp(dir=short_folder))
    yield Settings(home=home, host_name="host-1", hypervisor="simulated")
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A TCP port on loopback that nobody listens on now."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def rabbitmq(short_folder: Path) -> Iterator[str]:
    """The URL of a running RabbitMQ; Debian's, on loopback, one per test process."""
    from bus.rabbitmq_server import RabbitServer

    given = os.environ.get("CUMULOG_TEST_AMQP")
    if given:
        yield given
        return
    server = RabbitServer(short_folder)
    server.start()
    yield server.url
    server.stop()


class _database:  # noqa: N801  reads as the context manager it is
    """A database that is made on entering and dropped on leaving, whoever is still connected."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        global _databases  # noqa: PLW0603
        _databases += 1
        self.server = server
        self.name = f"test_{_databases}"

    def __enter__(self) -> str:
        self._execute(f"CREATE DATABASE {self.name}")
        return self.server.dsn(self.name)

    def __exit__(self, *_: object) -> None:
        self._execute(f"DROP DATABASE {self.name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        """Through a loop in a thread of its own: fixtures run inside and outside of a test's loop."""
        import asyncio
        import threading

        async def run() -> None:
            connection = await asyncpg.connect(self.server.dsn("postgres"))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        failures: list[BaseException] = []

        def work() -> None:
            try:
                asyncio.run(run())
            except BaseException as error:  # noqa: BLE001  handed to the thread that waits for it
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
