"""`?as_of=<position or time>` on any GET: the same answer, from the log as it was then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from multidict import MultiDict, MultiDictProxy

from api.wire.call import Call
from bus.past import cloud_as_of
from schema.refusal import Invalid

PARAMETER = "as_of"


def asks(call: Call) -> bool:
    """Whether a call is about the past."""
    return (
        PARAMETER + "=" in call.request.raw_path and call.request.method in {"GET", "HEAD"} and PARAMETER in call.query
    )


@asynccontextmanager
async def then(call: Call) -> AsyncIterator[None]:
    """The call's cloud is that of then until the block ends; its query no longer names the time.

    Raises Invalid when no such time was, or when the handler answered from memory, which only holds the present.
    """
    text = call.query[PARAMETER]
    call.query = MultiDictProxy(MultiDict([(k, v) for k, v in call.query.items() if k != PARAMETER]))
    async with cloud_as_of(call.cloud, text) as (cloud, documents):
        call.cloud = cloud
        yield
        if not documents.consulted:
            raise Invalid("as_of is not offered here; /log/v1/streams/<kind>/<id> tells any thing's whole story.")
