"""Address groups: addresses come and go together; one that a rule names stays."""

from handlers.network.address_group import ADDRESS_GROUPS
from schema.network.address_group import (
    AddAddresses,
    AddressesAdded,
    AddressesRemoved,
    AddressGroupCreated,
    AddressGroupDeleted,
    AddressGroupShared,
    AddressGroupUnshared,
    AddressGroupUpdated,
    CreateAddressGroup,
    DeleteAddressGroup,
    RemoveAddresses,
    ShareAddressGroup,
    UnshareAddressGroup,
    UpdateAddressGroup,
)
from schema.refusal import Invalid, NotFound
from tests.story import Story

groups = Story(ADDRESS_GROUPS)
A, B, C = "10.0.0.1/32", "10.0.1.0/24", "fd00::/64"
created = AddressGroupCreated(name="offices", project_id="p", addresses=(A,))


def test_a_group_is_made_changed_and_deleted():
    made = groups.given().when(CreateAddressGroup(name="offices", project_id="p", addresses=(A, A))).then(created)
    changed = made.when(UpdateAddressGroup(name="homes")).then(AddressGroupUpdated(name="homes"))
    changed.when(DeleteAddressGroup()).then(AddressGroupDeleted())


def test_only_what_is_new_is_added_and_what_is_there_removed():
    added = groups.given(created).when(AddAddresses(addresses=(A, B, C))).then(AddressesAdded(addresses=(B, C)))
    left = added.when(RemoveAddresses(addresses=(A, C, "192.0.2.0/24"))).then(AddressesRemoved(addresses=(A, C)))
    assert left.state.addresses == (B,)


def test_there_is_an_end_to_it():
    many = tuple(f"10.{n // 256}.{n % 256}.0/24" for n in range(10_001))
    groups.given(created).when(AddAddresses(addresses=many)).refused("it may have 10000", Invalid)


def test_a_group_is_shared_and_unshared():
    shared = groups.given(created).when(ShareAddressGroup(project_id="q")).then(AddressGroupShared(project_id="q"))
    shared.when(UnshareAddressGroup(project_id="q")).then(AddressGroupUnshared(project_id="q"))


def test_what_is_gone_cannot_be_changed():
    groups.given(created, AddressGroupDeleted()).when(AddAddresses(addresses=(B,))).refused("not be found", NotFound)
