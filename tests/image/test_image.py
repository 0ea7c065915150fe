"""The promises of images: what may happen to one, and what never."""

from datetime import timedelta

import pytest

from handlers.image.image import IMAGES, MAX_PROPERTIES, MAX_TAGS, TooMany, Vanished
from schema.image.image import (
    AbandonImageUpload,
    AnswerImageMembership,
    ChangeImage,
    ContinueImageUpload,
    CreateImage,
    DeactivateImage,
    DeleteImage,
    FinishImageUpload,
    ImageChanged,
    ImageCreated,
    ImageDeactivated,
    ImageDeleted,
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
from schema.refusal import Conflict, Forbidden, Invalid, NotFound
from tests.story import BEGINNING, Story

image = Story(IMAGES, "11111111-1111-4111-8111-111111111111")
LATER = BEGINNING + timedelta(minutes=5)
create = CreateImage(name="tiny", project_id="p1", disk_format="raw", container_format="bare", properties={"a": "1"})
created = ImageCreated(name="tiny", project_id="p1", disk_format="raw", container_format="bare", properties={"a": "1"})
started = ImageUploadStarted(upload_id="u1", deadline=LATER)
finish = FinishImageUpload(
    upload_id="u1", size=3, virtual_size=3, checksum="m", hash_algorithm="sha512", hash_value="h"
)
uploaded = ImageUploaded(upload_id="u1", size=3, virtual_size=3, checksum="m", hash_algorithm="sha512", hash_value="h")


def test_an_image_is_queued_filled_and_active():
    queued = image.given().when(create).then(created)
    assert queued.state.status == "queued"
    saving = queued.when(StartImageUpload(upload_id="u1", deadline=LATER)).then(started)
    assert saving.state.status == "saving"
    active = saving.when(finish).then(uploaded)
    assert (active.state.status, active.state.size, active.state.data_id) == ("active", 3, "u1")


def test_an_upload_that_breaks_off_leaves_the_image_queued():
    given = image.given(created, started)
    again = given.when(AbandonImageUpload(upload_id="u1", reason="r")).then(
        ImageUploadAbandoned(upload_id="u1", reason="r")
    )
    assert again.state.status == "queued"
    again.when(finish).refused("not allowed", Conflict)
    again.when(StartImageUpload(upload_id="u2", deadline=LATER)).then(
        ImageUploadStarted(upload_id="u2", deadline=LATER)
    )


def test_one_upload_at_a_time_and_one_for_ever():
    other = StartImageUpload(upload_id="u2", deadline=LATER)
    image.given(created, started).when(other).refused("from saving to saving", Conflict)
    image.given(created, started, uploaded).when(other).refused("from active to saving", Conflict)


def test_a_slow_upload_is_kept_alive_by_its_own_process_only():
    soon = LATER + timedelta(minutes=5)
    given = image.given(created, started)
    given.when(ContinueImageUpload(upload_id="u1", deadline=soon)).then(
        ImageUploadContinued(upload_id="u1", deadline=soon)
    )
    given.when(ContinueImageUpload(upload_id="u2", deadline=soon)).refused("Another upload", Conflict)
    assert IMAGES.kind.deadline(given.state) == LATER
    assert IMAGES.kind.deadline(image.given(created).state) is None


def test_formats_must_be_known_before_data_comes():
    image.given(ImageCreated(name="x")).when(StartImageUpload(upload_id="u", deadline=LATER)).refused(
        "disk_format", Invalid
    )


def test_data_of_an_image_deleted_meanwhile_is_refused():
    image.given(created, started, ImageDeleted()).when(finish).refused("was deleted", Vanished)


def test_only_what_changes_is_recorded():
    given = image.given(created, started, uploaded)
    wish = ChangeImage(
        name="other", visibility="shared", properties_set={"a": "1", "b": "2"}, properties_removed=("c",)
    )
    state = given.when(wish).then(ImageChanged(name="other", properties_set={"b": "2"})).state
    assert (state.name, state.properties) == ("other", {"a": "1", "b": "2"})
    given.when(ChangeImage(name="tiny")).then()


def test_formats_stay_once_there_is_data():
    image.given(created).when(ChangeImage(disk_format="qcow2")).then(ImageChanged(disk_format="qcow2"))
    image.given(created, started, uploaded).when(ChangeImage(disk_format="qcow2")).refused("queued", Forbidden)


def test_there_is_a_limit_on_properties_and_tags():
    many = {str(n): "x" for n in range(MAX_PROPERTIES)}
    image.given(created).when(ChangeImage(properties_set=many)).refused("at most", TooMany)
    image.given(created).when(ChangeImage(properties_set=many, properties_removed=("a",))).then(
        ImageChanged(properties_set=many, properties_removed=("a",))
    )
    full = ImageCreated(name="x", tags=tuple(map(str, range(MAX_TAGS))))
    image.given(full).when(TagImage(tag="one more")).refused("at most", TooMany)
    image.given(full).when(TagImage(tag="5")).then()


def test_tags_come_and_go():
    tagged = image.given(created).when(TagImage(tag="a")).then(ImageTagged(tag="a"))
    assert tagged.when(UntagImage(tag="a")).then(ImageUntagged(tag="a")).state.tags == ()


def test_a_shared_image_is_seen_by_its_members():
    shared = image.given(created).when(ShareImage(project_id="p2")).then(ImageShared(project_id="p2"))
    assert shared.state.visible_to("p2")
    assert not shared.state.visible_to("p3")
    accepted = shared.when(AnswerImageMembership(project_id="p2", status="accepted")).then(
        ImageMembershipAnswered(project_id="p2", status="accepted")
    )
    assert accepted.state.members["p2"].status == "accepted"
    gone = accepted.when(UnshareImage(project_id="p2")).then(ImageUnshared(project_id="p2"))
    assert not gone.state.visible_to("p2")
    shared.when(AnswerImageMembership(project_id="p3", status="accepted")).refused("not a member", NotFound)


@pytest.mark.parametrize("visibility", ["public", "private", "community"])
def test_only_shared_images_have_members(visibility):
    given = image.given(created, ImageChanged(visibility=visibility))
    given.when(ShareImage(project_id="p2")).refused("Only shared images", Forbidden)
    assert given.state.visible_to("p9") is (visibility != "private")


def test_an_active_image_is_withheld_and_given_back():
    active = image.given(created, started, uploaded)
    withheld = active.when(DeactivateImage()).then(ImageDeactivated())
    withheld.when(ReactivateImage()).then(ImageReactivated())
    image.given(created).when(DeactivateImage()).refused("from queued to deactivated", Forbidden)


def test_a_protected_image_stays():
    image.given(created, ImageChanged(protected=True)).when(DeleteImage()).refused("protected", Forbidden)


def test_what_is_deleted_stays_deleted():
    gone = image.given(created, started, uploaded).when(DeleteImage()).then(ImageDeleted())
    gone.when(ChangeImage(name="x")).refused("No image found", NotFound)
    gone.when(create).refused("already exists", Conflict)
    image.given().when(DeleteImage()).refused("No image found", NotFound)
