"""Networks and subnets: who may use them, what keeps them, and that no address is given twice."""

from msgspec.structs import replace

from bus.execute import AlreadyTaken
from handlers.network.network import NETWORKS
from handlers.network.router import Outdated
from handlers.network.subnet import SUBNETS, AddressTaken
from schema.network.network import (
    AddNetworkSegment,
    AddNetworkSubnet,
    ChangeNetworkSegment,
    CreateNetwork,
    DeleteNetwork,
    NetworkCreated,
    NetworkDeleted,
    NetworkSegmentAdded,
    NetworkSegmentChanged,
    NetworkSegmentRemoved,
    NetworkShared,
    NetworkSubnetAdded,
    NetworkSubnetChanged,
    NetworkSubnetRemoved,
    NetworkUnshared,
    NetworkUpdated,
    NoteSubnetChange,
    RemoveNetworkSegment,
    RemoveNetworkSubnet,
    Segment,
    ShareNetwork,
    UnshareNetwork,
    UpdateNetwork,
    UseNetwork,
)
from schema.network.subnet import (
    AddressAllocated,
    AddressReleased,
    AllocateAddress,
    CreateSubnet,
    DeleteSubnet,
    ReleaseAddress,
    SubnetCreated,
    SubnetDeleted,
    SubnetUpdated,
    UpdateSubnet,
)
from schema.refusal import Conflict, Invalid, NotFound
from tests.story import Story

networks = Story(NETWORKS)
subnets = Story(SUBNETS)
vxlan = Segment(id="s", segmentation_id=7)
network = NetworkCreated(name="private", project_id="p", segments=(vxlan,))
subnet = SubnetCreated(parent_id="n", project_id="p", cidr="10.0.0.0/24")
given_away = AddressAllocated(ip="10.0.0.5", port_id="a")


def test_a_network_is_made_changed_and_deleted():
    made = networks.given().when(CreateNetwork(name="private", project_id="p", segments=(vxlan,))).then(network)
    changed = made.when(UpdateNetwork(mtu=1400)).then(NetworkUpdated(mtu=1400))
    changed.when(DeleteNetwork()).then(NetworkDeleted())


def test_a_network_with_subnets_stays():
    with_subnet = networks.given(network).when(AddNetworkSubnet(subnet_id="s")).then(NetworkSubnetAdded(subnet_id="s"))
    with_subnet.when(DeleteNetwork()).refused("still has the subnets s", Conflict)
    without = with_subnet.when(RemoveNetworkSubnet(subnet_id="s")).then(NetworkSubnetRemoved(subnet_id="s"))
    without.when(DeleteNetwork()).then(NetworkDeleted())


def test_what_rests_on_a_network_is_outdated_when_it_has_other_subnets():
    networks.given(network).when(UseNetwork()).then()
    other = networks.given(network, NetworkSubnetAdded(subnet_id="s"))
    other.when(UseNetwork(subnet_ids=("s",))).then()
    other.when(UseNetwork()).then()
    other.when(UseNetwork(subnet_ids=())).refused("has other subnets", Outdated)
    networks.given(network, NetworkDeleted()).when(UseNetwork()).refused("could not be found", NotFound)


def test_ranges_of_a_network_do_not_overlap():
    with_subnet = networks.given(network).when(AddNetworkSubnet(subnet_id="s", cidr="10.0.0.0/24"))
    divided = with_subnet.then(NetworkSubnetAdded(subnet_id="s", cidr="10.0.0.0/24"))
    divided.when(AddNetworkSubnet(subnet_id="t", cidr="10.0.0.128/25")).refused("overlaps with another", Invalid)
    divided.when(AddNetworkSubnet(subnet_id="t", cidr="fd00::/64")).then(
        NetworkSubnetAdded(subnet_id="t", cidr="fd00::/64")
    )
    free = divided.when(RemoveNetworkSubnet(subnet_id="s")).then(NetworkSubnetRemoved(subnet_id="s"))
    free.when(AddNetworkSubnet(subnet_id="t", cidr="10.0.0.128/25")).then(
        NetworkSubnetAdded(subnet_id="t", cidr="10.0.0.128/25")
    )


def test_segments_come_and_go_but_for_the_last():
    tagged = Segment(id="t", network_type="vlan", physical_network="external", segmentation_id=7)
    both = networks.given(network).when(AddNetworkSegment(segment=tagged)).then(NetworkSegmentAdded(segment=tagged))
    twice = AddNetworkSegment(segment=replace(tagged, id="u"))
    both.when(twice).refused("already in use", AlreadyTaken)
    named = both.when(ChangeNetworkSegment(segment_id="t", name="second"))
    changed = named.then(NetworkSegmentChanged(segment_id="t", name="second"))
    assert [(it.name, it.revision) for it in changed.state.segments] == [("", 0), ("second", 1)]
    changed.when(ChangeNetworkSegment(segment_id="v", name="x")).refused("could not be found", NotFound)
    left = changed.when(RemoveNetworkSegment(segment_id="s")).then(NetworkSegmentRemoved(segment_id="s"))
    left.when(RemoveNetworkSegment(segment_id="t")).refused("its network has no other", Conflict)
    doubled = CreateNetwork(project_id="p", segments=(vxlan, replace(vxlan, id="t")))
    networks.given().when(doubled).refused("already in use", AlreadyTaken)


def test_a_network_changes_with_its_subnets():
    with_subnet = networks.given(network, NetworkSubnetAdded(subnet_id="s"))
    told = with_subnet.when(NoteSubnetChange(subnet_id="s", revision=2))
    told.then(NetworkSubnetChanged(subnet_id="s", revision=2))
    with_subnet.when(NoteSubnetChange(subnet_id="gone", revision=2)).then()


def test_a_network_is_shared_for_use_and_for_the_way_out():
    shared = networks.given(network).when(ShareNetwork(project_id="q")).then(NetworkShared(project_id="q"))
    external = shared.when(ShareNetwork(project_id="*", external=True))
    both = external.then(NetworkShared(project_id="*", external=True))
    assert (both.state.shared_with, both.state.external_for) == (("q",), ("*",))
    left = both.when(UnshareNetwork(project_id="q")).then(NetworkUnshared(project_id="q"))
    assert (left.state.shared_with, left.state.external_for) == ((), ("*",))


def test_what_was_never_made_cannot_be_changed():
    networks.given().when(UpdateNetwork(name="x")).refused("could not be found", NotFound)
    subnets.given().when(AllocateAddress(ip="10.0.0.5", port_id="a")).refused("could not be found", NotFound)


def test_an_address_is_given_once():
    first = subnets.given(subnet).when(AllocateAddress(ip="10.0.0.5", port_id="a")).then(given_away)
    first.when(AllocateAddress(ip="10.0.0.5", port_id="b")).refused("already allocated", AddressTaken)


def test_an_address_comes_back_only_from_who_has_it():
    subnets.given(subnet, given_away).when(ReleaseAddress(ip="10.0.0.5", port_id="b")).then()
    back = subnets.given(subnet, given_away).when(ReleaseAddress(ip="10.0.0.5", port_id="a"))
    free = back.then(AddressReleased(ip="10.0.0.5"))
    free.when(AllocateAddress(ip="10.0.0.5", port_id="b")).then(AddressAllocated(ip="10.0.0.5", port_id="b"))


def test_addresses_come_and_go_without_a_revision():
    told = subnets.given(subnet, given_away).when(UpdateSubnet(name="x")).then(SubnetUpdated(name="x"))
    assert told.state.revision == 2
    taken = told.when(AllocateAddress(ip="10.0.0.6", port_id="b")).then(AddressAllocated(ip="10.0.0.6", port_id="b"))
    assert (taken.state.revision, taken.state.changed_at) == (2, told.state.changed_at)


def test_a_subnet_whose_addresses_are_held_stays():
    subnets.given(subnet, given_away).when(DeleteSubnet()).refused("One or more ports have an IP allocation", Conflict)
    subnets.given(subnet).when(DeleteSubnet()).then(SubnetDeleted())
    subnets.given().when(CreateSubnet(parent_id="n", project_id="p", cidr="10.0.0.0/24")).then(subnet)
