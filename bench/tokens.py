"""What tokens cost: one validated inside a request, one verified for the first time, one issued for another scope.

python bench/tokens.py          (2 cores; PostgreSQL of its own, fsync on)
"""

import asyncio
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bus import clock
from bus.cloud import open_cloud
from bus.config import Settings
from bus.postgres import EmbeddedPostgres
from handlers.identity.bootstrap import bootstrap
from handlers.identity.login import Named, Scope, login
from handlers.identity.revocation import revoke
from handlers.identity.token import Token
from handlers.identity.tokens import tokens
from schema.identity.role import ROLE

REPEATS = 100_000
TOKENS = 1000


async def measure(settings: Settings, dsn: str) -> None:
    cloud = await open_cloud(settings, dsn)
    known = tokens(cloud)
    cloud.mirror(ROLE)
    await cloud.start()
    await bootstrap(cloud, "a password for the bench")

    admin = await login(cloud).with_password(
        Named(name="admin", domain_id="default"), "a password for the bench", Scope()
    )
    text = await known.sign(admin)
    print(f"token: {len(text)} characters, roles {', '.join(sorted(admin.roles))}")

    started = time.perf_counter()
    for _ in range(REPEATS):
        known.known(text)
    report("validated again (inside a request)", started, REPEATS)

    await cloud.executor.execute(*(wish for nth in range(1000) for wish in revoke(f"audit/{nth:022}")))
    started = time.perf_counter()
    for _ in range(REPEATS):
        known._round += 1  # noqa: SLF001  as a revocation elsewhere does
        known.known(text)
    report("validated again, a revocation before each, 1,000 in force", started, REPEATS)

    now = clock.now()
    expires = now + timedelta(hours=1)
    started = time.perf_counter()
    texts = [await known.sign(Token(user_id=f"{nth:032}", issued_at=now, expires_at=expires)) for nth in range(TOKENS)]
    report("signed (ES256)", started, TOKENS)
    known._verified.clear()  # noqa: SLF001  as in another process
    started = time.perf_counter()
    for each in texts:
        await known.verify(each)
    report("verified for the first time", started, TOKENS)

    started = time.perf_counter()
    for _ in range(TOKENS):
        await known.sign(await login(cloud).with_token(text, Scope(system=True)))
    report("scoped anew (all queries and the signature)", started, TOKENS)

    started = time.perf_counter()
    for _ in range(4):
        login(cloud).passwords._right.clear()  # noqa: SLF001  as after a while
        await login(cloud).with_password(Named(name="admin", domain_id="default"), "a password for the bench", Scope())
    report("logged in with a password never seen (bcrypt 12)", started, 4)
    started = time.perf_counter()
    for _ in range(200):
        await login(cloud).with_password(Named(name="admin", domain_id="default"), "a password for the bench", Scope())
    report("logged in again with the same password", started, 200)
    await cloud.close()


def report(what: str, started: float, count: int) -> None:
    seconds = time.perf_counter() - started
    print(f"{what:62} {seconds / count * 1000:9.4f} ms  {count / seconds:12,.0f}/s")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cumulog-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        server = EmbeddedPostgres(home)
        server.start()
        try:
            asyncio.run(measure(Settings(home=home), server.dsn()))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
