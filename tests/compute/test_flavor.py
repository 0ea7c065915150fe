"""The promises of flavors."""

import msgspec

from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import (
    CreateFlavor,
    DeleteFlavor,
    DescribeFlavor,
    FlavorAccessGranted,
    FlavorAccessRevoked,
    FlavorCreated,
    FlavorDeleted,
    FlavorDescribed,
    FlavorExtraSpecRemoved,
    FlavorExtraSpecsSet,
    GrantFlavorAccess,
    RemoveFlavorExtraSpec,
    RevokeFlavorAccess,
    SetFlavorExtraSpecs,
)
from schema.refusal import Conflict, NotFound
from tests.story import Story

flavor = Story(FLAVORS, "42")
create = CreateFlavor(name="tiny", vcpus=1, ram_mb=512, disk_gb=1)
created = FlavorCreated(name="tiny", vcpus=1, ram_mb=512, disk_gb=1)


def test_a_flavor_is_created():
    flavor.given().when(create).then(created)


def test_an_id_is_used_by_one_flavor_at_a_time():
    flavor.given(created).when(msgspec.structs.replace(create, ram_mb=64)).refused("42 already exists", Conflict)


def test_an_id_may_be_used_again_after_its_flavor_is_deleted():
    again = flavor.given(created, FlavorExtraSpecsSet(extra_specs={"a": "1"}), FlavorDeleted()).when(create)
    state = again.then(created).state
    assert state.living
    assert state.extra_specs == {}
    assert state.created_at == state.updated_at


def test_a_private_flavor_is_nobodys_until_access_is_granted():
    private = msgspec.structs.replace(create, is_public=False)
    state = flavor.given().when(private).then(msgspec.structs.replace(created, is_public=False)).state
    assert not state.visible_to("p1")
    assert state.access == ()


def test_access_is_granted_and_revoked():
    given = flavor.given(created)
    granted = given.when(GrantFlavorAccess(project_id="p2")).then(FlavorAccessGranted(project_id="p2"))
    revoked = granted.when(RevokeFlavorAccess(project_id="p2")).then(FlavorAccessRevoked(project_id="p2"))
    assert revoked.state.access == ()


def test_only_extra_specs_that_change_are_recorded():
    given = flavor.given(created, FlavorExtraSpecsSet(extra_specs={"hw:cpu_policy": "shared"}))
    given.when(SetFlavorExtraSpecs(extra_specs={"hw:cpu_policy": "shared"})).then()
    both = SetFlavorExtraSpecs(extra_specs={"hw:cpu_policy": "shared", "quota:cpu_shares": "10"})
    state = given.when(both).then(FlavorExtraSpecsSet(extra_specs={"quota:cpu_shares": "10"})).state
    assert state.extra_specs == {"hw:cpu_policy": "shared", "quota:cpu_shares": "10"}


def test_an_extra_spec_is_removed():
    given = flavor.given(created, FlavorExtraSpecsSet(extra_specs={"a": "1", "b": "2"}))
    state = given.when(RemoveFlavorExtraSpec(key="a")).then(FlavorExtraSpecRemoved(key="a")).state
    assert state.extra_specs == {"b": "2"}


def test_a_description_changes():
    flavor.given(created).when(DescribeFlavor(description="small")).then(FlavorDescribed(description="small"))
    flavor.given(created).when(DescribeFlavor(description=None)).then()


def test_a_flavor_is_deleted():
    flavor.given(created).when(DeleteFlavor()).then(FlavorDeleted())


def test_what_is_not_there_cannot_be_changed():
    for absent in (flavor.given(), flavor.given(created, FlavorDeleted())):
        absent.when(DescribeFlavor(description="x")).refused("42 could not be found", NotFound)
    flavor.given().when(DeleteFlavor()).refused("42 could not be found", NotFound)
