"""Image v2 through openstacksdk: what people's scripts do."""

import asyncio
from pathlib import Path

import openstack
import pytest

from api.image.service import SERVICE
from bus.config import Settings
from tests.serving import serving

# The SDK warns of itself on every connection.
pytestmark = pytest.mark.filterwarnings("default::PendingDeprecationWarning", "default::DeprecationWarning")

DATA = bytes(range(256)) * 12_000


async def test_a_scripts_day_with_images(settings: Settings, fresh_database: str, tmp_path: Path):
    async with serving(settings, fresh_database, [SERVICE]) as api:
        mine, theirs = await api.token(project="a" * 32), await api.token(project="b" * 32)
        await asyncio.to_thread(_day, f"{api.url}/image/v2", mine, theirs, tmp_path)


def _connect(url: str, token: str) -> openstack.connection.Connection:
    return openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        region_name="RegionOne",
        auth_type="admin_token",
        auth={"endpoint": url, "token": token},
    )


def _day(url: str, mine: str, theirs: str, folder: Path) -> None:
    file = folder / "guest.raw"
    file.write_bytes(DATA)
    with _connect(url, mine) as cloud, _connect(url, theirs) as other:
        guest = {"filename": str(file), "disk_format": "raw", "validate_checksum": True, "wait": True}
        image = cloud.image.create_image("guest", **guest)
        image = cloud.image.get_image(image)
        assert image.status == "active"
        assert image.properties["owner_specified.openstack.object"] == "images/guest"
        again = cloud.image.create_image("guest", **guest)
        assert again.id == image.id, "the SDK knows it by its hash"

        for number in range(30):
            cloud.image.create_image(name=f"n{number}", allow_duplicates=True)
        assert len(list(cloud.image.images(limit=7))) == 31
        assert cloud.image.find_image("guest").id == image.id
        assert [one.name for one in cloud.image.images(name="guest")] == ["guest"]

        part = folder / "down.raw"
        cloud.image.download_image(image, output=str(part))
        assert part.read_bytes() == DATA

        changed = cloud.image.update_image(image, name="renamed", os_distro="debian", is_protected=True, min_ram=64)
        assert (changed.name, changed.os_distro, changed.is_protected, changed.min_ram) == (
            "renamed",
            "debian",
            True,
            64,
        )
        with pytest.raises(openstack.exceptions.ForbiddenException, match="protected"):
            cloud.image.delete_image(image)
        cloud.image.update_image(image, is_protected=False)

        cloud.image.add_tag(image, "blue")
        assert cloud.image.get_image(image).tags == ["blue"]
        cloud.image.remove_tag(image, "blue")

        with pytest.raises(openstack.exceptions.NotFoundException):
            other.image.get_image(image.id)
        cloud.image.add_member(image, member="b" * 32)
        other.image.update_member("b" * 32, image.id, status="accepted")
        assert [one.id for one in other.image.images()] == [image.id]
        cloud.image.remove_member("b" * 32, image)

        cloud.image.deactivate_image(image)
        assert cloud.image.get_image(image).status == "deactivated"
        cloud.image.reactivate_image(image)
        cloud.image.delete_image(image)
        assert cloud.image.find_image("renamed") is None
