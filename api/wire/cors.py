"""Cross-origin requests: web pages from elsewhere that a browser lets speak to the API, as the Fetch standard has it.

Tokens travel in a header that a page must set itself, so no cookies are let through (`credentials`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

ANY = "*"
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
TAKEN = frozenset(
    {
        "accept",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "openstack-api-version",
        "range",
        "x-auth-token",
        "x-openstack-nova-api-version",
        "x-openstack-request-id",
        "x-subject-token",
    }
)
"""Headers that pages may send."""
SHOWN = "ETag, Location, OpenStack-API-Version, Retry-After, X-Openstack-Request-Id, X-Subject-Token"
"""Headers that pages may read."""
REMEMBERED_SECONDS = 3600


def is_preflight(request: web.BaseRequest) -> bool:
    """A browser asks whether a page may ask."""
    headers = request.headers
    return request.method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def preflight(request: web.BaseRequest, origins: Sequence[str]) -> web.Response:
    """What a browser is told; nothing where the page's origin is not among those let in."""
    headers = dict(shared(request, origins))
    if headers:
        asked = [part.strip() for part in request.headers.get("Access-Control-Request-Headers", "").split(",")]
        headers["Access-Control-Allow-Methods"] = METHODS
        headers["Access-Control-Max-Age"] = str(REMEMBERED_SECONDS)
        if taken := [name for name in asked if name.lower() in TAKEN or name.lower().startswith("x-object-meta-")]:
            headers["Access-Control-Allow-Headers"] = ", ".join(taken)
    return web.Response(status=200, headers={**headers, "Vary": "Origin"})


def shared(request: web.BaseRequest, origins: Sequence[str]) -> Mapping[str, str]:
    """The headers that let a page read an answer."""
    origin = request.headers.get("Origin")
    if origin is None or not (origin in origins or ANY in origins):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": SHOWN}
