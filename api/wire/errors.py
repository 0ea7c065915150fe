"""How each service says no: status, message → body and headers, as the real services write them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

_encode = msgspec.json.Encoder().encode

JSON = "application/json"
HTML = "text/html; charset=UTF-8"


class Failure(msgspec.Struct, frozen=True):
    """What went wrong with one request."""

    status: int
    message: str
    code: str = ""
    """The refusal's machine-readable reason."""
    request_id: str = ""
    method: str = "GET"
    version: tuple[int, int] = (0, 0)
    accept: str = "*/*"
    limits: tuple[str, str] | None = None
    """Lowest and highest microversion, when the one asked for is neither."""


class Errors(Protocol):
    """A service's way of writing failures."""

    wrong_content_type: int
    """Status for a body of the wrong content type."""
    invalid: int
    """Status for a body or query that does not fit its struct."""
    token_first: bool
    """Whether even an unknown URL wants a token, as behind keystonemiddleware."""

    def write(self, failure: Failure) -> tuple[bytes, str]:
        """Body and content type."""


def title(status: int) -> str:
    """`Not Found`."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def unauthorized(message: str = "The request you have made requires authentication.") -> bytes:
    """The body of a 401 as keystonemiddleware writes it, for most services."""
    return _encode({"error": {"code": 401, "title": "Unauthorized", "message": message}})


class KeystoneErrors:
    """`{"error": {"code", "message", "title"}}`; an unknown URL is HTML; 405 is a bare message."""

    wrong_content_type = 400
    invalid = 400
    token_first = False

    def write(self, failure: Failure) -> tuple[bytes, str]:
        if failure.code == "UnknownUrl":
            return _page(failure), HTML
        if failure.status == 405:
            return _encode({"message": failure.message}), JSON
        error = {"code": failure.status, "message": failure.message, "title": title(failure.status)}
        return _encode({"error": error}), JSON


_FAULTS = {
    400: "badRequest",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


class FaultErrors:
    """Nova and Cinder: `{"itemNotFound": {"code", "message"}}`."""

    wrong_content_type = 415
    invalid = 400
    token_first = True

    def write(self, failure: Failure) -> tuple[bytes, str]:
        if failure.status == 401:
            return unauthorized(), JSON
        if failure.code == "UnknownUrl":
            return _page(failure), HTML
        fault: dict[str, Any] = {"code": failure.status, "message": failure.message}
        if failure.status in {413, 429}:
            fault["retryAfter"] = "0"
        return _encode({_FAULTS.get(failure.status, "computeFault"): fault}), JSON


class PlacementErrors:
    """`{"errors": [{status, title, detail, request_id, code}]}`; HTML for those who want no JSON."""

    wrong_content_type = 415
    invalid = 400
    token_first = True

    def write(self, failure: Failure) -> tuple[bytes, str]:
        if failure.status == 401:
            return unauthorized(), JSON
        explanation = _EXPLANATIONS.get(failure.status, title(failure.status))
        if failure.status == 405:
            explanation = f"The method {failure.method} is not allowed for this resource."
        if not wants_json(failure.accept):
            return _page(failure), HTML
        error: dict[str, Any] = {
            "status": failure.status,
            "title": title(failure.status),
            "detail": f"{explanation}\n\n {failure.message}  ",
            "request_id": failure.request_id,
        }
        if failure.limits:
            error["min_version"], error["max_version"] = failure.limits
        if failure.version >= (1, 23):
            known = failure.code.startswith("placement.")
            error["code"] = failure.code if known else "placement.undefined_code"
        return _encode({"errors": [error]}), JSON


class NeutronErrors:
    """`{"NeutronError": {"type", "message", "detail"}}`; the type is the refusal's code, SDKs map it to exceptions."""

    wrong_content_type = 400
    invalid = 400
    token_first = True

    def write(self, failure: Failure) -> tuple[bytes, str]:
        if failure.status == 401:
            return unauthorized(), JSON
        type = _NEUTRON_TYPES.get(failure.code, failure.code) or f"HTTP{title(failure.status).replace(' ', '')}"
        return _encode({"NeutronError": {"type": type, "message": failure.message, "detail": ""}}), JSON


_NEUTRON_TYPES = {"UnknownUrl": "HTTPNotFound", "Invalid": "HTTPBadRequest", "Unavailable": "HTTPServiceUnavailable"}


class GlanceErrors:
    """HTML, the message before the first `<br /><br />`."""

    wrong_content_type = 415
    invalid = 400
    token_first = True

    def write(self, failure: Failure) -> tuple[bytes, str]:
        return _page(failure), HTML


class HeatErrors:
    """`{"code", "title", "explanation", "error": {"message", "traceback", "type"}}`."""

    wrong_content_type = 400
    invalid = 400
    token_first = True

    def write(self, failure: Failure) -> tuple[bytes, str]:
        if failure.status == 401:
            return unauthorized(), JSON
        error = {"message": failure.message, "traceback": None, "type": failure.code or "HTTPError"}
        explanation = _EXPLANATIONS.get(failure.status, title(failure.status))
        answer = {"code": failure.status, "title": title(failure.status), "explanation": explanation, "error": error}
        return _encode(answer), JSON


class PlainErrors:
    """Cumulog's own doors: `{"error": {"code", "title", "message", "request_id"}}`."""

    wrong_content_type = 415
    invalid = 400
    token_first = False

    def write(self, failure: Failure) -> tuple[bytes, str]:
        error = {
            "code": failure.status,
            "title": title(failure.status),
            "message": failure.message,
            "request_id": failure.request_id,
        }
        return _encode({"error": error}), JSON


KEYSTONE = KeystoneErrors()
NOVA = FaultErrors()
CINDER = NOVA
PLACEMENT = PlacementErrors()
NEUTRON = NeutronErrors()
GLANCE = GlanceErrors()
HEAT = HeatErrors()
PLAIN = PlainErrors()

_EXPLANATIONS: Mapping[int, str] = {
    400: "The request does not fit what this URL takes.",
    403: "Access to this resource was denied.",
    404: "The resource could not be found.",
    405: "The method is not allowed for this resource.",
    406: "The resource is not there in the version asked for.",
    409: "The request conflicts with the present state of the resource.",
    500: "Something went wrong on our side; the request id finds it in the log.",
    503: "The service cannot answer right now; try again in a moment.",
}


def wants_json(accept: str) -> bool:
    """Whether JSON will do for a client that accepts this."""
    return not accept or "json" in accept or "*/*" in accept or "application/*" in accept


def _page(failure: Failure) -> bytes:
    head = f"{failure.status} {title(failure.status)}"
    message = escape(failure.message)
    return (
        f"<html>\n <head>\n  <title>{head}</title>\n </head>\n"
        f" <body>\n  <h1>{head}</h1>\n  {message}<br /><br />\n\n\n </body>\n</html>"
    ).encode()
