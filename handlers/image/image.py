"""The rules of images."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from bus.execute import Aggregate
from schema.event import Command
from schema.image.image import (
    ACTIVE,
    CHANGEABLE,
    DEACTIVATED,
    IMAGE,
    QUEUED,
    SAVING,
    SHARED,
    AbandonImageUpload,
    AnswerImageMembership,
    ChangeImage,
    ContinueImageUpload,
    CreateImage,
    DeactivateImage,
    DeleteImage,
    FinishImageUpload,
    Image,
    ImageChanged,
    ImageCreated,
    ImageDeactivated,
    ImageDeleted,
    ImageEvent,
    ImageMembershipAnswered,
    ImageReactivated,
    ImageShared,
    ImageTagged,
    ImageUnshared,
    ImageUntagged,
    ImageUploadAbandoned,
    ImageUploadContinued,
    ImageUploaded,
    ImageUploadStarted,
    ReactivateImage,
    ShareImage,
    StartImageUpload,
    TagImage,
    UnshareImage,
    UntagImage,
)
from schema.refusal import Conflict, Forbidden, Invalid, NotFound, Refused

UNBORN = "unborn"
LIVING = {QUEUED, SAVING, ACTIVE, DEACTIVATED}

ALLOWED: dict[type[Command], set[str]] = {
    CreateImage: {UNBORN},
    StartImageUpload: {QUEUED},
    ContinueImageUpload: {SAVING},
    AbandonImageUpload: {SAVING},
    FinishImageUpload: {SAVING},
    ChangeImage: LIVING,
    TagImage: LIVING,
    UntagImage: LIVING,
    ShareImage: LIVING,
    AnswerImageMembership: LIVING,
    UnshareImage: LIVING,
    DeactivateImage: {ACTIVE},
    ReactivateImage: {DEACTIVATED},
    DeleteImage: LIVING,
}

MAX_PROPERTIES = 128
MAX_TAGS = 128
MAX_MEMBERS = 128

_TOWARDS: Mapping[type[Command], str] = {StartImageUpload: SAVING, FinishImageUpload: ACTIVE}
_BARRED: Mapping[type[Command], str] = {DeactivateImage: DEACTIVATED, ReactivateImage: ACTIVE}


class TooMany(Refused):
    """An image would have more of something than it may (413, as Glance answers)."""

    status = 413


class Vanished(Refused):
    """The image was deleted while its data was on the way (410)."""

    status = 410


def decide(image: Image, command: Command) -> list[ImageEvent]:
    if _already_so(image, command):
        return []
    if (image.status if image.created_at else UNBORN) not in ALLOWED[type(command)]:
        raise _refusal(image, command)
    match command:
        case CreateImage():
            _within_limits(len(command.properties), len(command.tags))
            return [_created(command)]
        case StartImageUpload():
            if not (image.disk_format and image.container_format):
                raise Invalid("disk_format and container_format must be set before data is uploaded.")
            return [ImageUploadStarted(upload_id=command.upload_id, deadline=command.deadline)]
        case ContinueImageUpload():
            _its_own(image, command.upload_id)
            return [ImageUploadContinued(upload_id=command.upload_id, deadline=command.deadline)]
        case AbandonImageUpload():
            return [ImageUploadAbandoned(upload_id=command.upload_id, reason=command.reason)]
        case FinishImageUpload():
            _its_own(image, command.upload_id)
            return [
                ImageUploaded(
                    upload_id=command.upload_id,
                    size=command.size,
                    virtual_size=command.virtual_size,
                    checksum=command.checksum,
                    hash_algorithm=command.hash_algorithm,
                    hash_value=command.hash_value,
                )
            ]
        case ChangeImage():
            return [_changed(image, command)]
        case TagImage():
            _within_limits(0, len(image.tags) + 1)
            return [ImageTagged(tag=command.tag)]
        case UntagImage():
            return [ImageUntagged(tag=command.tag)]
        case ShareImage():
            _only_shared(image)
            if len(image.members) >= MAX_MEMBERS:
                raise TooMany(f"The limit of {MAX_MEMBERS} members of an image is reached.")
            return [ImageShared(project_id=command.project_id)]
        case AnswerImageMembership():
            _only_shared(image)
            if command.project_id not in image.members:
                raise NotFound(f"{command.project_id} is not a member of image {image.id}.")
            return [ImageMembershipAnswered(project_id=command.project_id, status=command.status)]
        case UnshareImage():
            _only_shared(image)
            return [ImageUnshared(project_id=command.project_id)]
        case DeactivateImage():
            return [ImageDeactivated()]
        case ReactivateImage():
            return [ImageReactivated()]
        case DeleteImage():
            if image.protected:
                raise Forbidden(f"Image {image.id} is protected and cannot be deleted.")
            return [ImageDeleted()]
    raise TypeError(f"images know no {type(command).__name__}")


def _already_so(image: Image, command: Command) -> bool:
    match command:
        case CreateImage():
            return image.living and _created(command) == _as_created(image)
        case DeleteImage():
            return image.deleted_at is not None
        case AbandonImageUpload():
            return image.created_at is not None and image.upload_id != command.upload_id
        case FinishImageUpload():
            return image.living and image.data_id == command.upload_id
        case StartImageUpload():
            return image.status == SAVING and image.upload_id == command.upload_id
        case ContinueImageUpload():
            return image.upload_id == command.upload_id and image.upload_deadline == command.deadline
        case DeactivateImage():
            return image.status == DEACTIVATED
        case ReactivateImage():
            return image.status == ACTIVE
    if not image.living:
        return False
    match command:
        case ChangeImage():
            return _difference(image, command) is None
        case TagImage():
            return command.tag in image.tags
        case UntagImage():
            return command.tag not in image.tags
        case ShareImage():
            return command.project_id in image.members
        case AnswerImageMembership():
            member = image.members.get(command.project_id)
            return member is not None and member.status == command.status
        case UnshareImage():
            return command.project_id not in image.members
    return False


def _refusal(image: Image, command: Command) -> Refused:
    """Why a command is not allowed in the image's status, in the shade Glance answers with."""
    if not image.living and isinstance(command, FinishImageUpload | ContinueImageUpload):
        return Vanished(f"Image {image.id} was deleted during its upload; the data was thrown away.")
    if isinstance(command, CreateImage):
        return Conflict(f"Image ID {image.id} already exists!")
    if not image.living:
        return NotFound(f"No image found with ID {image.id}")
    if type(command) in _BARRED:
        return Forbidden(_not_from(image.status, _BARRED[type(command)]))
    return Conflict(_not_from(image.status, _TOWARDS.get(type(command), "saving")))


def _not_from(status: str, towards: str) -> str:
    return f"Image status transition from {status} to {towards} is not allowed."


def _its_own(image: Image, upload_id: str) -> None:
    if image.upload_id != upload_id:
        raise Conflict(f"Another upload of image {image.id} is under way; this one was given up.")


def _only_shared(image: Image) -> None:
    if image.visibility != SHARED:
        raise Forbidden(f"Only shared images have members; image {image.id} is {image.visibility}.")


def _within_limits(properties: int, tags: int) -> None:
    if properties > MAX_PROPERTIES:
        raise TooMany(f"An image may have {MAX_PROPERTIES} properties at most, not {properties}.")
    if tags > MAX_TAGS:
        raise TooMany(f"An image may have {MAX_TAGS} tags at most, not {tags}.")


def _changed(image: Image, command: ChangeImage) -> ImageChanged:
    changed = _difference(image, command)
    assert changed is not None
    for format in ("disk_format", "container_format"):
        if getattr(changed, format) is not UNSET and image.status != QUEUED:
            raise Forbidden(f"Attribute {format} can be replaced only while an image is queued.")
    properties = (image.properties.keys() - changed.properties_removed) | changed.properties_set.keys()
    tags = image.tags if changed.tags is UNSET else changed.tags
    if len(properties) > len(image.properties):
        _within_limits(len(properties), 0)
    _within_limits(0, len(tags))
    return changed


def _difference(image: Image, command: ChangeImage) -> ImageChanged | None:
    """What the command would change, and nothing else; None when that is nothing."""
    named = {
        name: value
        for name in CHANGEABLE
        if (value := getattr(command, name)) is not UNSET and value != getattr(image, name)
    }
    put = {k: v for k, v in command.properties_set.items() if image.properties.get(k) != v}
    removed = tuple(k for k in command.properties_removed if k in image.properties and k not in command.properties_set)
    if not (named or put or removed):
        return None
    return ImageChanged(**named, properties_set=put, properties_removed=removed)


def _created(command: CreateImage) -> ImageCreated:
    return ImageCreated(**{name: getattr(command, name) for name in (*CHANGEABLE, "properties")})


def _as_created(image: Image) -> ImageCreated:
    return ImageCreated(**{name: getattr(image, name) for name in (*CHANGEABLE, "properties")})


IMAGES = Aggregate(IMAGE, decide, ALLOWED)
