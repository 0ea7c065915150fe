"""From an HTTP request to a handler and back: the one path every call takes.

request id ─▶ path ─▶ microversion ─▶ token ─▶ policy ─▶ body ─▶ handler ─▶ bytes
               every refusal on the way is written as its own service writes it
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
import structlog
from aiohttp import web
from structlog.contextvars import bind_contextvars

from api.wire import body, cors, past
from api.wire.call import Call, denied
from api.wire.errors import PLAIN, Failure, wants_json
from api.wire.microversion import NotAcceptable
from api.wire.policy import Policy
from api.wire.query import convert, decoded
from api.wire.route import Reply, Route, Service
from api.wire.tables import Methods, Row, Tables
from api.wire.tally import Tallies, Tally
from bus import clock
from bus.cloud import Cloud
from handlers.identity.token import Unauthorized
from handlers.identity.tokens import tokens
from schema.refusal import Invalid, NotFound, Refused

log = structlog.get_logger()

HANDLING_SECONDS = 60
"""A handler that takes longer is ended with 503, unless its route streams."""
RETRY_AFTER_SECONDS = "1"
SEGMENTS = 64
"""Parts of a path, at most."""

_GLOBAL_ID = re.compile(r"req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PROJECT_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_encode = msgspec.json.Encoder().encode
_NOTHING: dict[str, str] = {}

AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
)
"""The log, the database or the bus cannot be reached (TimeoutError is an OSError): worth trying again."""


class _NoQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The query of what takes none."""


class UnknownUrl(NotFound):
    """No route has this path."""

    def __init__(self) -> None:
        super().__init__("The resource could not be found.")


class WrongMethod(Refused):
    """The path is there, the method is not (405)."""

    status = 405

    def __init__(self, allowed: str) -> None:
        super().__init__("The method is not allowed for the requested URL.")
        self.headers = {"Allow": allowed}


class NoOtherThanJson(Refused):
    """The client accepts no JSON, and there is nothing else (406)."""

    status = 406

    def __init__(self) -> None:
        super().__init__("Only application/json is provided")


class Dispatch:
    """Every service behind one handler for `aiohttp.web.Server`. Make it before the mirrors start."""

    def __init__(self, cloud: Cloud, services: Sequence[Service]) -> None:
        self.cloud = cloud
        self.services = tuple(services)
        self.tallies = Tallies()
        self.tables = Tables()
        rules: dict[str, Any] = {}
        for service in services:
            self.tables.mount(service, self._tally)
            rules.update(service.policy)
            for kind in service.mirrors:
                cloud.mirror(kind)
        self.policy = Policy(rules, cloud.settings.policy)
        for row in self.tables.rows:
            _check(row, self.policy)
        self._tokens = tokens(cloud)
        self._unmatched = self.tallies.one("none", "ANY", "unknown")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        started = clock.monotonic()
        request_id = clock.request_id()
        bind_contextvars(request_id=request_id)
        call = Call(self.cloud, self.policy, _NOBODY, request, request_id)
        origins = self.cloud.settings.allowed_origins
        if origins:
            if cors.is_preflight(request):
                return cors.preflight(request, origins)
            call.headers.update(cors.shared(request, origins))
        tally = self._unmatched
        try:
            methods, values = self._find(call)
            row = await self._row(call, methods, values)
            tally = row.tally
            answer = await self._run(call, row)
        except Exception as error:  # noqa: BLE001  the boundary: whatever it was, the client gets an answer
            answer = self._refuse(call, error)
        if origins and not answer.prepared:
            answer.headers["Vary"] = f"{answer.headers['Vary']}, Origin" if "Vary" in answer.headers else "Origin"
        tally.add(answer.status, clock.monotonic() - started)
        return answer

    def _find(self, call: Call) -> tuple[Methods, tuple[str, ...]]:
        """What answers at this path, and its variable parts. Sets the call's service, headers and version."""
        request = call.request
        call.headers["X-Openstack-Request-Id"] = call.request_id
        global_id = request.headers.get("X-Openstack-Request-Id")
        if global_id is not None and _GLOBAL_ID.fullmatch(global_id):
            call.global_id = global_id
        raw = request.raw_path.partition("?")[0]
        parts = [part for part in raw.split("/") if part]
        if "%" in raw or not raw.isascii():
            parts = [decoded(part) for part in parts]
        if len(parts) > SEGMENTS:
            raise UnknownUrl
        found = self.tables.find(parts)
        service, depth = self.tables.service_at(parts)
        if service is not None:
            call.service = service
            if raw.endswith("/") and depth == service.prefix.count("/") < len(parts) and not service.trailing_slash:
                found = None
            elif (
                found is None and service.project_in_path and len(parts) > depth and _PROJECT_ID.fullmatch(parts[depth])
            ):
                found = self.tables.find([*parts[:depth], *parts[depth + 1 :]])
                call.project_in_path = parts[depth]
            if service.extra_headers is not None:
                call.headers.update(service.extra_headers(call.request_id))
            microversions = service.microversions
            if microversions is not None:
                asked = microversions.asked(request.headers)
                latest = asked.lower() == "latest"
                shown = microversions.maximum if latest else asked or microversions.minimum
                call.headers.update(microversions.headers(_safe(shown)))
                call.version = microversions.negotiate(asked)
        if found is None:
            if call.service.errors.token_first:
                self._authenticate_known(call)
            raise UnknownUrl
        return found

    async def _row(self, call: Call, methods: Methods, values: tuple[str, ...]) -> Row:
        """The row for this method and version, the caller's token verified."""
        method = call.request.method
        rows = methods.rows.get(method)
        if rows is None and method == "HEAD" and call.service.heads:
            rows = methods.rows.get("GET")
        actions = methods.actions.get(method)
        if rows is None and actions is None:
            if call.service.errors.token_first:
                await self._authenticate(call)
            raise WrongMethod(methods.allowed)
        if actions is not None:
            await self._authenticate(call)
            word, held = body.decode_action(call, await body.whole(call), actions)
            row = _fitting(call, actions[word], values)
            self._authorize(call, row.route)
            call.body = body.decode_held(row, held)
            return row
        row = _fitting(call, rows or [], values)
        if not row.route.public:
            await self._authenticate(call)
            if not call.service.body_first:
                self._authorize(call, row.route)
            if (
                method == "GET"
                and call.service.json_or_nothing
                and not wants_json(call.request.headers.get("Accept", ""))
            ):
                raise NoOtherThanJson
        if row.route.body is not None:
            content = await body.whole(call)
            body.check_type(call, row, content)
        if row.route.first is not None:
            await row.route.first(call)
        if row.route.body is not None:
            call.body = body.decode(row, content)
        if call.service.body_first and not row.route.public:
            self._authorize(call, row.route)
        return row

    async def _run(self, call: Call, row: Row) -> web.StreamResponse:
        if not row.route.streams and past.asks(call):
            async with past.then(call):
                return await self._answer(call, row)
        return await self._answer(call, row)

    async def _answer(self, call: Call, row: Row) -> web.StreamResponse:
        route = call.route = row.route
        if route.query is not None:
            call.params = convert(call.query, route.query)
        elif route.method == "GET" and (strict := call.service.strict_queries) and call.version >= strict:
            convert(call.query, _NoQuery)
        if route.streams:
            result = await route.handler(call)
        else:
            async with asyncio.timeout(HANDLING_SECONDS):
                result = await route.handler(call)
        if isinstance(result, web.StreamResponse):
            return result
        headers, status, content_type = call.headers, route.answers, "application/json"
        if isinstance(result, Reply):
            headers.update(result.headers)
            status = route.answers if result.status is None else result.status
            content_type = result.content_type
            result = result.body
        if result is None:
            return web.Response(status=status, headers=headers)
        headers["Content-Type"] = content_type
        content = result if isinstance(result, bytes) else _encode(result)
        return web.Response(body=content, status=status, headers=headers)

    async def _authenticate(self, call: Call) -> None:
        text = call.request.headers.get("X-Auth-Token")
        if text is None:
            raise Unauthorized
        call.token = self._tokens.known(text) or await self._tokens.verify(text)
        if call.project_in_path and call.project_in_path != call.token.project_id:
            raise Invalid(
                f"Malformed request URL: its project id {call.project_in_path!r} is not the token's, "
                f"{call.token.project_id!r}"
            )

    def _authenticate_known(self, call: Call) -> None:
        """Enough of a look at the token to answer for a URL that is not there."""
        text = call.request.headers.get("X-Auth-Token")
        if text is None:
            raise Unauthorized

    def _authorize(self, call: Call, route: Route) -> None:
        if route.may is not None and not self.policy.allows(route.may, call.token, _NOTHING):
            raise denied(route.may)

    def _refuse(self, call: Call, error: Exception) -> web.Response:
        """A failure as the service writes it. What is not a refusal is logged, and told to nobody."""
        code, headers = "", dict(call.headers)
        if isinstance(error, Refused):
            status, message, code = error.status, error.message, error.code
            headers.update(getattr(error, "headers", _NOTHING))
        elif isinstance(error, asyncpg.DataError):
            status, message, code = 400, "A value in the request is out of what can be stored or compared.", "Invalid"
            log.info("value refused by the database", path=call.request.path, error=str(error))
        elif isinstance(error, RecursionError):
            status, message, code = 400, "The request is nested too deeply.", "Invalid"
        elif isinstance(error, AWAY):
            status, message, code = 503, "The service cannot be reached just now; try again in a moment.", "Unavailable"
            log.warning("answered 503", method=call.request.method, path=call.request.path, error=repr(error))
        else:
            status, code = 500, "InternalError"
            message = f"Something went wrong on our side; {call.request_id} finds it in the log."
            log.error("request failed", method=call.request.method, path=call.request.path, exc_info=error)
        if status == 401:
            headers["WWW-Authenticate"] = f'Keystone uri="{call.host_url}/identity"'
        if status == 503:
            headers["Retry-After"] = RETRY_AFTER_SECONDS
        failure = Failure(
            status=status,
            message=message,
            code=code,
            request_id=call.request_id,
            method=call.request.method,
            version=call.version,
            accept=call.request.headers.get("Accept", ""),
            limits=error.limits if isinstance(error, NotAcceptable) else None,
        )
        content, headers["Content-Type"] = call.service.errors.write(failure)
        return web.Response(body=content, status=status, headers=headers)

    def _tally(self, service: Service, route: Route) -> Tally:
        return self.tallies.one(service.type, route.method, service.prefix + route.path)


_NOBODY = Service(name="cumulog", type="cumulog", prefix="/", routes=(), errors=PLAIN, hidden=True)
"""Where a path belongs to no service."""


def _fitting(call: Call, rows: Sequence[Row], values: tuple[str, ...]) -> Row:
    """The row whose range of microversions holds the call's. Names the path's variable parts for its handler."""
    version = call.version
    for row in rows:
        if row.lowest <= version <= row.highest:
            for name, value in zip(row.names, values, strict=True):
                call.path[name] = value
            return row
    raise UnknownUrl


def _safe(text: str) -> str:
    """A client's words fit for a header."""
    return "".join(letter for letter in text[:16] if letter.isascii() and letter.isprintable())


def _check(row: Row, policy: Policy) -> None:
    route = row.route
    where = f"{row.service.name}: {route.method} {route.path}"
    if route.may is None and not route.public:
        raise ValueError(f"{where} names no policy rule (`may`), and is not public")
    if route.may is not None and route.may not in policy.rules:
        raise ValueError(f"{where}: there is no policy rule {route.may!r}")
