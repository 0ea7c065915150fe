"""Keypairs: list, show, import, have one made (before 2.92), delete."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.page import LENIENT_UNTIL, STRICT_SINCE, NoQuery, Paging, listing, next_link, page_size, strict
from api.compute.times import written
from api.wire import Call, Delete, Post, Reply
from bus import clock
from bus.documents import Sort, Where
from bus.execute import AlreadyTaken, Wish
from bus.log import COMMAND_SCOPE
from handlers.compute.keypair import KEYPAIRS
from handlers.compute.public_key import fingerprint, make
from handlers.compute.quota import defaults as quota_defaults
from handlers.compute.quota import limits_in_force, quota_of
from schema.compute.keypair import KEYPAIR, DeleteKeypair, ImportKeypair, Keypair, KeyType
from schema.compute.quota import UNLIMITED
from schema.refusal import Conflict, Invalid, NotFound, OverQuota

Name = Annotated[str, Meta(min_length=1, max_length=255)]

_NAME = re.compile(r"[a-zA-Z0-9 _\-]{1,255}")
_NAME_2_92 = re.compile(r"[a-zA-Z0-9 _\-@.]{1,255}")


class NewKeypair(Struct, forbid_unknown_fields=True):
    name: Name
    public_key: str | UnsetType = UNSET


class NewKeypair2(Struct, forbid_unknown_fields=True):
    name: Name
    public_key: str | UnsetType = UNSET
    type: KeyType = KeyType.SSH


class NewKeypair10(Struct, forbid_unknown_fields=True):
    name: Name
    public_key: str | UnsetType = UNSET
    type: KeyType = KeyType.SSH
    user_id: Annotated[str, Meta(max_length=255)] = ""


class NewKeypair92(Struct, forbid_unknown_fields=True):
    name: Name
    public_key: str
    type: KeyType = KeyType.SSH
    user_id: Annotated[str, Meta(max_length=255)] = ""


class Body(Struct, forbid_unknown_fields=True):
    keypair: NewKeypair


class Body2(Struct, forbid_unknown_fields=True):
    keypair: NewKeypair2


class Body10(Struct, forbid_unknown_fields=True):
    keypair: NewKeypair10


class Body92(Struct, forbid_unknown_fields=True):
    keypair: NewKeypair92


class UserQuery(Struct, frozen=True):
    user_id: str | None = None


class UserPagingQuery(Paging, frozen=True):
    user_id: str | None = None


async def index(call: Call) -> dict[str, Any]:
    user_id = _user(call, "index")
    where = [Where("parent_id", "=", user_id)]
    paged = isinstance(call.params, Paging)
    limit = page_size(call) if paged else None
    if paged and call.params.marker is not None:
        marker = await keypair_named(call, user_id, call.params.marker, refusal=Invalid)
        where.append(Where("name", ">", marker.name))
    documents = await call.cloud.documents.find(KEYPAIR, where=where, sort=[Sort("name")], limit=limit)
    answer: dict[str, Any] = {"keypairs": [{"keypair": _brief(call, document.state)} for document in documents]}
    if paged and len(documents) == limit:
        answer["keypairs_links"] = next_link(call, documents, lambda document: document.state.name)
    return answer


async def show(call: Call) -> dict[str, Any]:
    keypair = await keypair_named(call, _user(call, "show"), call.path["name"])
    return {
        "keypair": {
            **_brief(call, keypair),
            "user_id": keypair.user_id,
            "id": zlib.crc32(keypair.id.encode()) & 0x7FFFFFFF,
            "deleted": False,
            "created_at": written(keypair.created_at),
            "updated_at": None,
            "deleted_at": None,
        }
    }


async def create(call: Call) -> Reply:
    wanted = call.body.keypair
    key_type = getattr(wanted, "type", KeyType.SSH)
    user_id = getattr(wanted, "user_id", None) or call.token.user_id
    call.must("os_compute_api:os-keypairs:create", user_id=user_id)
    _check_name(call, wanted.name)
    await _check_quota(call, user_id)
    private: dict[str, str] = {}
    if wanted.public_key is UNSET:
        made = await asyncio.to_thread(make, key_type, user_id)
        public_key, print_, private = made.public_key, made.fingerprint, {"private_key": made.private_key}
    else:
        public_key, print_ = wanted.public_key, fingerprint(key_type, wanted.public_key)
    command = ImportKeypair(
        name=wanted.name,
        user_id=user_id,
        key_type=key_type,
        public_key=public_key,
        fingerprint=print_,
        generated=bool(private),
    )
    try:
        [document] = await call.execute(Wish(KEYPAIRS, clock.uuid4(), command))
    except AlreadyTaken:
        raise Conflict(f"Key pair '{wanted.name}' already exists.") from None
    if document.state.public_key != public_key:
        private = {}  # the request came again: the key that was made then went out with the answer of then
    keypair = {**_brief(call, document.state), "user_id": user_id, **private}
    return Reply({"keypair": keypair}, status=201 if call.version >= (2, 2) else 200)


async def delete(call: Call) -> Reply:
    keypair = await keypair_named(call, _user(call, "delete"), call.path["name"])
    await call.execute(Wish(KEYPAIRS, keypair.id, DeleteKeypair()))
    return Reply(status=204 if call.version >= (2, 2) else 202)


async def keypair_named(call: Call, user_id: str, name: str, refusal: type[NotFound | Invalid] = NotFound) -> Keypair:
    """A user's keypair of that name. Raises NotFound (or Invalid, where it is a marker)."""
    where = [Where("parent_id", "=", user_id), Where("name", "=", name)]
    found = await call.cloud.documents.find(KEYPAIR, where=where, limit=1)
    if not found:
        what = f"marker [{name}] not found" if refusal is Invalid else f"Keypair {name} not found for user {user_id}"
        raise refusal(what)
    keypair: Keypair = found[0].state
    return keypair


def _user(call: Call, action: str) -> str:
    """Whose keypairs are meant: the caller's, or those an administrator names (2.10)."""
    user_id = getattr(call.params, "user_id", None) or call.token.user_id
    call.must(f"os_compute_api:os-keypairs:{action}", user_id=user_id)
    return user_id


def _check_name(call: Call, name: str) -> None:
    newer = call.version >= (2, 92)
    if name != name.strip() or not (_NAME_2_92 if newer else _NAME).fullmatch(name):
        raise Invalid(
            "Keypair data is invalid: Keypair name contains unsafe characters; it may have letters, digits, spaces, "
            f"dashes{', underscores, @ and dots' if newer else ' and underscores'}, and no space at its ends"
        )


async def _check_quota(call: Call, user_id: str) -> None:
    quota = await quota_of(call.cloud, call.token.project_id or "")
    limit = limits_in_force(quota, quota_defaults(call.cloud))["key_pairs"]
    if limit == UNLIMITED:
        return
    used = await call.cloud.documents.count(KEYPAIR, where=[Where("parent_id", "=", user_id)])
    if used >= limit and not await _repeated(call):
        raise OverQuota(f"Quota exceeded, too many key pairs: {used} of {limit} are there already.")


async def _repeated(call: Call) -> bool:
    """Whether this very request was granted before."""
    key = call.by.idempotency
    return bool(key) and await call.cloud.log.holder(COMMAND_SCOPE, key) is not None


def _brief(call: Call, keypair: Keypair) -> dict[str, Any]:
    brief = {"name": keypair.name, "public_key": keypair.public_key, "fingerprint": keypair.fingerprint}
    if call.version >= (2, 2):
        brief["type"] = keypair.key_type.value
    return brief


_RULE = "os_compute_api:os-keypairs"


def _by_version(body: Any, since: str | None, until: str | None) -> Any:
    return Post("/os-keypairs", create, may=f"{_RULE}:create", body=body, since=since, until=until)


routes = [
    *listing("/os-keypairs", index, f"{_RULE}:index", until="2.9"),
    *listing("/os-keypairs", index, f"{_RULE}:index", UserQuery, since="2.10", until="2.34"),
    *listing("/os-keypairs", index, f"{_RULE}:index", UserPagingQuery, since="2.35"),
    *listing("/os-keypairs/{name}", show, f"{_RULE}:show", until="2.9"),
    *listing("/os-keypairs/{name}", show, f"{_RULE}:show", UserQuery, since="2.10"),
    _by_version(Body, None, "2.1"),
    _by_version(Body2, "2.2", "2.9"),
    _by_version(Body10, "2.10", "2.91"),
    _by_version(Body92, "2.92", None),
    Delete("/os-keypairs/{name}", delete, may=f"{_RULE}:delete", query=NoQuery, until="2.9"),
    Delete("/os-keypairs/{name}", delete, may=f"{_RULE}:delete", query=UserQuery, since="2.10", until=LENIENT_UNTIL),
    Delete("/os-keypairs/{name}", delete, may=f"{_RULE}:delete", query=strict(UserQuery), since=STRICT_SINCE),
]
