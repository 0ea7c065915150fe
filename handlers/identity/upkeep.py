"""What Identity does without being asked: signing keys change, old keys and lapsed revocations are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bus import clock
from bus.cloud import Cloud
from bus.execute import Wish
from bus.log import Document
from handlers.identity.revocation import REVOCATIONS
from handlers.identity.signing import SIGNING_KEYS, signing
from schema.event import Kind
from schema.identity.revocation import REVOCATION, LapseRevocation
from schema.identity.signing_key import SIGNING_KEY, ForgetSigningKey


class Upkeep:
    """A reactor: called when something is made, and by the sweep when its deadline has passed."""

    kinds: Sequence[Kind[Any]] = (SIGNING_KEY, REVOCATION)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._signing = signing(cloud)

    async def react(self, documents: Sequence[Document]) -> None:
        now = clock.now()
        for document in documents:
            if not document.state.living:
                continue
            if document.stream.startswith("revocation/"):
                if _past(document.state.lapse_at, now):
                    await self._cloud.executor.execute(Wish(REVOCATIONS, document.id, LapseRevocation()))
            elif document.state.current:
                if _past(document.state.rotate_at, now):
                    await self._signing.rotate()
            elif _past(document.state.forget_at, now):
                await self._cloud.executor.execute(Wish(SIGNING_KEYS, document.id, ForgetSigningKey()))


def _past(deadline: datetime | None, now: datetime) -> bool:
    return deadline is not None and deadline <= now
