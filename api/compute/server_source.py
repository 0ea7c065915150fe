"""What a server is made from: the flavor, image and keypair that somebody names, as far as they may use them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.words import Tag, Uuid
from api.wire import Call
from api.wire.route import Version
from bus.documents import Where
from handlers.compute import image_properties
from handlers.compute.flavor import flavor_seen_by
from handlers.placement.hardware import Hardware, check_aliases
from handlers.placement.wishes import wanted
from schema.compute.flavor import Flavor
from schema.compute.keypair import KEYPAIR, KeyType
from schema.compute.server_parts import ServerFlavor, ServerImage
from schema.image.image import ACTIVE, IMAGE, Image
from schema.refusal import Invalid, NotFound

GIB = 1024**3
DEVICE_TAGS_FIRST = (2, 32)
DEVICE_TAGS_AGAIN = (2, 42)
VOLUME_TYPE_SINCE = (2, 67)

_FOR_THE_HOST = re.compile(r"hw_|os_|img_|trait:")


_Text = Annotated[str, Meta(max_length=255)]


class OldDevice(Struct, forbid_unknown_fields=True, kw_only=True):
    """One entry of `block_device_mapping`."""

    virtual_name: _Text = ""
    volume_id: Uuid = ""
    snapshot_id: Uuid = ""
    volume_size: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    device_name: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9._/-]*$")] | UnsetType = UNSET
    delete_on_termination: bool = False
    no_device: Any = None
    connection_info: str = ""


class Device(OldDevice, forbid_unknown_fields=True, kw_only=True):
    """One entry of `block_device_mapping_v2`."""

    source_type: Literal["volume", "image", "snapshot", "blank"] | UnsetType = UNSET
    uuid: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9._-]*$")] | UnsetType = UNSET
    image_id: Uuid = ""
    destination_type: Literal["local", "volume"] = "local"
    guest_format: _Text = ""
    device_type: _Text = ""
    disk_bus: _Text = ""
    boot_index: int | None = None
    tag: Tag | UnsetType = UNSET
    volume_type: _Text | UnsetType | None = UNSET


async def flavor_asked(call: Call, reference: str) -> Flavor:
    """A flavor by id or URL. Raises Invalid."""
    id = reference.rstrip("/").rpartition("/")[2]
    try:
        return await flavor_seen_by(call.cloud, id, None if call.token.is_admin else call.token.project_id)
    except NotFound:
        raise Invalid(f"Flavor {id} could not be found.") from None


async def image_asked(call: Call, reference: str, devices: Sequence[Device], flavor: Flavor) -> Image:
    """The image to boot, by id or URL, or as a block device; it must fit the flavor. Raises Invalid."""
    _check_known(devices, call.version)
    id = _booted_image(devices, reference.rstrip("/").rpartition("/")[2])
    if not id:
        raise Invalid("Invalid imageRef provided: a server boots from an image.")
    image = await image_named(call, id)
    check_fits(image, flavor)
    check_hardware(call, flavor, image)
    return image


async def image_named(call: Call, reference: str) -> Image:
    """An image that whoever asks may boot, by id or URL. Raises Invalid."""
    id = reference.rstrip("/").rpartition("/")[2]
    stream = IMAGE.stream(id)
    document = (await call.cloud.executor.load([stream])).get(stream)
    image: Image | None = document.state if document else None
    if image is None or not image.living or not (call.token.is_admin or image.visible_to(call.token.project_id)):
        raise Invalid(f"Image {id} could not be found.")
    if image.status != ACTIVE:
        raise Invalid(f"Image {id} is not active.")
    return image


async def public_keys(call: Call, key_name: str | None) -> dict[str, str]:
    """The caller's keypair of that name, as the guest gets it. Raises Invalid."""
    if not key_name:
        return {}
    where = [Where("parent_id", "=", call.token.user_id), Where("name", "=", key_name)]
    found = await call.cloud.documents.find(KEYPAIR, where=where, limit=1)
    if not found:
        raise Invalid("Invalid key_name provided: there is no such keypair of yours.")
    keypair = found[0].state
    return {keypair.name: keypair.public_key} if keypair.key_type == KeyType.SSH else {}


def flavor_kept(flavor: Flavor) -> ServerFlavor:
    """The part of a flavor that a server keeps."""
    return ServerFlavor(
        id=flavor.id,
        name=flavor.name,
        vcpus=flavor.vcpus,
        ram_mb=flavor.ram_mb,
        disk_gb=flavor.disk_gb,
        ephemeral_gb=flavor.ephemeral_gb,
        swap_mb=flavor.swap_mb,
        extra_specs=flavor.extra_specs,
    )


def image_kept(image: Image) -> ServerImage:
    """The part of an image that a server keeps."""
    properties = {key: value for key, value in image.properties.items() if _FOR_THE_HOST.match(key)}
    return ServerImage(id=image.id, properties=properties, disk_format=image.disk_format or "")


def _check_known(devices: Sequence[Device], version: Version) -> None:
    """Refuse what this version does not say of a device. Tags were there, were forgotten, and came back."""
    tagged = version == DEVICE_TAGS_FIRST or version >= DEVICE_TAGS_AGAIN
    known = {"tag": tagged, "volume_type": version >= VOLUME_TYPE_SINCE}
    for name, is_known in known.items():
        if not is_known and any(getattr(device, name) is not UNSET for device in devices):
            raise Invalid(
                f"Additional properties are not allowed in server.block_device_mapping_v2 ('{name}' was unexpected)"
            )


def _booted_image(devices: Sequence[Device], image_id: str) -> str:
    """The image a block device mapping boots from: only one device is possible, the image on a local disk."""
    for device in devices:
        local = device.source_type == "image" and device.destination_type == "local"
        if not local or device.boot_index != 0 or len(devices) > 1:
            raise Invalid("Volumes are not part of this cloud yet: the one block device is an image on a local disk.")
        if image_id and device.uuid != image_id:
            raise Invalid("Block Device Mapping is Invalid: imageRef and the boot device name different images.")
        image_id = device.uuid or ""
    return image_id


def check_hardware(call: Call, flavor: Flavor | ServerFlavor, image: Image | ServerImage | None) -> Hardware | None:
    """What the two want of a host for itself. Raises Invalid where they contradict each other, or name what is not."""
    properties = image.properties if image else {}
    image_properties.check(properties)
    image_properties.check_against(flavor.extra_specs, properties)
    hardware = wanted(flavor.vcpus, flavor.ram_mb, flavor.extra_specs, properties)
    check_aliases(hardware, call.cloud.settings.scheduler.pci_aliases)
    return hardware


def check_fits(image: Image, flavor: Flavor | ServerFlavor) -> None:
    """Raises Invalid."""
    if flavor.ram_mb < image.min_ram_mb:
        raise Invalid(
            f"Flavor's memory is too small for requested image: it has {flavor.ram_mb} MB, "
            f"the image wants {image.min_ram_mb} MB."
        )
    if flavor.disk_gb:
        size_gb = max(image.min_disk_gb, -(-max(image.size, image.virtual_size) // GIB))
        if flavor.disk_gb < size_gb:
            raise Invalid(
                f"Flavor's disk is too small for requested image: it has {flavor.disk_gb} GB, "
                f"the image wants {size_gb} GB."
            )
