"""Rules as functions, and the operator's expressions over them."""

from typing import Any

import pytest

from api.wire.policy import ADMIN, PROJECT_MEMBER, Policy, PolicyError, any_of, owner
from handlers.identity.token import Token


def token(*roles: str, **fields: Any) -> Token:
    return Token(user_id="me", project_id="mine", granted=tuple((role, role) for role in roles), **fields)


RULES = {"change": any_of(ADMIN, PROJECT_MEMBER), "see": owner}


def test_a_member_may_in_their_project_and_nowhere_else():
    policy = Policy(RULES)
    assert policy.allows("change", token("member"), {})
    assert policy.allows("change", token("member"), {"project_id": "mine"})
    assert not policy.allows("change", token("member"), {"project_id": "theirs"})
    assert policy.allows("change", token("admin"), {"project_id": "theirs"})
    assert not policy.allows("change", token("reader"), {"project_id": "mine"})


def test_a_rule_nobody_wrote_lets_nobody():
    assert not Policy(RULES).allows("fly", token("admin"), {})


@pytest.mark.parametrize(
    "expression, allowed",
    [
        ("", True),
        ("@", True),
        ("!", False),
        ("role:cook", True),
        ("not role:cook", False),
        ("role:admin or role:cook", True),
        ("role:admin and role:cook", False),
        ("role:cook and (role:admin or project_id:%(project_id)s)", True),
        ("project_id:%(target.project_id)s", True),
        ("project_id:theirs", False),
        ("user_id:%(user_id)s", False),
        ("rule:see or rule:change", False),
        ("system_scope:all", False),
        ("is_admin:True", False),
        ("is_admin:False", True),
    ],
)
def test_expressions_mean_what_operators_know(expression: str, allowed: bool):
    policy = Policy(RULES, {"change": expression} if "rule:" not in expression else {})
    check = policy.parse(expression)
    assert check(token("cook"), {"project_id": "mine", "user_id": "you"}) is allowed


@pytest.mark.parametrize(
    "overrides, says",
    [
        ({"chnge": "@"}, "no rule of any service"),
        ({"change": "role:"}, "not of the form"),
        ({"change": "(role:a"}, "not closed"),
        ({"change": "role:a role:b"}, "not expected"),
        ({"change": "role:a and"}, "ends in the middle"),
        ({"change": "shoe_size:12"}, "has no 'shoe_size'"),
        ({"change": "rule:see", "see": "rule:change"}, "in a circle"),
        ({"change": "rule:nothing"}, "not there"),
    ],
)
def test_an_expression_that_makes_no_sense_is_refused_at_the_start(overrides: dict[str, str], says: str):
    with pytest.raises(PolicyError, match=says.replace("(", "\\(")):
        Policy(RULES, overrides)


def test_an_operators_rule_wins():
    policy = Policy(RULES, {"change": "role:cook", "see": "rule:change"})
    assert policy.allows("change", token("cook"), {"project_id": "theirs"})
    assert not policy.allows("change", token("admin"), {})
    assert policy.allows("see", token("cook"), {"user_id": "you"})
