"""How images and their members look on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schema.image.image import Image, Member


def view(image: Image) -> dict[str, Any]:
    """An image, its own properties among its attributes."""
    stored = bool(image.data_id)
    return {
        **image.properties,
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "protected": image.protected,
        "os_hidden": image.hidden,
        "owner": image.project_id or None,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk_gb,
        "min_ram": image.min_ram_mb,
        "size": image.size if stored else None,
        "virtual_size": image.virtual_size or None,
        "checksum": image.checksum or None,
        "os_hash_algo": image.hash_algorithm or None,
        "os_hash_value": image.hash_value or None,
        "tags": image.tags,
        "created_at": moment(image.created_at),
        "updated_at": moment(image.updated_at),
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": "/v2/schemas/image",
    }


def member_view(image: Image, project_id: str, member: Member) -> dict[str, Any]:
    """A project an image is shared with."""
    return {
        "image_id": image.id,
        "member_id": project_id,
        "status": member.status,
        "created_at": moment(member.created_at),
        "updated_at": moment(member.updated_at),
        "schema": "/v2/schemas/member",
    }


def moment(at: datetime | None) -> str | None:
    """A time to the second, as Glance writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at else None
