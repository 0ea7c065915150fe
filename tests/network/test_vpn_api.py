"""VPN over HTTP: what clients of VPNaaS rely on."""

import uuid

import pytest

from schema.network.vpn_connection import VPN_CONNECTION
from tests.network.routed import Client, network, subnet

KEY = "not a very good key"


@pytest.fixture
async def site(served, member):
    """A router with a way out and a foot in a subnet: (router, subnet)."""
    outside = await network(served.cloud, external=True, project="operators")
    await subnet(served.cloud, outside, "203.0.113.0/27", "203.0.113.1", "203.0.113.2", "203.0.113.30", "operators")
    inner = await network(served.cloud)
    inner_subnet = await subnet(served.cloud, inner, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")
    body = {"router": {"external_gateway_info": {"network_id": outside}}}
    router = (await member("POST", "/routers", body, expect=201))["router"]["id"]
    await member("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": inner_subnet})
    return router, inner_subnet


async def _make(member, path, what, **fields):
    return (await member("POST", f"/vpn/{path}", {what: fields}, expect=201))[what]


async def _connection(member, service, **fields):
    ike = (await _make(member, "ikepolicies", "ikepolicy", name="ike"))["id"]
    ipsec = (await _make(member, "ipsecpolicies", "ipsecpolicy", name="ipsec"))["id"]
    wanted = {"peer_address": "198.51.100.7", "peer_id": "198.51.100.7", "psk": KEY} | fields
    return await _make(
        member,
        "ipsec-site-connections",
        "ipsec_site_connection",
        vpnservice_id=service,
        ikepolicy_id=ike,
        ipsecpolicy_id=ipsec,
        **wanted,
    )


async def test_policies_have_the_defaults_of_vpnaas_and_change(member):
    ike = await _make(member, "ikepolicies", "ikepolicy", name="ike")
    assert {name: ike[name] for name in ("auth_algorithm", "encryption_algorithm", "pfs", "ike_version")} == {
        "auth_algorithm": "sha1",
        "encryption_algorithm": "aes-128",
        "pfs": "group5",
        "ike_version": "v1",
    }
    assert ike["lifetime"] == {"units": "seconds", "value": 3600}
    one = f"/vpn/ikepolicies/{ike['id']}"
    changed = (await member("PUT", one, {"ikepolicy": {"ike_version": "v2", "lifetime": {"value": 600}}}))["ikepolicy"]
    assert (changed["ike_version"], changed["lifetime"]) == ("v2", {"units": "seconds", "value": 600})
    ipsec = await _make(member, "ipsecpolicies", "ipsecpolicy", encryption_algorithm="aes-256-gcm-16", pfs="group14")
    assert (ipsec["transform_protocol"], ipsec["encapsulation_mode"]) == ("esp", "tunnel")
    for wrong in ({"pfs": "group99"}, {"lifetime": {"value": 1}}, {"encryption_algorithm": "rot13"}, {"colour": "red"}):
        await member("POST", "/vpn/ikepolicies", {"ikepolicy": wrong}, expect=400)
    assert [it["id"] for it in (await member("GET", "/vpn/ikepolicies?name=ike"))["ikepolicies"]] == [ike["id"]]
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "IKEPolicyNotFound")


async def test_a_connection_by_the_services_subnet(served, member, site):
    router, inner = site
    service = await _make(member, "vpnservices", "vpnservice", router_id=router, subnet_id=inner, name="s")
    assert service["status"] == "PENDING_CREATE"
    assert service["external_v4_ip"].startswith("203.0.113.")
    await member.refused("DELETE", f"/routers/{router}", None, 409, "RouterInUse")
    made = await _connection(member, service["id"], peer_cidrs=["10.1.0.0/24"], dpd={"interval": 10})
    assert made["psk"] == KEY
    assert made["dpd"] == {"action": "hold", "interval": 10, "timeout": 120}
    assert (made["status"], made["route_mode"], made["auth_mode"]) == ("PENDING_CREATE", "static", "psk")
    one = f"/vpn/ipsec-site-connections/{made['id']}"
    state = (await served.cloud.documents.get(VPN_CONNECTION, made["id"])).state
    assert (state.local_cidrs, state.peer_cidrs) == (("10.0.0.0/24",), ("10.1.0.0/24",))
    assert KEY not in str([it.event for it in await served.cloud.log.read_stream(VPN_CONNECTION.stream(made["id"]))])
    gone = {"subnet_id": inner}
    await member("PUT", f"/routers/{router}/remove_router_interface", gone, expect=409)
    for path, id, type in (
        ("ikepolicies", made["ikepolicy_id"], "IKEPolicyInUse"),
        ("ipsecpolicies", made["ipsecpolicy_id"], "IPsecPolicyInUse"),
        ("vpnservices", service["id"], "VPNServiceInUse"),
    ):
        await member.refused("DELETE", f"/vpn/{path}/{id}", None, 409, type)
    body = {"ipsec_site_connection": {"psk": "another", "peer_cidrs": ["10.2.0.0/24"], "name": "new"}}
    changed = (await member("PUT", one, body))["ipsec_site_connection"]
    assert (changed["psk"], changed["peer_cidrs"], changed["name"]) == ("another", ["10.2.0.0/24"], "new")
    body = {"vpnservice": {"admin_state_up": False}}
    assert not (await member("PUT", f"/vpn/vpnservices/{service['id']}", body))["vpnservice"]["admin_state_up"]
    assert not (await served.cloud.documents.get(VPN_CONNECTION, made["id"])).state.service_up
    await member("DELETE", one, expect=204)
    await member("DELETE", f"/vpn/vpnservices/{service['id']}", expect=204)
    await member("PUT", f"/routers/{router}/remove_router_interface", gone)
    await member("DELETE", f"/routers/{router}", expect=204)


async def test_a_connection_by_endpoint_groups(served, member, site):
    router, inner = site
    service = await _make(member, "vpnservices", "vpnservice", router_id=router)
    local = await _make(member, "endpoint-groups", "endpoint_group", type="subnet", endpoints=[inner])
    peer = await _make(member, "endpoint-groups", "endpoint_group", type="cidr", endpoints=["10.8.0.0/24"])
    groups = {"local_ep_group_id": local["id"], "peer_ep_group_id": peer["id"]}
    made = await _connection(member, service["id"], **groups)
    assert made["peer_cidrs"] == []
    state = (await served.cloud.documents.get(VPN_CONNECTION, made["id"])).state
    assert (state.local_cidrs, state.peer_cidrs) == (("10.0.0.0/24",), ("10.8.0.0/24",))
    for id in groups.values():
        await member.refused("DELETE", f"/vpn/endpoint-groups/{id}", None, 409, "EndpointGroupInUse")
    await member("PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": inner}, expect=409)
    await member("DELETE", f"/vpn/ipsec-site-connections/{made['id']}", expect=204)
    for id in groups.values():
        await member("DELETE", f"/vpn/endpoint-groups/{id}", expect=204)
    await member("PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": inner})


async def test_what_does_not_fit_is_refused_as_vpnaas_does(served, member, site):
    router, inner = site
    bare = (await member("POST", "/routers", {"router": {}}, expect=201))["router"]["id"]
    body = {"vpnservice": {"router_id": bare}}
    await member.refused("POST", "/vpn/vpnservices", body, 400, "RouterIsNotExternal")
    body = {"vpnservice": {"router_id": str(uuid.uuid4())}}
    await member.refused("POST", "/vpn/vpnservices", body, 404, "RouterNotFound")
    elsewhere = await subnet(
        served.cloud, await network(served.cloud), "10.5.0.0/24", "10.5.0.1", "10.5.0.2", "10.5.0.9"
    )
    body = {"vpnservice": {"router_id": router, "subnet_id": elsewhere}}
    await member.refused("POST", "/vpn/vpnservices", body, 400, "SubnetIsNotConnectedToRouter")
    service = await _make(member, "vpnservices", "vpnservice", router_id=router, subnet_id=inner)
    ike = (await _make(member, "ikepolicies", "ikepolicy"))["id"]
    ipsec = (await _make(member, "ipsecpolicies", "ipsecpolicy"))["id"]
    good = {
        "vpnservice_id": service["id"],
        "ikepolicy_id": ike,
        "ipsecpolicy_id": ipsec,
        "peer_address": "198.51.100.7",
        "peer_id": "p",
        "psk": KEY,
        "peer_cidrs": ["10.1.0.0/24"],
    }
    for change, type in (
        ({"peer_cidrs": []}, "MissingPeerCidrs"),
        ({"dpd": {"interval": 60, "timeout": 30}}, "IPsecSiteConnectionDpdIntervalValueError"),
        ({"peer_cidrs": ["2001:db8::/64"]}, "MixedIPVersionsForIPSecEndpoints"),
    ):
        body = {"ipsec_site_connection": good | change}
        await member.refused("POST", "/vpn/ipsec-site-connections", body, 400, type)
    body = {"ipsec_site_connection": good | {"ikepolicy_id": str(uuid.uuid4())}}
    await member.refused("POST", "/vpn/ipsec-site-connections", body, 404, "IKEPolicyNotFound")
    body = {"endpoint_group": {"type": "subnet", "endpoints": [str(uuid.uuid4())]}}
    await member.refused("POST", "/vpn/endpoint-groups", body, 400, "NonExistingSubnetInEndpointGroup")
    without = await _make(member, "vpnservices", "vpnservice", router_id=router)
    body = {"ipsec_site_connection": good | {"vpnservice_id": without["id"]}}
    await member.refused("POST", "/vpn/ipsec-site-connections", body, 400, "PeerCidrsInvalid")
    body = {
        "ipsec_site_connection": {
            k: v for k, v in (good | {"vpnservice_id": without["id"]}).items() if k != "peer_cidrs"
        }
    }
    await member.refused("POST", "/vpn/ipsec-site-connections", body, 400, "MissingRequiredEndpointGroup")


async def test_others_see_nothing_of_it(served, member, site):
    made = await _make(member, "ikepolicies", "ikepolicy", name="mine")
    stranger = Client(served, await served.token("member", project="q" * 32))
    await stranger.refused("GET", f"/vpn/ikepolicies/{made['id']}", None, 404, "IKEPolicyNotFound")
    assert (await stranger("GET", "/vpn/ikepolicies"))["ikepolicies"] == []
