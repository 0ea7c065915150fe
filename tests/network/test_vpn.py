"""VPN: policies, services and endpoint groups stay while a connection uses them; hosts say how those are doing."""

import pytest
from msgspec.structs import replace

from handlers.network.vpn import ENDPOINT_GROUPS, IKE_POLICIES, IPSEC_POLICIES, VPN_CONNECTIONS, VPN_SERVICES
from handlers.network.vpn_connection import Site, ike_words, ipsec_words, refuse_unfit
from schema.network.vpn_connection import (
    CreateVpnConnection,
    DeleteVpnConnection,
    ReportVpnConnection,
    UpdateVpnConnection,
    VpnConnectionCreated,
    VpnConnectionDeleted,
    VpnConnectionSeen,
    VpnConnectionUpdated,
)
from schema.network.vpn_policy import (
    CreateIkePolicy,
    CreateIpsecPolicy,
    DeleteIkePolicy,
    DeleteIpsecPolicy,
    IkePolicy,
    IkePolicyCreated,
    IkePolicyDeleted,
    IkePolicyLeft,
    IkePolicyUpdated,
    IkePolicyUsed,
    IpsecPolicy,
    IpsecPolicyCreated,
    IpsecPolicyDeleted,
    IpsecPolicyLeft,
    IpsecPolicyUpdated,
    IpsecPolicyUsed,
    LeaveIkePolicy,
    LeaveIpsecPolicy,
    UpdateIkePolicy,
    UpdateIpsecPolicy,
    UseIkePolicy,
    UseIpsecPolicy,
)
from schema.network.vpn_service import (
    CreateEndpointGroup,
    CreateVpnService,
    DeleteEndpointGroup,
    DeleteVpnService,
    EndpointGroupCreated,
    EndpointGroupDeleted,
    EndpointGroupLeft,
    EndpointGroupUpdated,
    EndpointGroupUsed,
    LeaveEndpointGroup,
    LeaveVpnService,
    UpdateEndpointGroup,
    UpdateVpnService,
    UseEndpointGroup,
    UseVpnService,
    VpnServiceCreated,
    VpnServiceDeleted,
    VpnServiceLeft,
    VpnServiceUpdated,
    VpnServiceUsed,
)
from schema.refusal import Conflict, Invalid, NotFound
from tests.story import Story

ike, ipsec = Story(IKE_POLICIES), Story(IPSEC_POLICIES)
services, groups = Story(VPN_SERVICES), Story(ENDPOINT_GROUPS)
connections = Story(VPN_CONNECTIONS)


def test_an_ike_policy_in_use_stays_as_it_is():
    made = ike.given().when(CreateIkePolicy(name="i", project_id="p")).then(IkePolicyCreated(name="i", project_id="p"))
    changed = made.when(UpdateIkePolicy(pfs="group14")).then(IkePolicyUpdated(pfs="group14"))
    used = changed.when(UseIkePolicy(user_id="c")).then(IkePolicyUsed(user_id="c"))
    used.when(UpdateIkePolicy(name="other")).refused("is in use by existing", Conflict)
    used.when(DeleteIkePolicy()).refused("is in use by existing", Conflict)
    free = used.when(LeaveIkePolicy(user_id="c")).then(IkePolicyLeft(user_id="c"))
    free.when(DeleteIkePolicy()).then(IkePolicyDeleted()).when(UseIkePolicy(user_id="d")).refused("not be", NotFound)


def test_an_ipsec_policy_in_use_stays_as_it_is():
    made = ipsec.given().when(CreateIpsecPolicy(name="i")).then(IpsecPolicyCreated(name="i"))
    changed = made.when(UpdateIpsecPolicy(lifetime_value=7200)).then(IpsecPolicyUpdated(lifetime_value=7200))
    used = changed.when(UseIpsecPolicy(user_id="c")).then(IpsecPolicyUsed(user_id="c"))
    used.when(DeleteIpsecPolicy()).refused("is in use by existing", Conflict)
    free = used.when(LeaveIpsecPolicy(user_id="c")).then(IpsecPolicyLeft(user_id="c"))
    free.when(DeleteIpsecPolicy()).then(IpsecPolicyDeleted())


def test_a_service_in_use_changes_but_stays():
    made = services.given().when(CreateVpnService(parent_id="r")).then(VpnServiceCreated(parent_id="r"))
    used = made.when(UseVpnService(user_id="c")).then(VpnServiceUsed(user_id="c"))
    used.when(UpdateVpnService(admin_state_up=False)).then(VpnServiceUpdated(admin_state_up=False))
    used.when(DeleteVpnService()).refused("is still in use", Conflict)
    free = used.when(LeaveVpnService(user_id="c")).then(VpnServiceLeft(user_id="c"))
    free.when(DeleteVpnService()).then(VpnServiceDeleted())


def test_an_endpoint_group_in_use_is_renamed_but_stays():
    made = groups.given().when(CreateEndpointGroup(endpoints=("10.0.0.0/24",)))
    there = made.then(EndpointGroupCreated(endpoints=("10.0.0.0/24",)))
    used = there.when(UseEndpointGroup(user_id="c")).then(EndpointGroupUsed(user_id="c"))
    used.when(UpdateEndpointGroup(name="east")).then(EndpointGroupUpdated(name="east"))
    used.when(DeleteEndpointGroup()).refused("is in use and cannot be deleted", Conflict)
    free = used.when(LeaveEndpointGroup(user_id="c")).then(EndpointGroupLeft(user_id="c"))
    free.when(DeleteEndpointGroup()).then(EndpointGroupDeleted())


def test_a_connection_is_as_its_routers_host_says():
    made = connections.given().when(CreateVpnConnection(router_id="r", peer_address="203.0.113.7"))
    there = made.then(VpnConnectionCreated(router_id="r", peer_address="203.0.113.7"))
    assert there.state.status == "PENDING_CREATE"
    there.when(ReportVpnConnection(router_id="another", status="ACTIVE")).then()
    up = there.when(ReportVpnConnection(router_id="r", status="ACTIVE")).then(VpnConnectionSeen(status="ACTIVE"))
    changed = up.when(UpdateVpnConnection(mtu=1400)).then(VpnConnectionUpdated(mtu=1400))
    gone = changed.when(DeleteVpnConnection()).then(VpnConnectionDeleted())
    gone.when(UpdateVpnConnection(mtu=1300)).refused("not found", NotFound)


def test_two_sites_must_fit_each_other():
    site = Site(
        peer_address="203.0.113.7",
        local_cidrs=["10.0.0.0/24"],
        peer_cidrs=["10.1.0.0/24"],
        mtu=1500,
        dpd_interval=30,
        dpd_timeout=120,
    )
    refuse_unfit(site)
    for unfit, code in [
        (replace(site, dpd_timeout=30), "IPsecSiteConnectionDpdIntervalValueError"),
        (replace(site, peer_cidrs=["fd00::/64"]), "MixedIPVersionsForIPSecEndpoints"),
        (replace(site, peer_address="2001:db8::7"), "MixedIPVersionsForIPSecConnection"),
        (replace(site, mtu=67), "IPsecSiteConnectionMtuError"),
    ]:
        with pytest.raises(Invalid) as refused:
            refuse_unfit(unfit)
        assert refused.value.code == code


def test_a_host_is_told_what_the_policies_say():
    words = ike_words(IkePolicy(ike_version="v2", pfs="group14", lifetime_value=7200))
    assert (words.version, words.pfs, words.lifetime_seconds) == ("v2", "group14", 7200)
    assert ipsec_words(IpsecPolicy(lifetime_units="kilobytes", lifetime_value=2000)).lifetime_seconds == 3600
