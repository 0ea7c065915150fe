"""A small client of the public HTTP API, as the admin: what `up`, `demo` and `down --guests` speak with.

Plain urllib: the verbs that use it have little to say, and must start fast.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from api.cli.screen import Failure
from bus.config import Settings

TIMEOUT_SECONDS = 60.0


class Answer(msgspec.Struct, frozen=True):
    """A response: its status, its headers (lower case) and its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body) if self.body else None


class Refusal(Failure):
    """The API has refused something."""

    def __init__(self, status: int, message: str, todo: str) -> None:
        super().__init__(message, todo)
        self.status = status


class Client:
    """Logged in once, with the services' addresses from the catalog."""

    def __init__(self, settings: Settings, token: str, endpoints: dict[str, str]) -> None:
        self._settings = settings
        self._token = token
        self._endpoints = endpoints

    def get(self, service: str, path: str, **headers: str) -> Any:
        return self.call("GET", service, path, None, **headers).json()

    def post(self, service: str, path: str, body: Any, **headers: str) -> Any:
        return self.call("POST", service, path, msgspec.json.encode(body), **headers).json()

    def call(self, method: str, service: str, path: str, body: bytes | Path | None, **headers: str) -> Answer:
        """One request; a `Path` is streamed from disk. Raises Refusal for what the API refuses."""
        url = self._endpoints[service].rstrip("/") + path
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = _request(method, url, body, {"X-Auth-Token": self._token, **named})
        if answer.status >= 400:
            raise Refusal(
                answer.status,
                f"{method} {url} answered {answer.status}: {_message(answer.body)}",
                f"Its request id is {answer.headers.get('x-openstack-request-id', '-')}: see `./cumulog logs`.",
            )
        return answer


def login(settings: Settings) -> Client:
    """As the admin, scoped to the project admin. Raises Failure."""
    user = {"name": "admin", "domain": {"id": "default"}, "password": admin_password(settings)}
    scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
    identity = {"methods": ["password"], "password": {"user": user}}
    body = msgspec.json.encode({"auth": {"identity": identity, "scope": scope}})
    answer = _request("POST", f"{settings.url}/identity/v3/auth/tokens", body, {})
    if answer.status != 201:
        raise Failure(
            f"the admin cannot log in: {answer.status} {_message(answer.body)}",
            f"Its password is kept in {settings.home / 'admin-password'}; was it changed through the API?",
        )
    endpoints = {
        service["type"]: endpoint["url"]
        for service in answer.json()["token"]["catalog"]
        for endpoint in service["endpoints"]
        if endpoint["interface"] == "public"
    }
    endpoints.setdefault("log", f"{settings.url}/log/v1")
    return Client(settings, answer.headers["x-subject-token"], endpoints)


def healthy(settings: Settings, timeout_seconds: float = 2.0) -> bool:
    """Whether the API answers and says that it can serve."""
    try:
        return _request("GET", f"{settings.url}/healthcheck", None, {}, timeout_seconds).status == 200
    except Failure:
        return False


def admin_password(settings: Settings) -> str:
    """The password `up` made. Raises Failure."""
    try:
        return (settings.home / "admin-password").read_text().strip()
    except OSError as error:
        raise Failure(
            f"the admin's password cannot be read: {error}", "Run `./cumulog up` first, as the same user."
        ) from None


def _request(
    method: str, url: str, body: bytes | Path | None, headers: dict[str, str], timeout_seconds: float = TIMEOUT_SECONDS
) -> Answer:
    headers = dict(headers)
    if isinstance(body, bytes):
        headers.setdefault("Content-Type", "application/json")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        if isinstance(body, Path):
            headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(body.stat().st_size)}
            with body.open("rb") as file:
                request = urllib.request.Request(url, file, headers, method=method)
                return _answer(opener.open(request, timeout=timeout_seconds * 10))
        request = urllib.request.Request(url, body, headers, method=method)
        return _answer(opener.open(request, timeout=timeout_seconds))
    except urllib.error.HTTPError as error:
        return _answer(error)
    except OSError as error:
        raise Failure(f"{url} does not answer ({error})", "Is the cloud up? See `./cumulog status`.") from None


def _answer(response: Any) -> Answer:
    with response:
        return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())


def _message(body: bytes) -> str:
    """The sentence inside any service's error body."""
    try:
        tree = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body[:200].decode(errors="replace")
    if isinstance(tree, dict):
        for value in [tree, *tree.values()]:
            if isinstance(value, dict) and "message" in value:
                return str(value["message"])
            if isinstance(value, list) and value and isinstance(value[0], dict) and "detail" in value[0]:
                return str(value[0]["detail"])
    return str(tree)[:200]
