"""Version documents: what each service answers at its roots, without a token, in the URLs the client used."""

from __future__ import annotations

from email.utils import format_datetime
from typing import Any

from api.wire.call import Call
from api.wire.microversion import Microversions
from api.wire.route import Get, Reply, Route
from bus import clock

UPDATED = "2026-01-01T00:00:00Z"


def identity(prefix: str = "/identity") -> list[Route]:
    """Keystone: 300 with `versions.values` at the root, `version` below."""

    def one(call: Call) -> dict[str, Any]:
        return {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{call.host_url}{prefix}/v3/"}],
            "media-types": _media_types("identity-v3"),
        }

    async def root(call: Call) -> Reply:
        location = {"Location": f"{call.host_url}{prefix}/v3/"}
        return Reply({"versions": {"values": [one(call)]}}, status=300, headers=location)

    async def version(call: Call) -> dict[str, Any]:
        return {"version": one(call)}

    return [Get(prefix, root, public=True), Get(f"{prefix}/v3", version, public=True)]


def compute(microversions: Microversions, prefix: str = "/compute") -> list[Route]:
    """Nova: `versions` at the root, `version` at /v2.1; v2.0, which knows no microversions, is there in name only."""

    def older(call: Call) -> dict[str, Any]:
        return {
            "id": "v2.0",
            "status": "DEPRECATED",
            "version": "",
            "min_version": "",
            "updated": "2011-01-21T11:33:21Z",
            "links": [{"rel": "self", "href": f"{call.host_url}{prefix}/v2/"}],
        }

    def one(call: Call) -> dict[str, Any]:
        return {
            "id": "v2.1",
            "status": "CURRENT",
            "version": microversions.maximum,
            "min_version": microversions.minimum,
            "updated": UPDATED,
            "links": [{"rel": "self", "href": f"{call.host_url}{prefix}/v2.1/"}],
        }

    async def root(call: Call) -> dict[str, Any]:
        return {"versions": [older(call), one(call)]}

    async def version(call: Call) -> dict[str, Any]:
        return {"version": {**one(call), "media-types": _media_types("compute", ";version=2.1")}}

    async def older_version(call: Call) -> dict[str, Any]:
        return {"version": {**older(call), "media-types": _media_types("compute", ";version=2")}}

    return [
        Get(prefix, root, public=True),
        Get(f"{prefix}/v2", older_version, public=True),
        Get(f"{prefix}/v2.1", version, public=True),
    ]


def volume(microversions: Microversions, prefix: str = "/volume") -> list[Route]:
    """Cinder: 300 at the root; /v3 wants a token, and clients know."""

    async def root(call: Call) -> Reply:
        version = {
            "id": "v3.0",
            "status": "CURRENT",
            "version": microversions.maximum,
            "min_version": microversions.minimum,
            "updated": UPDATED,
            "links": [{"rel": "self", "href": f"{call.host_url}{prefix}/v3/"}],
            "media-types": _media_types("volume", ";version=3"),
        }
        return Reply({"versions": [version]}, status=300)

    return [Get(prefix, root, public=True)]


def placement(microversions: Microversions, prefix: str = "/placement") -> list[Route]:
    """Placement: 200, its self link is the empty string; since 1.15 it says how fresh it is, as all its answers do."""

    async def root(call: Call) -> Reply:
        version = {
            "id": "v1.0",
            "status": "CURRENT",
            "max_version": microversions.maximum,
            "min_version": microversions.minimum,
            "links": [{"rel": "self", "href": ""}],
        }
        fresh = {"Cache-Control": "no-cache", "Last-Modified": format_datetime(clock.now(), usegmt=True)}
        return Reply({"versions": [version]}, headers=fresh if call.version >= (1, 15) else {})

    return [Get(prefix, root, public=True)]


def network(prefix: str = "/networking") -> list[Route]:
    """Neutron: 200 at the root; /v2.0 is no version document."""

    async def root(call: Call) -> dict[str, Any]:
        return {"versions": [_short(call, "v2.0", "CURRENT", f"{prefix}/v2.0/")]}

    return [Get(prefix, root, public=True)]


IMAGE_VERSIONS = ("2.17", "2.16", "2.15", "2.13", "2.12", "2.11", "2.10", "2.9", "2.7", "2.6", "2.5", "2.4", "2.3")


def image(prefix: str = "/image") -> list[Route]:
    """Glance: 300 at the root, 200 at /versions, no microversions."""

    def all_of(call: Call) -> dict[str, Any]:
        path = f"{prefix}/v2/"
        return {
            "versions": [
                _short(call, f"v{version}", "SUPPORTED" if nth else "CURRENT", path)
                for nth, version in enumerate(IMAGE_VERSIONS)
            ]
        }

    async def root(call: Call) -> Reply:
        return Reply(all_of(call), status=300)

    async def listed(call: Call) -> dict[str, Any]:
        return all_of(call)

    return [Get(prefix, root, public=True), Get(f"{prefix}/versions", listed, public=True)]


def orchestration(prefix: str = "/orchestration") -> list[Route]:
    """Heat: 300 at the root."""

    async def root(call: Call) -> Reply:
        return Reply({"versions": [_short(call, "v1.0", "CURRENT", f"{prefix}/v1/")]}, status=300)

    return [Get(prefix, root, public=True)]


def _short(call: Call, id: str, status: str, path: str) -> dict[str, Any]:
    return {"id": id, "status": status, "links": [{"rel": "self", "href": f"{call.host_url}{path}"}]}


def _media_types(name: str, version: str = "") -> list[dict[str, str]]:
    return [{"base": "application/json", "type": f"application/vnd.openstack.{name}+json{version}"}]
