"""Another of our services, asked in the caller's name and in this process: what Nova once did for clients by itself.

    a call to compute ─▶ ask(NETWORK, "GET", "/floatingips") ─▶ that service's own row: policy, body, handler ─▶ dict

Whatever is refused there is refused here, in this service's form of an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from multidict import MultiDict

from api.wire import Call, Reply
from api.wire.call import denied
from api.wire.route import Service
from api.wire.tables import Row, Tables
from schema.refusal import Forbidden, Invalid, NotFound, Refused

BEFORE_PROXIES_WENT = "2.35"
"""The last microversion in which compute speaks for other services (images' metadata: 2.38)."""
Query = Mapping[str, str]


async def network(call: Call, method: str, path: str, body: Any = None, query: Query | None = None) -> Any:
    """What the network service answers. Raises its refusals."""
    return await _ask(call, _network_rows(), method, path, body=body, query=query)


async def image(call: Call, method: str, path: str, query: Query | None = None) -> Any:
    """What the image service answers. Raises its refusals."""
    return await _ask(call, _image_rows(), method, path, query=query)


class _Rows:
    """The routes of one service, found as a request finds them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._tables = Tables()
        self._tables.mount(service, lambda service, route: None)
        self._prefix = [part for part in service.prefix.split("/") if part]

    def at(self, method: str, path: str) -> tuple[Row, dict[str, str]]:
        found = self._tables.find([*self._prefix, *(part for part in path.split("/") if part)])
        rows = found[0].rows.get(method) if found else None
        if found is None or not rows:
            raise NotFound("The resource could not be found.")
        return rows[-1], dict(zip(rows[-1].names, found[1], strict=True))


@cache
def _network_rows() -> _Rows:
    from api.network.service import SERVICE

    return _Rows(SERVICE)


@cache
def _image_rows() -> _Rows:
    from api.image.service import SERVICE

    return _Rows(SERVICE)


async def _ask(call: Call, rows: _Rows, method: str, path: str, *, body: Any = None, query: Query | None = None) -> Any:
    row, values = rows.at(method, path)
    route = row.route
    there = Call(call.cloud, call.policy, rows.service, call.request, call.request_id)
    there.token, there.global_id, there.raw_body = call.token, call.global_id, call.raw_body
    there.route, there.path, there.query = route, values, MultiDict(query or {})
    if route.may is not None and not call.may(route.may):
        raise denied(route.may)
    if route.body is not None:
        try:
            there.body = msgspec.convert(body, route.body, strict=not route.lenient)
        except msgspec.ValidationError as error:
            raise Invalid(f"Invalid input: {error}") from None
    if route.query is not None:
        there.params = msgspec.convert(query or {}, route.query, strict=False)
    try:
        result = await route.handler(there)
    except Refused as refused:
        if refused.code == "OverQuota":
            raise Forbidden(refused.message, code="QuotaError") from None
        raise
    if isinstance(result, Reply):
        result = result.body
    return msgspec.json.decode(result) if isinstance(result, bytes) else result
