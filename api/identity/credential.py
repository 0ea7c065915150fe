"""Application credentials: `/v3/users/{user_id}/application_credentials`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.identity import user
from api.identity.auth import moment
from api.identity.words import Id, Name, Text, conflicts, found, listed
from api.wire import Call, Delete, Get, Post
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.identity.access import roles_on
from handlers.identity.credential import APPLICATION_CREDENTIALS
from handlers.identity.login import login
from handlers.identity.resource import not_found
from handlers.identity.revocation import revoke
from schema.identity.credential import APPLICATION_CREDENTIAL, CreateApplicationCredential, DeleteApplicationCredential
from schema.identity.role import ROLE
from schema.refusal import Forbidden, Invalid


class RoleName(msgspec.Struct):
    id: Id | None = None
    name: Name | None = None


class NewCredential(msgspec.Struct):
    name: Name
    secret: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    description: Text | None = None
    roles: Annotated[list[RoleName], Meta(max_length=256)] | None = None
    expires_at: str | None = None
    unrestricted: bool | None = None


class NewCredentialBody(msgspec.Struct):
    application_credential: NewCredential


def view(call: Call, document: Document) -> dict[str, Any]:
    credential = document.state
    mirror = call.cloud.mirror(ROLE)
    roles = [role for id in credential.roles if (role := mirror.get(id))]
    return {
        "id": document.id,
        "name": credential.name,
        "description": credential.description,
        "project_id": credential.project_id,
        "user_id": credential.user_id,
        "unrestricted": credential.unrestricted,
        "expires_at": moment(credential.expires_at).removesuffix("Z") if credential.expires_at else None,
        "roles": [{"id": it.id, "name": it.state.name, "domain_id": it.state.domain_id} for it in roles],
        "system": None,
        "links": {"self": call.url(f"/users/{credential.user_id}/application_credentials/{document.id}")},
    }


async def create(call: Call) -> dict[str, Any]:
    """For the project the caller's token is scoped to. The secret is shown this once."""
    user_id, token = call.path["user_id"], call.token
    call.must("identity:create_application_credential", user_id=user_id)
    if token.credential:
        raise Forbidden("An application credential cannot make another.")
    if not token.project_id:
        raise Invalid("An application credential is made with a token scoped to its project.")
    new: NewCredential = call.body.application_credential
    secret = new.secret or clock.password(64)
    id = clock.hex_id()
    sealed = await login(call.cloud).passwords.seal(f"user/{user_id}", secret)
    command = CreateApplicationCredential(
        user_id=user_id,
        project_id=token.project_id,
        name=new.name,
        secret_id=sealed.id,
        roles=await _roles(call, new),
        description=new.description,
        unrestricted=bool(new.unrestricted),
        expires_at=_moment(new.expires_at),
    )
    with conflicts("application credential"):
        documents = await call.execute(Wish(APPLICATION_CREDENTIALS, id, command, (sealed,)))
    return {"application_credential": {**view(call, documents[0]), "secret": secret}}


async def _roles(call: Call, new: NewCredential) -> tuple[str, ...]:
    """The roles asked for, all of which the caller must have by now; without any, all of the caller's token."""
    held = dict(call.token.granted)
    if new.roles and call.token.project_id:
        held |= {role.id: role.name for role in await roles_on(call.cloud, call.token.user_id, call.token.project_id)}
    if not new.roles:
        return tuple(held)
    by_name = {name: id for id, name in held.items()}
    wanted = []
    for role in new.roles:
        id = role.id or by_name.get(role.name or "")
        if id not in held:
            raise Invalid(f"Could not find role assignment with role: {role.id or role.name} for you on this project.")
        wanted.append(id)
    return tuple(dict.fromkeys(wanted))


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Invalid("expires_at must be a time such as 2030-01-31T12:00:00.") from None
    if at <= clock.now():
        raise Invalid("expires_at must lie in the future.")
    return at


async def listing(call: Call) -> dict[str, Any]:
    document = await user.in_path(call, "identity:list_application_credentials")
    where = [Where("parent_id", "=", document.id)]
    return await listed(
        call, APPLICATION_CREDENTIAL, "application_credentials", view, where=where, fields={"name": "name"}
    )


async def _in_path(call: Call, rule: str) -> Document:
    user_id, id = call.path["user_id"], call.path["credential_id"]
    call.must(rule, user_id=user_id)
    document = await found(call, APPLICATION_CREDENTIAL, id, "application credential")
    if document.state.user_id != user_id:
        raise not_found("application credential", id)
    return document


async def show(call: Call) -> dict[str, Any]:
    return {"application_credential": view(call, await _in_path(call, "identity:get_application_credential"))}


async def delete(call: Call) -> None:
    document = await _in_path(call, "identity:delete_application_credential")
    if call.token.credential:
        raise Forbidden("An application credential cannot delete another.")
    await call.execute(
        Wish(APPLICATION_CREDENTIALS, document.id, DeleteApplicationCredential()),
        *revoke(f"credential/{document.id}"),
    )


_ALL = "/users/{user_id}/application_credentials"

routes = [
    Post(_ALL, create, may="identity:create_application_credential", body=NewCredentialBody),
    Get(_ALL, listing, may="identity:list_application_credentials"),
    Get(_ALL + "/{credential_id}", show, may="identity:get_application_credential"),
    Delete(_ALL + "/{credential_id}", delete, may="identity:delete_application_credential"),
]
