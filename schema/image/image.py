"""An image: what servers start from. Its data lies in a store; here are its attributes, its sharing and its life.

    (none) ──created──▶ queued ──upload started──▶ saving ──uploaded──▶ active ◀──▶ deactivated
                          ▲                          │
                          └────── abandoned ─────────┘            any of them ──deleted──▶ (gone)

The data of an image never changes: it is uploaded once, under the id of that upload.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.event import Command, Event, Kind, Said, State

QUEUED, SAVING, ACTIVE, DEACTIVATED, DELETED = "queued", "saving", "active", "deactivated", "deleted"
PUBLIC, COMMUNITY, SHARED, PRIVATE = "public", "community", "shared", "private"
PENDING, ACCEPTED, REJECTED = "pending", "accepted", "rejected"

VISIBILITIES = (COMMUNITY, PUBLIC, PRIVATE, SHARED)
MEMBER_STATUSES = (PENDING, ACCEPTED, REJECTED)
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt")


class Member(msgspec.Struct, frozen=True):
    """A project an image is shared with, and what it said to that."""

    status: str
    created_at: datetime
    updated_at: datetime


class Image(State):
    name: str | None = None
    project_id: str = ""
    """The owner; empty for none."""
    status: str = QUEUED
    visibility: str = SHARED
    protected: bool = False
    hidden: bool = False
    min_disk_gb: int = 0
    min_ram_mb: int = 0
    disk_format: str | None = None
    container_format: str | None = None
    properties: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    members: dict[str, Member] = field(default_factory=dict)

    upload_id: str = ""
    """The upload under way."""
    upload_deadline: datetime | None = None
    data_id: str = ""
    """The upload its data came with, which is the data's name in the store; empty: there is none yet."""
    size: int = 0
    """Bytes."""
    virtual_size: int = 0
    """Bytes of the disk a guest sees; 0: unknown."""
    checksum: str = ""
    """MD5, hex: for old clients."""
    hash_algorithm: str = ""
    hash_value: str = ""

    def visible_to(self, project_id: str | None) -> bool:
        """Whether members of a project may see it and start servers from it. (An admin may always.)"""
        if self.visibility in (PUBLIC, COMMUNITY):
            return True
        if not project_id:
            return False
        return project_id == self.project_id or (self.visibility == SHARED and project_id in self.members)


class _NewImage(Said):
    name: str | None = None
    project_id: str = ""
    visibility: str = SHARED
    protected: bool = False
    hidden: bool = False
    min_disk_gb: int = 0
    min_ram_mb: int = 0
    disk_format: str | None = None
    container_format: str | None = None
    properties: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


class ImageCreated(Event, _NewImage):
    """It is there."""


class ImageUploadStarted(Event):
    upload_id: str
    deadline: datetime
    """Without a sign of life by then, the upload is given up."""


class ImageUploadContinued(Event):
    """The data still flows."""

    upload_id: str
    deadline: datetime


class ImageUploadAbandoned(Event):
    upload_id: str
    reason: str = ""


class _ImageData(Said):
    upload_id: str
    size: int
    checksum: str
    hash_algorithm: str
    hash_value: str
    virtual_size: int = 0


class ImageUploaded(Event, _ImageData):
    """Its data is there."""


class _ImageChanges(Said):
    name: str | None | UnsetType = UNSET
    project_id: str | UnsetType = UNSET
    visibility: str | UnsetType = UNSET
    protected: bool | UnsetType = UNSET
    hidden: bool | UnsetType = UNSET
    min_disk_gb: int | UnsetType = UNSET
    min_ram_mb: int | UnsetType = UNSET
    disk_format: str | None | UnsetType = UNSET
    container_format: str | None | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    properties_set: dict[str, str] = field(default_factory=dict)
    properties_removed: tuple[str, ...] = ()


class ImageChanged(Event, _ImageChanges):
    """What is not named stays as it was."""


class ImageTagged(Event):
    tag: str


class ImageUntagged(Event):
    tag: str


class ImageShared(Event):
    """A project was made a member; it has yet to answer."""

    project_id: str


class ImageMembershipAnswered(Event):
    project_id: str
    status: str


class ImageUnshared(Event):
    project_id: str


class ImageDeactivated(Event):
    """Its data is withheld from everybody but admins."""


class ImageReactivated(Event):
    pass


class ImageDeleted(Event):
    pass


ImageEvent = (
    ImageCreated
    | ImageUploadStarted
    | ImageUploadContinued
    | ImageUploadAbandoned
    | ImageUploaded
    | ImageChanged
    | ImageTagged
    | ImageUntagged
    | ImageShared
    | ImageMembershipAnswered
    | ImageUnshared
    | ImageDeactivated
    | ImageReactivated
    | ImageDeleted
)


class CreateImage(Command, _NewImage):
    """Make it."""


class StartImageUpload(Command):
    upload_id: str
    deadline: datetime


class ContinueImageUpload(Command):
    upload_id: str
    deadline: datetime


class AbandonImageUpload(Command):
    upload_id: str
    reason: str = ""


class FinishImageUpload(Command, _ImageData):
    """Its data is there."""


class ChangeImage(Command, _ImageChanges):
    """What is not named stays as it is."""


class TagImage(Command):
    tag: str


class UntagImage(Command):
    tag: str


class ShareImage(Command):
    project_id: str


class AnswerImageMembership(Command):
    project_id: str
    status: str


class UnshareImage(Command):
    project_id: str


class DeactivateImage(Command):
    pass


class ReactivateImage(Command):
    pass


class DeleteImage(Command):
    pass


CHANGEABLE = (
    "name",
    "project_id",
    "visibility",
    "protected",
    "hidden",
    "min_disk_gb",
    "min_ram_mb",
    "disk_format",
    "container_format",
    "tags",
)
"""Attributes that `ImageChanged` and `ChangeImage` may name."""


def evolve(image: Image, event: ImageEvent, at: datetime) -> Image:
    match event:
        case ImageCreated():
            return Image(id=image.id, **{name: getattr(event, name) for name in (*CHANGEABLE, "properties")})
        case ImageUploadStarted():
            return replace(image, status=SAVING, upload_id=event.upload_id, upload_deadline=event.deadline)
        case ImageUploadContinued():
            return replace(image, upload_deadline=event.deadline)
        case ImageUploadAbandoned():
            return replace(image, status=QUEUED, upload_id="", upload_deadline=None)
        case ImageUploaded():
            return replace(
                image,
                status=ACTIVE,
                upload_id="",
                upload_deadline=None,
                data_id=event.upload_id,
                size=event.size,
                virtual_size=event.virtual_size,
                checksum=event.checksum,
                hash_algorithm=event.hash_algorithm,
                hash_value=event.hash_value,
            )
        case ImageChanged():
            named = {name: value for name in CHANGEABLE if (value := getattr(event, name)) is not UNSET}
            kept = {k: v for k, v in image.properties.items() if k not in event.properties_removed}
            return replace(image, **named, properties=kept | event.properties_set)
        case ImageTagged():
            return replace(image, tags=(*image.tags, event.tag))
        case ImageUntagged():
            return replace(image, tags=tuple(tag for tag in image.tags if tag != event.tag))
        case ImageShared():
            return replace(image, members=image.members | {event.project_id: Member(PENDING, at, at)})
        case ImageMembershipAnswered():
            since = image.members[event.project_id].created_at if event.project_id in image.members else at
            return replace(image, members=image.members | {event.project_id: Member(event.status, since, at)})
        case ImageUnshared():
            return replace(image, members={k: v for k, v in image.members.items() if k != event.project_id})
        case ImageDeactivated():
            return replace(image, status=DEACTIVATED)
        case ImageReactivated():
            return replace(image, status=ACTIVE)
        case ImageDeleted():
            return replace(image, status=DELETED, upload_id="", upload_deadline=None, deleted_at=at)


def _deadline(image: Image) -> datetime | None:
    return image.upload_deadline if image.status == SAVING else None


IMAGE = Kind("image", Image, ImageEvent, evolve, deadline=_deadline)
