"""Logging in: who it is, where they want to act, and the token that says both.

    find the user ─▶ check the secret ─▶ load user, domain, scope, grants and revocations in one snapshot ─▶ sign

The snapshot holds the versions of what the token rests on; what is revoked later has higher ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from msgspec.structs import replace

from bus import clock
from bus.cloud import Cloud
from bus.documents import Where
from bus.log import Document
from handlers.identity.access import access, grant_streams
from handlers.identity.passwords import LONGEST_BYTES, Passwords
from handlers.identity.token import Token, Unauthorized
from handlers.identity.tokens import tokens
from schema.identity.credential import APPLICATION_CREDENTIAL, ApplicationCredential
from schema.identity.domain import DOMAIN
from schema.identity.grant import SYSTEM
from schema.identity.project import PROJECT
from schema.identity.revocation import REVOCATION
from schema.identity.user import USER, User


class Named(msgspec.Struct, frozen=True):
    """Something by id, or by name and the domain that name is of (itself by id or name)."""

    id: str | None = None
    name: str | None = None
    domain_id: str | None = None
    domain_name: str | None = None


class Scope(msgspec.Struct, frozen=True):
    """Where a token is to act. All unset: wherever the user's default project says. `nowhere`: explicitly unscoped."""

    project: Named | None = None
    domain: Named | None = None
    system: bool = False
    nowhere: bool = False

    @property
    def named(self) -> bool:
        return bool(self.project or self.domain or self.system or self.nowhere)


class _Start(msgspec.Struct, frozen=True):
    """Who it is, once that is certain."""

    user_id: str
    methods: tuple[str, ...]
    chain: str | None = None
    """Audit id of the first token of the chain."""
    expires_at: datetime | None = None
    """No later than this."""
    credential: ApplicationCredential | None = None


class _Place(msgspec.Struct, frozen=True):
    """Where a token is to act, found; nothing: nowhere."""

    project: Document | None = None
    domain: Document | None = None
    system: bool = False

    @property
    def target(self) -> str | None:
        found = self.project or self.domain
        return found.id if found else SYSTEM if self.system else None

    @property
    def ancestors(self) -> tuple[str, ...]:
        return self.project.state.ancestors if self.project else ()


class Login:
    """Logs users of one cloud in."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.passwords = Passwords(cloud)

    async def with_password(self, who: Named, password: str, scope: Scope) -> Token:
        """Raises Unauthorized, without a word on what was wrong; TooManyLogins."""
        user = await self.find_user(who)
        if user is None or len(password.encode()) > LONGEST_BYTES:
            await self.passwords.right(f"user/{who.id or who.name}", None, "")
            raise Unauthorized
        if not await self.passwords.right(f"user/{user.id}", user.state.password_id, password):
            raise Unauthorized
        return await self._issue(_Start(user.id, ("password",)), scope, password_id=user.state.password_id)

    async def with_token(self, text: str, scope: Scope) -> Token:
        """A token for another scope; it expires when the first one does. Raises Unauthorized."""
        old = await tokens(self.cloud).verify(text)
        if old.credential is not None:
            raise Unauthorized("A token had with an application credential cannot be scoped anew.")
        start = _Start(
            old.user_id,
            tuple(sorted({*old.methods, "token"})),
            chain=old.audit_ids[-1],
            expires_at=old.expires_at,
        )
        return await self._issue(start, scope)

    async def with_credential(
        self, id: str | None, name: str | None, who: Named | None, secret: str, scope: Scope
    ) -> Token:
        """An application credential's token: its project, its roles. Raises Unauthorized, TooManyLogins."""
        if scope.named:
            raise Unauthorized("Application credentials cannot request a scope.")
        found = await self._find_credential(id, name, who)
        owner = f"credential/{id or name}"
        if found is None or len(secret.encode()) > LONGEST_BYTES:
            await self.passwords.right(owner, None, "")
            raise Unauthorized
        credential: ApplicationCredential = found.state
        if not await self.passwords.right(owner, credential.secret_id, secret):
            raise Unauthorized
        if credential.expires_at is not None and credential.expires_at <= clock.now():
            raise Unauthorized
        start = _Start(
            credential.user_id,
            ("application_credential",),
            expires_at=credential.expires_at,
            credential=credential,
        )
        return await self._issue(start, Scope(project=Named(id=credential.project_id)))

    async def find_user(self, who: Named) -> Document | None:
        """A living user by id, or by name and domain."""
        if who.id is not None:
            return (await self._load([USER.stream(who.id)])).get(USER.stream(who.id))
        domain = await self._find_domain(Named(who.domain_id, who.domain_name))
        if domain is None or who.name is None:
            return None
        found = await self.cloud.documents.find(
            USER, where=[Where("name", "=", who.name), Where("domain_id", "=", domain.id)], limit=1
        )
        return found[0] if found else None

    async def _find_domain(self, who: Named) -> Document | None:
        if who.id is not None:
            return (await self._load([DOMAIN.stream(who.id)])).get(DOMAIN.stream(who.id))
        if who.name is None:
            return None
        found = await self.cloud.documents.find(DOMAIN, where=[Where("name", "=", who.name)], limit=1)
        return found[0] if found else None

    async def _find_project(self, who: Named) -> Document | None:
        if who.id is not None:
            return (await self._load([PROJECT.stream(who.id)])).get(PROJECT.stream(who.id))
        domain = await self._find_domain(Named(who.domain_id, who.domain_name))
        if domain is None or who.name is None:
            return None
        found = await self.cloud.documents.find(
            PROJECT, where=[Where("name", "=", who.name), Where("domain_id", "=", domain.id)], limit=1
        )
        return found[0] if found else None

    async def _find_credential(self, id: str | None, name: str | None, who: Named | None) -> Document | None:
        if id is not None:
            stream = APPLICATION_CREDENTIAL.stream(id)
            return (await self._load([stream])).get(stream)
        user = await self.find_user(who) if who is not None else None
        if user is None or name is None:
            return None
        found = await self.cloud.documents.find(
            APPLICATION_CREDENTIAL, where=[Where("parent_id", "=", user.id), Where("name", "=", name)], limit=1
        )
        return found[0] if found else None

    async def _load(self, streams: Sequence[str]) -> dict[str, Document]:
        """Living documents, in one snapshot."""
        found = await self.cloud.log.load(list(streams))
        return {stream: document for stream, document in found.items() if document.state.living}

    async def _issue(self, start: _Start, scope: Scope, password_id: str | None = None) -> Token:
        """The token for that user and scope. Raises Unauthorized."""
        place = _Place(system=scope.system)
        first = await self._load([USER.stream(start.user_id)])
        user_document = first.get(USER.stream(start.user_id))
        if user_document is None:
            raise Unauthorized
        fallback = False
        if not scope.named and user_document.state.default_project_id:
            place = _Place(await self._find_project(Named(id=user_document.state.default_project_id)))
            fallback = True
        elif scope.project is not None:
            place = _Place(project=await self._find_project(scope.project))
            if place.project is None:
                raise Unauthorized
        elif scope.domain is not None:
            place = _Place(domain=await self._find_domain(scope.domain))
            if place.domain is None:
                raise Unauthorized
        try:
            return await self._scoped(start, user_document.state, place, password_id)
        except Unauthorized:
            if not fallback or place.project is None:
                raise
            # A default project that cannot be used gives an unscoped token, not a refusal.
            return await self._scoped(start, user_document.state, _Place(), password_id)

    async def _scoped(self, start: _Start, user: User, place: _Place, password_id: str | None) -> Token:
        project, domain = place.project, place.domain
        lifetime = timedelta(seconds=self.cloud.settings.token_lifetime_seconds)
        issued_at = clock.now()
        expires_at = min(issued_at + lifetime, start.expires_at or issued_at + lifetime)
        audit = clock.hex_id()[:22]
        token = Token(
            user_id=user.id,
            user_domain_id=user.domain_id,
            project_id=project.id if project else None,
            project_domain_id=project.state.domain_id if project else None,
            domain_id=domain.id if domain else None,
            system=place.system,
            methods=start.methods,
            audit_ids=(audit, start.chain) if start.chain else (audit,),
            issued_at=issued_at,
            expires_at=expires_at,
            credential=start.credential.id if start.credential else None,
        )
        snapshot = await self._snapshot(token, user, place)
        user = _living(snapshot, USER.stream(user.id))
        if not user.enabled or (password_id is not None and user.password_id != password_id):
            raise Unauthorized
        user_domain = _living(snapshot, DOMAIN.stream(user.domain_id))
        if not user_domain.enabled:
            raise Unauthorized
        named: dict[str, Any] = {"user_name": user.name, "user_domain_name": user_domain.name}
        if place.target is not None:
            found = await access(self.cloud, user, place.target, snapshot, place.ancestors)
            roles = found.roles
            if start.credential is not None:
                kept = set(start.credential.roles)
                roles = tuple(role for role in roles if role.id in kept)
            if not roles:
                raise Unauthorized
            named |= {
                "granted": tuple((role.id, role.name) for role in roles),
                "grants": found.grants,
                "groups": found.groups,
            }
        if project is not None:
            live = _living(snapshot, PROJECT.stream(project.id))
            house = _living(snapshot, DOMAIN.stream(live.domain_id))
            if not live.enabled or not house.enabled:
                raise Unauthorized
            named |= {"project_name": live.name, "project_domain_name": house.name}
        if domain is not None:
            house = _living(snapshot, DOMAIN.stream(domain.id))
            if not house.enabled:
                raise Unauthorized
            named["domain_name"] = house.name
        return self._resting_on(replace(token, **named), snapshot)

    async def _snapshot(self, token: Token, user: User, place: _Place) -> Mapping[str, Document]:
        """Everything the token will rest on, and what of it was revoked before, as of one moment."""
        streams = [USER.stream(user.id), DOMAIN.stream(user.domain_id)]
        if token.project_id:
            streams += [PROJECT.stream(token.project_id), DOMAIN.stream(token.project_domain_id or "")]
        if token.domain_id:
            streams.append(DOMAIN.stream(token.domain_id))
        grants = grant_streams(user, place.target, place.ancestors) if place.target else []
        subjects = [*(subject for subject, _ in token.subjects), *grants]
        for group in user.groups:
            subjects += [f"group/{group}", f"membership/{group}/{user.id}"]
        streams += [*grants, *map(REVOCATION.stream, subjects)]
        return await self.cloud.log.load(list(dict.fromkeys(streams)))

    def _resting_on(self, token: Token, snapshot: Mapping[str, Document]) -> Token:
        """The token with the versions of the revocations it has survived.

        Roles were read from memory just now, and so is what was revoked of them; all else is of the snapshot.
        """
        revocations = self.cloud.mirror(REVOCATION)
        seen = {}
        for subject, _ in token.subjects:
            if subject.startswith("role/"):
                found = revocations.get(subject)
            else:
                found = snapshot.get(REVOCATION.stream(subject))
            if found is not None:
                seen[subject] = found.version
        return replace(token, seen=seen)


def _living(snapshot: Mapping[str, Document], stream: str) -> Any:
    """A state of the snapshot. Raises Unauthorized when it is not there any more."""
    found = snapshot.get(stream)
    if found is None or not found.state.living:
        raise Unauthorized
    return found.state


_of: WeakKeyDictionary[Any, Login] = WeakKeyDictionary()


def login(cloud: Cloud) -> Login:
    """The process's way of logging users in."""
    found = _of.get(cloud.mirrors)
    if found is None:
        found = _of[cloud.mirrors] = Login(cloud)
    return found
