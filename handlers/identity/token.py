"""A token: who, where, with which roles, until when; the words it is signed in, and what it rests on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec

from bus.log import Actor
from schema.refusal import Refused


class Unauthorized(Refused):
    """No token, or none that is good (401)."""

    status = 401

    def __init__(self, message: str = "The request you have made requires authentication.") -> None:
        super().__init__(message)


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """What a signed token says. At most one of project_id, domain_id and system is there; none: unscoped."""

    user_id: str = ""
    user_name: str = ""
    user_domain_id: str = ""
    user_domain_name: str = ""
    project_id: str | None = None
    project_name: str = ""
    project_domain_id: str | None = None
    project_domain_name: str = ""
    domain_id: str | None = None
    domain_name: str = ""
    system: bool = False
    granted: tuple[tuple[str, str], ...] = ()
    """Roles as (id, name), implied ones included."""
    methods: tuple[str, ...] = ()
    audit_ids: tuple[str, ...] = ()
    """Its own, and that of the first token of its chain, if that is another."""
    issued_at: datetime = datetime.min.replace(tzinfo=UTC)
    expires_at: datetime = datetime.min.replace(tzinfo=UTC)
    grants: tuple[str, ...] = ()
    """`actor/target` of the grants its roles come from."""
    groups: tuple[str, ...] = ()
    """Groups among those actors."""
    credential: str | None = None
    """The application credential it was had with."""
    seen: dict[str, int] = {}
    """Versions of the revoked subjects it rests on, as they were when it was issued."""

    @cached_property
    def roles(self) -> frozenset[str]:
        """Names of its roles, implied ones included."""
        return frozenset(name for _, name in self.granted)

    @cached_property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @property
    def audit_id(self) -> str:
        return self.audit_ids[0] if self.audit_ids else ""

    @property
    def scoped(self) -> bool:
        return bool(self.project_id or self.domain_id or self.system)

    @cached_property
    def actor(self) -> Actor:
        """How the log remembers who asked."""
        return Actor(self.user_id, self.project_id or "", self.audit_id)

    @cached_property
    def subjects(self) -> tuple[tuple[str, int], ...]:
        """What it rests on: (subject, version), a revocation of a higher version ends it."""
        names = [f"user/{self.user_id}", f"domain/{self.user_domain_id}"]
        if self.audit_ids:
            names += [f"audit/{self.audit_ids[0]}", f"chain/{self.audit_ids[-1]}"]
        if self.project_id:
            names += [f"project/{self.project_id}", f"domain/{self.project_domain_id}"]
        if self.domain_id:
            names.append(f"domain/{self.domain_id}")
        if self.credential:
            names.append(f"credential/{self.credential}")
        names += [f"grant/{grant}" for grant in self.grants]
        names += [f"role/{id}" for id, _ in self.granted]
        for group in self.groups:
            names += [f"group/{group}", f"membership/{group}/{self.user_id}"]
        return tuple((name, self.seen.get(name, 0)) for name in dict.fromkeys(names))


ANONYMOUS = Token()
"""What a route without a token sees."""

_NAMES = {
    "sub": "user_id",
    "sun": "user_name",
    "sud": "user_domain_id",
    "sudn": "user_domain_name",
    "prj": "project_id",
    "prn": "project_name",
    "prd": "project_domain_id",
    "prdn": "project_domain_name",
    "dom": "domain_id",
    "domn": "domain_name",
    "sys": "system",
    "rol": "granted",
    "amr": "methods",
    "aud_ids": "audit_ids",
    "gra": "grants",
    "grp": "groups",
    "cre": "credential",
    "see": "seen",
}


def claims(token: Token) -> dict[str, Any]:
    """A token as JWT claims, without times. The names are short: the header travels with every request."""
    defaults = ANONYMOUS
    return {
        name: value for name, field in _NAMES.items() if (value := getattr(token, field)) != getattr(defaults, field)
    }


def from_claims(payload: dict[str, Any]) -> Token:
    """The token those claims say. Raises msgspec.ValidationError."""
    fields = {field: payload[name] for name, field in _NAMES.items() if name in payload}
    return msgspec.convert({**fields, "issued_at": moment(payload["iat"]), "expires_at": moment(payload["exp"])}, Token)


def moment(seconds: float) -> datetime:
    """A NumericDate (it may have a fraction) to the microsecond."""
    return _EPOCH + timedelta(microseconds=round(seconds * 1_000_000))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
