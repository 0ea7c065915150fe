"""One request on its way through a handler: who asks, for what, in which version, and the hands to answer with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from aiohttp import web
from msgspec.structs import replace
from multidict import MultiMapping

from api.wire.policy import Policy
from api.wire.query import parse
from api.wire.route import Route, Service, Version
from bus.cloud import Cloud
from bus.execute import Context, OtherVersion, Wish
from bus.log import Document
from handlers.identity.token import ANONYMOUS, Token
from schema.refusal import Forbidden, Refused

IDEMPOTENCY_HEADER = "Idempotency-Key"


class Call:
    """What a handler gets. Everything about the request, and nothing to do with HTTP it does not need."""

    __slots__ = (
        "_by",
        "_otherwise",
        "_query",
        "body",
        "cloud",
        "global_id",
        "headers",
        "params",
        "path",
        "policy",
        "project_in_path",
        "raw_body",
        "request",
        "request_id",
        "route",
        "service",
        "token",
        "version",
    )

    def __init__(
        self, cloud: Cloud, policy: Policy, service: Service, request: web.BaseRequest, request_id: str
    ) -> None:
        self.cloud = cloud
        self.policy = policy
        self.service = service
        self.request = request
        self.request_id = request_id
        self.global_id = ""
        """The client's own request id, shared by calls that belong together."""
        self.route: Route
        self.token: Token = ANONYMOUS
        self.project_in_path = ""
        self.path: dict[str, str] = {}
        self.version: Version = (0, 0)
        self.body: Any = None
        self.raw_body = b""
        self.params: Any = None
        self.headers: dict[str, str] = {}
        """Headers the answer will carry; a handler may add its own."""
        self._query: MultiMapping[str] | None = None
        self._by: Context | None = None
        self._otherwise: Callable[[int], Refused] | None = None

    @property
    def query(self) -> MultiMapping[str]:
        """The query string."""
        if self._query is None:
            self._query = parse(self.request.raw_path.partition("?")[2])
        return self._query

    @query.setter
    def query(self, query: MultiMapping[str]) -> None:
        self._query = query

    @property
    def by(self) -> Context:
        """Who asks, in which request: what `execute` wants to know."""
        if self._by is None:
            key = self.request.headers.get(IDEMPOTENCY_HEADER, "") if self.request.method == "POST" else ""
            fingerprint = ""
            if key:
                where = f"{self.token.project_id or self.token.user_id}:{self.request.method}:{self.request.path}"
                key = f"{where}:{key[:255]}"
                fingerprint = hashlib.sha256(self.raw_body).hexdigest()
            self._by = Context(
                actor=self.token.actor,
                request_id=self.request_id,
                causation=self.global_id,
                idempotency=key,
                fingerprint=fingerprint,
            )
        return self._by

    async def execute(self, *wishes: Wish) -> list[Document]:
        """Do all of it or none of it; the documents afterwards, one per wish.

        A repeated request (the same Idempotency-Key) gets one document, that of its first wish, as it is now: put the
        thing that is answered with first.
        """
        try:
            return await self.cloud.executor.execute(*wishes, by=self.by)
        except OtherVersion as other:
            raise (self._otherwise(other.version) if self._otherwise else other) from None

    def insist(self, document: Document, otherwise: Callable[[int], Refused]) -> None:
        """From now on nothing is executed when others changed this since. `otherwise`: how that is refused then."""
        self._by = replace(self.by, at={document.stream: document.version})
        self._otherwise = otherwise

    def may(self, rule: str, **target: Any) -> bool:
        """Whether policy lets the caller do this to a thing of that `project_id`, `user_id` or `domain_id`."""
        return self.policy.allows(rule, self.token, _plain(target))

    def must(self, rule: str, **target: Any) -> None:
        """The same, refusing with 403."""
        if not self.may(rule, **target):
            raise denied(rule)

    @property
    def host_url(self) -> str:
        """`http://host:port` as the client used it."""
        return f"{self.request.scheme}://{self.request.host}"

    def url(self, path: str = "") -> str:
        """An absolute URL inside the service: host and prefix as the client used them."""
        return f"{self.host_url}{self.service.prefix}{path}"


def denied(rule: str) -> Forbidden:
    """The 403 for a rule that said no."""
    return Forbidden(f"Policy doesn't allow {rule} to be performed.", code="PolicyNotAuthorized")


def _plain(target: dict[str, Any]) -> dict[str, Any]:
    """`target_project_id` is the same as `project_id`."""
    return {name.removeprefix("target_"): value for name, value in target.items()}
