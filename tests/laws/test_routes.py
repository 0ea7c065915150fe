"""Routes: each has a policy rule that its service knows, and stands in the OpenAPI description."""

import pytest

from api.wire.openapi import document
from api.wire.policy import Policy
from tests.laws.discovery import all_services

pytestmark = pytest.mark.law

ROUTES = [
    (service, path, route)
    for service in all_services()
    for path, route in [
        *((route.path, route) for route in service.roots),
        *((service.prefix + route.path, route) for route in service.routes),
    ]
]


def _id(row):
    return row if isinstance(row, str) else getattr(row, "method", None) or getattr(row, "name", None)


@pytest.fixture(scope="module")
def described():
    return document(all_services(), "http://cloud")["paths"]


@pytest.mark.parametrize("service, path, route", ROUTES, ids=_id)
def test_every_route_has_a_policy_and_is_described(service, path, route, described):
    assert route.public or route.may in service.policy, f"{route.may} is no rule of {service.name}"
    written = path.replace("*}", "}").rstrip("/") or "/"
    assert route.method.lower() in described[written], f"{route.method} {written} is not in the OpenAPI document"


@pytest.mark.parametrize("service", all_services(), ids=lambda service: service.name)
def test_every_policy_can_be_read(service):
    rules = {name: check for other in all_services() for name, check in other.policy.items()}
    assert set(service.policy) <= set(Policy(rules).rules)
