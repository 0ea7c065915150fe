"""The description of the API is true and complete."""

import pkgutil
from importlib import import_module, util

import pytest

import api
from api.wire import Service
from api.wire.openapi import document


def services() -> list[Service]:
    packages = [module.name for module in pkgutil.iter_modules(api.__path__, "api.") if module.ispkg]
    found = [f"{package}.service" for package in packages if util.find_spec(f"{package}.service")]
    return [import_module(name).SERVICE for name in found]


@pytest.mark.law
def test_every_route_has_an_entry_and_every_reference_leads_somewhere():
    described = document(services(), "http://cloud")
    for service in services():
        for route in service.routes:
            path = (service.prefix + route.path).replace("*}", "}").rstrip("/")
            operation = described["paths"][path][route.method.lower()]
            assert str(route.answers) in operation["responses"]
            assert route.public or route.may in operation["x-policy"]

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].rpartition("/")[2] in described["components"]["schemas"]
            for item in node.values():
                walk(item)
        elif isinstance(node, list):
            for item in node:
                walk(item)

    walk(described)


@pytest.mark.law
def test_every_route_has_a_policy_or_is_public():
    for service in services():
        for route in (*service.routes, *service.roots):
            assert route.public != (route.may is not None), f"{service.name} {route.method} {route.path}"
            if route.may:
                assert route.may in service.policy, route.may
