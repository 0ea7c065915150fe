"""Users, their passwords and projects: `/v3/users`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.identity import project
from api.identity.words import Id, Name, Options, conflicts, extra, found, listed, shown, whole, within
from api.wire import Call, Delete, Get, Patch, Post
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document, Secret
from handlers.identity.access import projects_of
from handlers.identity.credential import APPLICATION_CREDENTIALS
from handlers.identity.grant import revoke_all
from handlers.identity.login import login
from handlers.identity.revocation import revoke
from handlers.identity.token import Unauthorized
from handlers.identity.user import USERS
from schema.identity.credential import APPLICATION_CREDENTIAL, DeleteApplicationCredential
from schema.identity.domain import DOMAIN
from schema.identity.grant import GRANT
from schema.identity.user import USER, CreateUser, DeleteUser, SetPassword, UpdateUser
from schema.refusal import Invalid

Password = Annotated[str, Meta(max_length=4096)]


class NewUser(msgspec.Struct):
    name: Name
    domain_id: Id | None = None
    password: Password | None = None
    enabled: bool = True
    default_project_id: Id | None = None
    options: Options = {}


class NewUserBody(msgspec.Struct):
    user: NewUser


class UserChanges(msgspec.Struct):
    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET
    password: Password | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    default_project_id: Id | UnsetType | None = UNSET
    options: Options | UnsetType = UNSET


class UserChangesBody(msgspec.Struct):
    user: UserChanges


class PasswordChange(msgspec.Struct):
    password: Password
    original_password: Password


class PasswordChangeBody(msgspec.Struct):
    user: PasswordChange


def view(call: Call, document: Document) -> dict[str, Any]:
    user = document.state
    answer = shown(
        call,
        "users",
        document,
        name=user.name,
        domain_id=user.domain_id,
        enabled=user.enabled,
        options=user.options,
        password_expires_at=None,
    )
    if user.default_project_id is not None:
        answer["default_project_id"] = user.default_project_id
    return answer


async def create(call: Call) -> dict[str, Any]:
    new: NewUser = call.body.user
    domain_id = new.domain_id or call.token.domain_id or call.token.project_domain_id or call.token.user_domain_id
    await found(call, DOMAIN, domain_id)
    call.must("identity:create_user", domain_id=domain_id)
    id = clock.hex_id()
    secrets = await _sealed(call, id, new.password)
    command = CreateUser(
        name=new.name,
        domain_id=domain_id,
        enabled=new.enabled,
        default_project_id=new.default_project_id,
        password_id=secrets[0].id if secrets else None,
        options=new.options,
        extra=extra(call, "user", NewUser, "original_password"),
    )
    with conflicts("user"):
        documents = await call.execute(Wish(USERS, id, command, secrets))
    return {"user": view(call, documents[0])}


async def listing(call: Call) -> dict[str, Any]:
    fields = {"name": "name", "enabled": "enabled", "domain_id": "domain_id"}
    return await listed(call, USER, "users", view, where=within(call), fields=fields)


async def in_path(call: Call, rule: str) -> Document:
    """The user of the path, if the caller may do that to them; forbidden before not found, as in Keystone."""
    id = call.path["user_id"]
    documents = await call.cloud.documents.get_many(USER, [id])
    document = documents.get(id)
    call.must(rule, user_id=id, domain_id=document.state.domain_id if document else None)
    return await found(call, USER, id)


async def show(call: Call) -> dict[str, Any]:
    return {"user": view(call, await in_path(call, "identity:get_user"))}


async def update(call: Call) -> dict[str, Any]:
    document = await in_path(call, "identity:update_user")
    changes: UserChanges = call.body.user
    if changes.domain_id is not UNSET and changes.domain_id != document.state.domain_id:
        raise Invalid("Update of `domain_id` is not allowed.")
    secrets = await _sealed(call, document.id, changes.password if changes.password is not UNSET else None)
    command = UpdateUser(
        name=changes.name,
        enabled=changes.enabled,
        default_project_id=changes.default_project_id,
        options=changes.options,
        extra=extra(call, "user", UserChanges, "original_password") or UNSET,
    )
    wishes = [Wish(USERS, document.id, command)]
    if secrets:
        wishes.append(Wish(USERS, document.id, SetPassword(password_id=secrets[0].id), secrets))
    if secrets or changes.enabled is False:
        wishes += revoke(f"user/{document.id}")
    with conflicts("user"):
        documents = await call.execute(*wishes)
    return {"user": view(call, documents[-1] if len(documents) == 1 else documents[0])}


async def change_password(call: Call) -> None:
    """A user's own change: the original password is what lets them in, no token."""
    id = call.path["user_id"]
    documents = await call.cloud.documents.get_many(USER, [id])
    document = documents.get(id)
    known = document is not None and document.state.living
    password_id = document.state.password_id if document is not None and known else None
    change: PasswordChange = call.body.user
    good = await login(call.cloud).passwords.right(f"user/{id}", password_id, change.original_password)
    if document is None or not known or not good or not document.state.enabled:
        raise Unauthorized
    if change.password == change.original_password:
        raise Invalid("The new password cannot be identical to the original one.")
    secrets = await _sealed(call, id, change.password)
    await call.execute(
        Wish(USERS, id, SetPassword(password_id=secrets[0].id), secrets),
        *revoke(f"user/{id}"),
    )


async def delete(call: Call) -> None:
    document = await in_path(call, "identity:delete_user")
    id = document.id
    find = call.cloud.documents.find
    grants = await find(GRANT, where=[Where("parent_id", "=", id)], limit=None)
    credentials = await find(APPLICATION_CREDENTIAL, where=[Where("parent_id", "=", id)], limit=None)
    await call.execute(
        Wish(USERS, id, DeleteUser()),
        *revoke(f"user/{id}"),
        *revoke_all(grants),
        *(Wish(APPLICATION_CREDENTIALS, credential.id, DeleteApplicationCredential()) for credential in credentials),
    )
    await call.cloud.vault.erase(f"user/{id}")


async def projects(call: Call) -> dict[str, Any]:
    document = await in_path(call, "identity:list_user_projects")
    found_projects = await projects_of(call.cloud, document.state)
    return whole(call, "projects", [project.view(call, it) for it in found_projects])


async def _sealed(call: Call, id: str, password: str | None) -> tuple[Secret, ...]:
    return () if password is None else (await login(call.cloud).passwords.seal(f"user/{id}", password),)


routes = [
    Post("/users", create, may="identity:create_user", body=NewUserBody),
    Get("/users", listing, may="identity:list_users"),
    Get("/users/{user_id}", show, may="identity:get_user"),
    Patch("/users/{user_id}", update, may="identity:update_user", body=UserChangesBody),
    Delete("/users/{user_id}", delete, may="identity:delete_user"),
    Post("/users/{user_id}/password", change_password, public=True, body=PasswordChangeBody, answers=204),
    Get("/users/{user_id}/projects", projects, may="identity:list_user_projects"),
]
