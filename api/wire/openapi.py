"""OpenAPI 3.1 out of the route tables: what is served is what is described."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from api.wire.microversion import HEADER
from api.wire.route import Route, Service

REF = "#/components/schemas/{name}"


def document(services: Sequence[Service], url: str) -> dict[str, Any]:
    """The description of these services, reached at that URL."""
    routes = [(service, path, route) for service in services for path, route in _all(service)]
    known, components = _schemas(kind for _, _, route in routes for kind in (route.body, route.query))
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), rows in _grouped(routes).items():
        item = paths.setdefault(path, {"parameters": _path_parameters(path)} if "{" in path else {})
        item[method] = _operation(rows, known, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cumulog", "version": "1", "description": "OpenStack's APIs, every action an event."},
        "servers": [{"url": url}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
        "security": [{"token": []}],
    }


def _schemas(types: Iterable[Any]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Type → its schema, and the components they refer to. Structs made on the fly under one name count as one."""
    by_name: dict[Any, Any] = {}
    named: dict[Any, Any] = {}
    for kind in types:
        if kind not in (None, bytes):
            name = (getattr(kind, "__module__", ""), getattr(kind, "__qualname__", repr(kind)))
            named[kind] = by_name.setdefault(name, kind)
    schemas, components = msgspec.json.schema_components(by_name.values(), ref_template=REF)
    schema_of = dict(zip(by_name.values(), schemas, strict=True))
    return {kind: schema_of[first] for kind, first in named.items()}, components


def _all(service: Service) -> Iterable[tuple[str, Route]]:
    for route in service.roots:
        yield _path(route.path), route
    for route in service.routes:
        yield _path(service.prefix + route.path), route


def _path(path: str) -> str:
    return path.replace("*}", "}").rstrip("/") or "/"


_Rows = list[tuple[Service, Route]]


def _grouped(routes: Iterable[tuple[Service, str, Route]]) -> dict[tuple[str, str], _Rows]:
    """Rows that share path and method (other microversions, other actions) are one operation."""
    grouped: dict[tuple[str, str], _Rows] = {}
    for service, path, route in routes:
        grouped.setdefault((path, route.method.lower()), []).append((service, route))
    return grouped


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _operation(rows: _Rows, known: Mapping[Any, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    service, first = rows[0]
    handler = first.handler
    operation: dict[str, Any] = {
        "operationId": f"{service.type}_{first.method.lower()}_{_path(first.path)}".replace("/", "_"),
        "tags": [service.type],
        "responses": {
            **{str(route.answers): {"description": "As asked"} for _, route in rows},
            "default": {"description": "Why not, as the service writes it"},
        },
    }
    if handler.__doc__:
        operation["summary"] = handler.__doc__.strip().partition("\n")[0]
    if first.may:
        operation["x-policy"] = sorted({route.may for _, route in rows if route.may})
    if first.public:
        operation["security"] = []
    parameters = [*_query(rows, known, components), *_version(service)]
    if parameters:
        operation["parameters"] = parameters
    body = _body(rows, known)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _query(rows: _Rows, known: Mapping[Any, Any], components: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A query struct's fields as parameters."""
    found: dict[str, dict[str, Any]] = {}
    for _, route in rows:
        if route.query is not None:
            name = known[route.query]["$ref"].rpartition("/")[2]
            for field, schema in components[name].get("properties", {}).items():
                found[field] = {"name": field, "in": "query", "schema": schema}
    return list(found.values())


def _version(service: Service) -> list[dict[str, Any]]:
    versions = service.microversions
    if versions is None:
        return []
    described = f"`{versions.word} {versions.minimum}` to `{versions.word} {versions.maximum}`, or latest"
    example = f"{versions.word} {versions.maximum}"
    return [
        {
            "name": HEADER,
            "in": "header",
            "description": described,
            "schema": {"type": "string", "enum": [f"{versions.word} {versions.minimum}", example]},
        }
    ]


def _body(rows: _Rows, known: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Every shape the body may have, by content type."""
    shapes: dict[str, list[Any]] = {}
    for _, route in rows:
        if route.action is not None:
            held = known[route.body] if route.body is not None else {}
            schema = {
                "type": "object",
                "properties": {route.action: held},
                "required": [route.action],
                "additionalProperties": False,
            }
        elif route.body is bytes or (route.body is None and route.streams and route.method in {"PUT", "POST"}):
            schema = {}
        elif route.body is None:
            continue
        else:
            schema = known[route.body]
        for content_type in route.accepts:
            listed = shapes.setdefault(content_type, [])
            if schema not in listed:
                listed.append(schema)
    if not shapes:
        return None
    content = {
        content_type: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        for content_type, schemas in shapes.items()
    }
    return {"required": not any(route.optional_body for _, route in rows), "content": content}
