"""Tokens: `/v3/auth/tokens` (had, shown, checked, revoked), and what a token may reach."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.identity import domain, project
from api.identity.words import whole
from api.wire import Call, Delete, Get, Post, Reply
from api.wire.query import boolean
from bus.log import Document
from handlers.identity.access import domains_of, has_system, projects_of
from handlers.identity.login import Named, Scope, login
from handlers.identity.revocation import revoke
from handlers.identity.token import Token, Unauthorized
from handlers.identity.tokens import tokens
from schema.identity.catalog import ENDPOINT, SERVICE
from schema.identity.user import USER
from schema.refusal import Forbidden, Invalid, NotFound

Word = Annotated[str, Meta(max_length=255)]


class DomainName(msgspec.Struct):
    id: Word | None = None
    name: Word | None = None


class UserPassword(msgspec.Struct):
    password: str
    id: Word | None = None
    name: Word | None = None
    domain: DomainName | None = None


class UserName(msgspec.Struct):
    id: Word | None = None
    name: Word | None = None
    domain: DomainName | None = None


class PasswordMethod(msgspec.Struct):
    user: UserPassword


class TokenMethod(msgspec.Struct):
    id: str


class CredentialMethod(msgspec.Struct):
    secret: str
    id: Word | None = None
    name: Word | None = None
    user: UserName | None = None


class AuthIdentity(msgspec.Struct):
    methods: Annotated[list[Word], Meta(max_length=8)]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None
    application_credential: CredentialMethod | None = None


class ScopeProject(msgspec.Struct):
    id: Word | None = None
    name: Word | None = None
    domain: DomainName | None = None


class ScopeSystem(msgspec.Struct):
    all: bool = False


class AuthScope(msgspec.Struct):
    project: ScopeProject | None = None
    domain: DomainName | None = None
    system: ScopeSystem | None = None
    unscoped: dict[str, Any] | None = None


class Auth(msgspec.Struct):
    identity: AuthIdentity
    scope: AuthScope | str | None = None


class AuthBody(msgspec.Struct):
    auth: Auth


async def issue(call: Call) -> Reply:
    """A token for somebody who proves who they are."""
    auth: Auth = call.body.auth
    identity, scope = auth.identity, _scope(auth.scope)
    door = login(call.cloud)
    match identity.methods:
        case ["password"] if identity.password:
            token = await door.with_password(_named(identity.password.user), identity.password.user.password, scope)
        case ["token"] if identity.token:
            token = await door.with_token(identity.token.id, scope)
        case ["application_credential"] if identity.application_credential:
            given = identity.application_credential
            if given.id is None and given.name is None:
                raise _needed("id or name", "application_credential")
            who = _named(given.user) if given.user is not None else None
            token = await door.with_credential(given.id, given.name, who, given.secret, scope)
        case []:
            raise _needed("a method", "methods")
        case [method] if method in {"password", "token", "application_credential"}:
            raise _needed(method, "identity")
        case _:
            raise Unauthorized("Attempted to authenticate with an unsupported method.")
    text = await tokens(call.cloud).sign(token)
    return Reply(_answer(call, token), headers={"X-Subject-Token": text, "Vary": "X-Auth-Token"})


def _named(who: UserPassword | UserName | ScopeProject) -> Named:
    """Somebody or something by id, or by name and domain. Raises Invalid for neither."""
    house = who.domain
    if who.id is None:
        if who.name is None:
            raise _needed("id or name", "user" if not isinstance(who, ScopeProject) else "project")
        if house is None or (house.id is None and house.name is None):
            raise _needed("domain", who.name)
    return Named(who.id, who.name, house.id if house else None, house.name if house else None)


def _needed(what: str, where: str) -> Invalid:
    return Invalid(
        f"Expecting to find {what} in {where}. The server could not comply with the request since it is either "
        "malformed or otherwise incorrect. The client is assumed to be in error."
    )


def _scope(scope: AuthScope | str | None) -> Scope:
    if scope is None:
        return Scope()
    if isinstance(scope, str):
        if scope != "unscoped":
            raise Invalid("The scope is `unscoped`, or an object: project, domain or system.")
        return Scope(nowhere=True)
    named = [part for part in (scope.project, scope.domain, scope.system, scope.unscoped) if part is not None]
    if len(named) > 1:
        raise Invalid("A token is scoped to one of project, domain and system, not to more.")
    if scope.project is not None:
        return Scope(project=_named(scope.project))
    if scope.domain is not None:
        if scope.domain.id is None and scope.domain.name is None:
            raise _needed("id or name", "domain")
        return Scope(domain=Named(scope.domain.id, scope.domain.name))
    if scope.system is not None:
        if not scope.system.all:
            raise _needed("all", "system")
        return Scope(system=True)
    return Scope(nowhere=scope.unscoped is not None)


async def _subject(call: Call, rule: str) -> tuple[str, Token]:
    """The token the call is about. Raises NotFound unless it is good."""
    text = call.request.headers.get("X-Subject-Token", "")
    try:
        token = await tokens(call.cloud).verify(text)
    except Unauthorized:
        raise NotFound("Failed to validate token") from None
    call.must(rule, user_id=token.user_id)
    return text, token


async def show(call: Call) -> Reply:
    text, token = await _subject(call, "identity:validate_token")
    return Reply(_answer(call, token), headers={"X-Subject-Token": text, "Vary": "X-Auth-Token"})


async def delete(call: Call) -> None:
    _, token = await _subject(call, "identity:revoke_token")
    call.headers["Vary"] = "X-Auth-Token"
    await call.execute(*revoke(f"audit/{token.audit_id}", lapse_at=token.expires_at))


def _answer(call: Call, token: Token) -> dict[str, Any]:
    """A token as Keystone shows it."""
    body: dict[str, Any] = {
        "methods": list(token.methods),
        "user": {
            "domain": {"id": token.user_domain_id, "name": token.user_domain_name},
            "id": token.user_id,
            "name": token.user_name,
            "password_expires_at": None,
        },
        "audit_ids": list(token.audit_ids),
        "expires_at": moment(token.expires_at),
        "issued_at": moment(token.issued_at),
    }
    if token.project_id:
        house = {"id": token.project_domain_id, "name": token.project_domain_name}
        body["project"] = {"domain": house, "id": token.project_id, "name": token.project_name}
        body["is_domain"] = False
    if token.domain_id:
        body["domain"] = {"id": token.domain_id, "name": token.domain_name}
    if token.system:
        body["system"] = {"all": True}
    if token.scoped:
        body["roles"] = [{"id": id, "name": name} for id, name in token.granted]
        if boolean(call.query.get("nocatalog", "false") or "true") is False:
            body["catalog"] = catalog(call, token)
    if token.credential:
        body["application_credential"] = {"id": token.credential, "restricted": True}
    return {"token": body}


def moment(at: datetime) -> str:
    """Microseconds and Z, as Keystone writes times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def catalog(call: Call, token: Token) -> list[dict[str, Any]]:
    """The services and where this token finds them; endpoints whose URL it cannot fill in are left out."""
    values = {
        "project_id": token.project_id,
        "tenant_id": token.project_id,
        "user_id": token.user_id,
        "domain_id": token.domain_id,
    }
    services: dict[str, dict[str, Any]] = {}
    for service in call.cloud.mirror(SERVICE).values():
        state = service.state
        if state.enabled:
            services[service.id] = {
                "endpoints": [],
                "id": service.id,
                "type": state.kind,
                "name": state.name or "",
            }
    for endpoint in call.cloud.mirror(ENDPOINT).values():
        state = endpoint.state
        entry = services.get(state.service_id)
        url = _filled(state.url, values)
        if entry is not None and state.enabled and url is not None:
            entry["endpoints"].append(
                {
                    "id": endpoint.id,
                    "interface": state.interface,
                    "region_id": state.region_id,
                    "region": state.region_id,
                    "url": url,
                }
            )
    return list(services.values())


def _filled(url: str, values: dict[str, str | None]) -> str | None:
    """`$(project_id)s` and the like replaced; None when the token has no such thing."""
    if "(" not in url:
        return url
    for name, value in values.items():
        for pattern in (f"$({name})s", f"%({name})s"):
            if pattern in url:
                if value is None:
                    return None
                url = url.replace(pattern, value)
    return url


async def show_catalog(call: Call) -> dict[str, Any]:
    if not call.token.scoped:
        raise Forbidden("You are not authorized to perform the requested action: a scoped token is needed.")
    return {"catalog": catalog(call, call.token), "links": {"self": call.url("/auth/catalog")}}


async def _myself(call: Call) -> Document:
    documents = await call.cloud.documents.get_many(USER, [call.token.user_id])
    try:
        return documents[call.token.user_id]
    except KeyError:
        raise Unauthorized from None


async def my_projects(call: Call) -> dict[str, Any]:
    found = await projects_of(call.cloud, (await _myself(call)).state)
    return whole(call, "projects", [project.view(call, it) for it in found if it.state.enabled])


async def my_domains(call: Call) -> dict[str, Any]:
    found = await domains_of(call.cloud, (await _myself(call)).state)
    return whole(call, "domains", [domain.view(call, it) for it in found if it.state.enabled])


async def my_system(call: Call) -> dict[str, Any]:
    there = await has_system(call.cloud, (await _myself(call)).state)
    return {"system": [{"all": True}] if there else [], "links": {"self": call.url("/auth/system")}}


routes = [
    Post("/auth/tokens", issue, public=True, body=AuthBody),
    Get("/auth/tokens", show, may="identity:validate_token"),
    Delete("/auth/tokens", delete, may="identity:revoke_token"),
    Get("/auth/catalog", show_catalog, may="identity:get_auth_catalog"),
    Get("/auth/projects", my_projects, may="identity:get_auth_projects"),
    Get("/auth/domains", my_domains, may="identity:get_auth_domains"),
    Get("/auth/system", my_system, may="identity:get_auth_system"),
    Get("/OS-FEDERATION/projects", my_projects, may="identity:get_auth_projects"),
    Get("/OS-FEDERATION/domains", my_domains, may="identity:get_auth_domains"),
]
