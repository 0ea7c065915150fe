"""Keys change and old things are forgotten without being asked."""

from datetime import timedelta

import jwt

from bus import clock
from handlers.identity.upkeep import Upkeep
from schema.identity.revocation import REVOCATION
from schema.identity.signing_key import SIGNING_KEY
from tests.identity.conftest import Identity


class Later(clock.Clock):
    def __init__(self, by: timedelta) -> None:
        self.by = by

    def now(self):
        return super().now() + self.by


async def test_a_revocation_lapses_and_a_key_is_changed_when_they_are_due(identity: Identity):
    cloud = identity.api.cloud
    upkeep = Upkeep(cloud)
    text = await identity.token()
    await identity.call("DELETE", "/auth/tokens", headers={"X-Subject-Token": text})
    assert [d.stream.split("/")[0] for d in await cloud.log.due(clock.now())] == []
    before = clock.use(Later(timedelta(days=31)))
    try:
        due = await cloud.log.due(clock.now())
        assert {document.stream.split("/")[0] for document in due} == {"revocation", "signing_key"}
        await upkeep.react(due)
        assert await cloud.log.due(clock.now()) == []
        assert await cloud.documents.find(REVOCATION) == []
        keys = await cloud.documents.find(SIGNING_KEY)
        assert [key.state.current for key in keys] == [False, True]
        assert jwt.get_unverified_header(await identity.token())["kid"] == keys[1].id
    finally:
        clock.use(before)
