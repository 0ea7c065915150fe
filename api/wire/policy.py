"""Who may do what: rules name checks, checks are small functions put together, operators override them by expression.

    POLICY = {"os_compute_api:servers:delete": any_of(ADMIN, PROJECT_MEMBER)}

An expression is oslo.policy's language: `role:member and project_id:%(project_id)s`, `rule:other`, `system_scope:all`,
`not`, parentheses, `@` (everybody), `!` (nobody).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from handlers.identity.token import Token

Target = Mapping[str, Any]
"""What the call is about: `project_id`, `user_id`, `domain_id` of the thing. A missing key is the caller's own."""

Check = Callable[[Token, Target], bool]


def role(name: str) -> Check:
    """The token carries this role (implied ones included)."""
    return lambda token, target: name in token.roles


def any_of(*checks: Check) -> Check:
    return lambda token, target: any(check(token, target) for check in checks)


def all_of(*checks: Check) -> Check:
    return lambda token, target: all(check(token, target) for check in checks)


def everybody(token: Token, target: Target) -> bool:
    """Any valid token."""
    return True


def nobody(token: Token, target: Target) -> bool:
    return False


def own_project(token: Token, target: Target) -> bool:
    """The thing is of the project the token is scoped to."""
    return token.project_id is not None and target.get("project_id", token.project_id) == token.project_id


def own_domain(token: Token, target: Target) -> bool:
    """The thing is of the domain the token is scoped to."""
    return token.domain_id is not None and target.get("domain_id", token.domain_id) == token.domain_id


def owner(token: Token, target: Target) -> bool:
    """The thing is the caller's own (or the caller themself)."""
    return bool(target.get("user_id", token.user_id) == token.user_id)


def system_scope(token: Token, target: Target) -> bool:
    return token.system


ADMIN = role("admin")
SERVICE = role("service")
PROJECT_MANAGER = all_of(role("manager"), own_project)
PROJECT_MEMBER = all_of(role("member"), own_project)
PROJECT_READER = all_of(role("reader"), own_project)
DOMAIN_MANAGER = all_of(role("manager"), own_domain)
DOMAIN_READER = all_of(role("reader"), own_domain)
SYSTEM_READER = all_of(role("reader"), system_scope)
ADMIN_OR_MANAGER = any_of(ADMIN, PROJECT_MANAGER)
ADMIN_OR_MEMBER = any_of(ADMIN, PROJECT_MEMBER)
ADMIN_OR_READER = any_of(ADMIN, PROJECT_READER)
ADMIN_OR_SYSTEM_READER = any_of(ADMIN, SYSTEM_READER)


class PolicyError(ValueError):
    """A policy expression that cannot be read; names the rule."""


class Policy:
    """The rules in force: the services' own, the operator's over them."""

    def __init__(self, rules: Mapping[str, Check | str], overrides: Mapping[str, str] | None = None) -> None:
        """Raises PolicyError for an expression that makes no sense, and for an override of a rule there is not."""
        given = {**rules, **(overrides or {})}
        unknown = sorted(name for name in overrides or {} if name not in rules and not _referred(name, given))
        if unknown:
            raise PolicyError(f"policy {unknown[0]!r} is no rule of any service; look for the name in /openapi.json")
        self.rules: dict[str, Check] = {}
        for name, check in given.items():
            self.rules[name] = self.parse(check, name) if isinstance(check, str) else check
        for name in given:
            self._walk(name, given, ())

    def allows(self, rule: str, token: Token, target: Target) -> bool:
        """Whether the rule lets this token at that target. A rule nobody wrote lets nobody."""
        check = self.rules.get(rule)
        return check is not None and check(token, target)

    def parse(self, expression: str, name: str = "") -> Check:
        """An expression as a check."""
        words = _WORD.findall(expression)
        if "".join(words) != re.sub(r"\s+", "", expression):
            raise PolicyError(f"policy {name!r}: {expression!r} cannot be read")
        if not words:
            return everybody
        reader = _Reader(self, words, name)
        check = reader.alternatives()
        if reader.left:
            raise PolicyError(f"policy {name!r}: {reader.left[0]!r} is not expected in {expression!r}")
        return check

    def _walk(self, name: str, given: Mapping[str, Check | str], seen: tuple[str, ...]) -> None:
        """Refuse rules that refer to each other in a circle, or to nothing."""
        if name in seen:
            raise PolicyError(f"policy rules refer to each other in a circle: {' → '.join((*seen, name))}")
        check = given.get(name)
        if check is None:
            raise PolicyError(f"policy {seen[-1]!r} refers to rule {name!r}, which is not there")
        if isinstance(check, str):
            for referred in _REFERRED.findall(check):
                self._walk(referred, given, (*seen, name))


_WORD = re.compile(r"\(|\)|[^\s()]*%\([^)]*\)s|[^\s()]+")
_REFERRED = re.compile(r"rule:([^\s()]+)")
_PLACEHOLDER = re.compile(r"%\((?:target\.)?([\w.]+)\)s")


def _referred(name: str, given: Mapping[str, Check | str]) -> bool:
    return any(isinstance(check, str) and name in _REFERRED.findall(check) for check in given.values())


class _Reader:
    """Recursive descent over the words of one expression."""

    def __init__(self, policy: Policy, words: list[str], name: str) -> None:
        self.policy = policy
        self.left = words
        self.name = name

    def alternatives(self) -> Check:
        return self._joined("or", self._conjunction, any_of)

    def _conjunction(self) -> Check:
        return self._joined("and", self._single, all_of)

    def _joined(self, word: str, part: Callable[[], Check], join: Callable[..., Check]) -> Check:
        checks = [part()]
        while self.left and self.left[0].lower() == word:
            self.left.pop(0)
            checks.append(part())
        return checks[0] if len(checks) == 1 else join(*checks)

    def _single(self) -> Check:
        if not self.left:
            raise PolicyError(f"policy {self.name!r} ends in the middle")
        word = self.left.pop(0)
        if word == "(":
            check = self.alternatives()
            if not self.left or self.left.pop(0) != ")":
                raise PolicyError(f"policy {self.name!r}: a parenthesis is not closed")
            return check
        if word.lower() == "not":
            negated = self._single()
            return lambda token, target: not negated(token, target)
        if word == "@":
            return everybody
        if word == "!":
            return nobody
        return self._comparison(word)

    def _comparison(self, word: str) -> Check:
        left, colon, right = word.partition(":")
        if not colon or not right:
            raise PolicyError(f"policy {self.name!r}: {word!r} is not of the form kind:value")
        if left == "rule":
            return lambda token, target: self.policy.allows(right, token, target)
        if left == "role":
            return role(right)
        if left == "is_admin":
            return ADMIN if right.lower() in {"true", "1"} else all_of(lambda token, target: not token.is_admin)
        if left == "system_scope":
            return system_scope
        if left not in _ATTRIBUTES:
            raise PolicyError(f"policy {self.name!r}: a token has no {left!r}; it has {', '.join(sorted(_ATTRIBUTES))}")
        placeholder = _PLACEHOLDER.fullmatch(right)
        if placeholder is None:
            return lambda token, target: getattr(token, left) == right
        key = placeholder[1].rpartition(".")[2] if "." in placeholder[1] else placeholder[1]
        return lambda token, target: _equal(getattr(token, left), target.get(key, getattr(token, key, None)))


_ATTRIBUTES = frozenset({"user_id", "project_id", "domain_id", "user_domain_id", "project_domain_id"})


def _equal(mine: Any, theirs: Any) -> bool:
    return mine is not None and mine == theirs
