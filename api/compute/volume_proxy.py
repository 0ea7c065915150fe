"""Volumes and snapshots as compute once gave them, until 2.35: there is no block storage here that could be asked."""

from __future__ import annotations

from typing import Any

from api.compute.elsewhere import BEFORE_PROXIES_WENT
from api.wire import Call, Delete, Get, Post, Route
from schema.refusal import Invalid, NotFound

RULE = "os_compute_api:os-volumes"


async def no_volumes(call: Call) -> dict[str, Any]:
    return {"volumes": []}


async def no_snapshots(call: Call) -> dict[str, Any]:
    return {"snapshots": []}


async def no_volume(call: Call) -> None:
    raise NotFound(f"Volume {call.path['id'][:64]} could not be found.", code="VolumeNotFound")


async def no_snapshot(call: Call) -> None:
    raise NotFound(f"Snapshot {call.path['id'][:64]} could not be found.", code="SnapshotNotFound")


async def refuse(call: Call) -> None:
    raise Invalid("There is no block storage in this cloud, so that it has no volumes and no snapshots of them.")


def _rows(path: str, rule: str, index: Any, show: Any) -> list[Route]:
    return [
        Get(path, index, may=f"{rule}list", until=BEFORE_PROXIES_WENT),
        Get(f"{path}/detail", index, may=f"{rule}detail", until=BEFORE_PROXIES_WENT),
        Get(f"{path}/{{id}}", show, may=f"{rule}show", until=BEFORE_PROXIES_WENT),
        Delete(f"{path}/{{id}}", show, may=f"{rule}delete", answers=202, until=BEFORE_PROXIES_WENT),
        Post(path, refuse, may=f"{rule}create", body=dict[str, Any], answers=200, until=BEFORE_PROXIES_WENT),
    ]


routes = [
    *_rows("/os-volumes", f"{RULE}:", no_volumes, no_volume),
    *_rows("/os-snapshots", f"{RULE}:snapshots:", no_snapshots, no_snapshot),
    Post(
        "/os-assisted-volume-snapshots",
        refuse,
        may="os_compute_api:os-assisted-volume-snapshots:create",
        body=dict[str, Any],
        answers=200,
    ),
    Delete(
        "/os-assisted-volume-snapshots/{id}",
        no_snapshot,
        may="os_compute_api:os-assisted-volume-snapshots:delete",
    ),
]
