"""Routes as data: method, path, handler, policy rule, body struct, microversion range. A service is a table of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from api.wire.call import Call
    from api.wire.errors import Errors
    from api.wire.microversion import Microversions
    from api.wire.policy import Check
    from schema.event import Kind

Handler = Callable[["Call"], Awaitable[Any]]
Version = tuple[int, int]

EARLIEST: Version = (0, 0)
LATEST: Version = (999, 999)


class Reply(msgspec.Struct, frozen=True):
    """An answer that is more than a body. `body`: a struct, dict or list (JSON), bytes (as they are), None (empty).

    `status` None is the route's own; `headers` are added to the usual ones.
    """

    body: Any = None
    status: int | None = None
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `path` is below the service's prefix: `/servers/{id}`; a last part `{rest*}` takes all that follows.

    `may` names a policy rule; `public` needs no token. `body`: a struct (decoding is validation), `bytes` (read whole),
    None (left unread: `call.request.content` streams it). `query`: a struct for the query string, found in
    `call.params`. `action` picks this row when the body's only key is that word (`{"os-start": null}`); `body` is then
    the struct of what the key holds. `since`/`until`: microversions, both inclusive.
    """

    method: str
    path: str
    handler: Handler
    may: str | None = None
    public: bool = False
    body: Any = None
    query: Any = None
    action: str | None = None
    answers: int = 200
    since: str | None = None
    until: str | None = None
    lenient: bool = False
    """Numbers and booleans written as strings are taken as meant, as Nova and Cinder do."""
    accepts: tuple[str, ...] = ("application/json",)
    """Content types of the body."""
    optional_body: bool = False
    """An empty body is as good as `{}`."""
    streams: bool = False
    """The handler reads or writes for as long as it takes."""
    first: Handler | None = None
    """What is looked at before the body: whether the thing in the path is there at all (404 before 400)."""

    @property
    def lowest(self) -> Version:
        return parse_version(self.since) if self.since else EARLIEST

    @property
    def highest(self) -> Version:
        return parse_version(self.until) if self.until else LATEST


def parse_version(text: str) -> Version:
    """`2.96` as (2, 96). Raises ValueError."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _row(method: str, answers: int) -> Callable[..., Route]:
    def make(path: str, handler: Handler, **fields: Any) -> Route:
        fields.setdefault("answers", answers)
        return Route(method=method, path=path, handler=handler, **fields)

    make.__name__ = method.capitalize()
    return make


Get = _row("GET", 200)
Head = _row("HEAD", 200)
Post = _row("POST", 201)
Put = _row("PUT", 200)
Patch = _row("PATCH", 200)
Delete = _row("DELETE", 204)


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One OpenStack service on the wire."""

    name: str
    """As in the catalog: `nova`, `keystone`."""
    type: str
    """As in the catalog: `compute`."""
    prefix: str
    """Where `routes` live: `/compute/v2.1`."""
    routes: Sequence[Route]
    errors: Errors
    microversions: Microversions | None = None
    policy: Mapping[str, Check | str] = {}
    """Rule → check, or an expression such as `role:member and project_id:%(project_id)s`."""
    catalog: str | None = None
    """Path of the catalog's URL, if it is not `prefix` (glance: `/image`). It may hold `$(project_id)s`."""
    roots: Sequence[Route] = ()
    """Routes at absolute paths, outside of the prefix: version documents."""
    project_in_path: bool = False
    """A project id may stand between prefix and path, as in old clients' URLs; it must be the token's."""
    mirrors: Sequence[Kind[Any]] = ()
    """Kinds its handlers read from memory: mirrored before the role serves."""
    extra_headers: Callable[[str], Mapping[str, str]] | None = None
    """request id → more headers on every answer (`X-Compute-Request-Id`)."""
    strict_queries: Version | None = None
    """From this microversion on a GET that takes no parameters refuses all; before, they are passed over."""
    hidden: bool = False
    """Not in the catalog."""
    body_refusal: Callable[[str, bytes], str] | None = None
    """How this service's clients are told what is wrong with a body, where they know other words than ours."""
    typed_bodies: bool = False
    """A body must name its content type (400); where one is expected and none comes, that is the wrong one (415)."""
    heads: bool = True
    """HEAD is answered wherever GET is."""
    body_first: bool = False
    """What is wrong with a body is said (400) before whether the caller may (403), as Neutron does."""
    json_or_nothing: bool = False
    """What a GET answers is JSON, and a client that accepts none is told so (406)."""
    trailing_slash: bool = False
    """`/users/` is as good as `/users`. Without it an empty last part is an unknown URL, never a whole list."""
