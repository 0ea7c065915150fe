"""Trunks over HTTP: what Neutron's clients rely on."""

import asyncio
import uuid

from bus import clock
from bus.execute import Wish
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from handlers.network.quota import NETWORK_QUOTAS
from handlers.network.trunking import TrunkReactor
from schema.network.network import CreateNetwork, Segment, UpdateNetwork
from schema.network.port import PORT
from schema.network.port_command import BindPort, ReportPortWired, UnbindPort
from schema.network.quota import SetNetworkQuotaLimits
from schema.network.trunk import TRUNK
from tests.network.routed import PROJECT, Client, network, port

OTHER = "q" * 32


async def _port(served, project=PROJECT):
    return await port(served.cloud, await network(served.cloud), {}, project)


async def _trunk(client, parent, *subports, **fields):
    body = {"port_id": parent, "sub_ports": list(subports), **fields}
    return (await client("POST", "/trunks", {"trunk": body}, expect=201))["trunk"]


def _sub(port_id, tag):
    return {"port_id": port_id, "segmentation_type": "vlan", "segmentation_id": tag}


async def _state(served, id):
    return (await served.cloud.documents.get(PORT, id)).state


async def test_a_trunks_life(served, member):
    parent, first, second = [await _port(served) for _ in range(3)]
    made = await _trunk(member, parent, _sub(first, 10), name="t", description="d")
    assert (made["status"], made["admin_state_up"], made["port_id"]) == ("DOWN", True, parent)
    assert made["sub_ports"] == [_sub(first, 10)]
    assert made["project_id"] == made["tenant_id"] == PROJECT
    one = f"/trunks/{made['id']}"
    assert (await member("GET", one))["trunk"] == made
    assert [it["id"] for it in (await member("GET", f"/trunks?port_id={parent}"))["trunks"]] == [made["id"]]
    added = await member("PUT", f"{one}/add_subports", {"sub_ports": [_sub(second, 20)]})
    assert added["sub_ports"] == [_sub(first, 10), _sub(second, 20)]
    assert await member("GET", f"{one}/get_subports") == {"sub_ports": added["sub_ports"]}
    left = await member("PUT", f"{one}/remove_subports", {"sub_ports": [{"port_id": first}]})
    assert left["sub_ports"] == [_sub(second, 20)]
    changed = (await member("PUT", one, {"trunk": {"name": "u", "admin_state_up": False}}))["trunk"]
    assert (changed["name"], changed["admin_state_up"]) == ("u", False)
    assert await member("PUT", f"{one}/tags", {"tags": ["red"]}) == {"tags": ["red"]}
    await member.refused("DELETE", one, None, 409, "TrunkDisabled")
    await member("PUT", one, {"trunk": {"admin_state_up": True}})
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "TrunkNotFound")
    for id in (parent, first, second):
        assert (await _state(served, id)).trunk_id == ""
    assert await _trunk(member, parent)


async def test_ports_say_what_they_are_in_a_trunk(served, member):
    parent, sub = await _port(served), await _port(served)
    made = await _trunk(member, parent, _sub(sub, 10))
    state = await _state(served, sub)
    assert (state.subport_of, state.segmentation_id, state.device_owner) == (parent, 10, "trunk:subport")
    subport = {**_sub(sub, 10), "mac_address": state.mac_address}
    details = {"trunk_id": made["id"], "sub_ports": [subport]}
    assert (await member("GET", f"/ports/{parent}"))["port"]["trunk_details"] == details
    shown = {it["id"]: it for it in (await member("GET", "/ports"))["ports"]}
    assert shown[parent]["trunk_details"] == details
    assert "trunk_details" not in shown[sub]
    assert (shown[sub]["device_owner"], shown[sub]["device_id"]) == ("trunk:subport", made["id"])
    await member("PUT", f"/trunks/{made['id']}/remove_subports", {"sub_ports": [{"port_id": sub}]})
    assert (await member("GET", f"/ports/{parent}"))["port"]["trunk_details"]["sub_ports"] == []
    assert (await member("GET", f"/ports/{sub}"))["port"]["device_owner"] == ""


async def test_ports_in_trunks_stay(served, member):
    parent, sub = await _port(served), await _port(served)
    await _trunk(member, parent, _sub(sub, 10))
    for id, code in ((parent, "PortInUseAsTrunkParent"), (sub, "PortInUseAsSubPort")):
        await member.refused("DELETE", f"/ports/{id}", None, 409, code)


async def test_a_port_is_in_one_trunk_in_one_way(served, member):
    parent, sub, other = [await _port(served) for _ in range(3)]
    made = await _trunk(member, parent, _sub(sub, 10))
    one = f"/trunks/{made['id']}"

    async def refused(body, type):
        await member.refused("POST", "/trunks", {"trunk": body}, 409, type)

    await refused({"port_id": parent}, "ParentPortInUse")
    await refused({"port_id": sub}, "TrunkPortInUse")
    await refused({"port_id": other, "sub_ports": [_sub(sub, 10)]}, "TrunkPortInUse")
    await refused({"port_id": other, "sub_ports": [_sub(parent, 10)]}, "ParentPortInUse")
    await refused({"port_id": other, "sub_ports": [_sub(other, 10)]}, "ParentPortInUse")
    for subport, type in (
        (_sub(parent, 20), "ParentPortInUse"),
        (_sub(sub, 20), "TrunkPortInUse"),
        (_sub(other, 10), "DuplicateSubPort"),
    ):
        await member.refused("PUT", f"{one}/add_subports", {"sub_ports": [subport]}, 409, type)
    for id, type in ((other, "SubPortNotFound"), (str(uuid.uuid4()), "SubPortNotFound")):
        await member.refused("PUT", f"{one}/remove_subports", {"sub_ports": [{"port_id": id}]}, 404, type)
    await member("PUT", one, {"trunk": {"admin_state_up": False}})
    for path in ("add_subports", "remove_subports"):
        await member.refused("PUT", f"{one}/{path}", {"sub_ports": [_sub(parent, 2)]}, 409, "TrunkDisabled")


async def test_what_no_trunk_can_be_is_refused(served, member):
    parent, sub, other = [await _port(served) for _ in range(3)]
    for subports in (
        [{"port_id": sub, "segmentation_type": "vlan"}],
        [{"port_id": sub, "segmentation_id": 3}],
        [{"segmentation_type": "vlan", "segmentation_id": 3}],
        [{"port_id": sub, "segmentation_type": "vxlan", "segmentation_id": 3}],
        [{"port_id": sub, "segmentation_type": "inherit"}],
        [_sub(sub, 0)],
        [_sub(sub, 4095)],
        [_sub(sub, 2), _sub(other, 2)],
        [_sub(sub, 2), _sub(sub, 3)],
        _sub(sub, 2),
    ):
        body = {"trunk": {"port_id": parent, "sub_ports": subports}}
        await member.refused("POST", "/trunks", body, 400, "HTTPBadRequest")
    for body in ({"port_id": str(uuid.uuid4())}, {"port_id": parent, "sub_ports": [_sub(str(uuid.uuid4()), 2)]}):
        await member.refused("POST", "/trunks", {"trunk": body}, 404, "PortNotFound")
    await member.refused("POST", "/trunks", {"trunk": {"port_id": await _port(served, OTHER)}}, 404, "PortNotFound")
    nowhere = [_sub(str(uuid.uuid4()), 2), _sub(str(uuid.uuid4()), 2)]
    body = {"trunk": {"port_id": str(uuid.uuid4()), "sub_ports": nowhere}}
    await member.refused("POST", "/trunks", body, 400, "HTTPBadRequest")
    await member.refused("PUT", f"/trunks/{uuid.uuid4()}/add_subports", {"sub_ports": []}, 404, "TrunkNotFound")


async def test_a_tag_is_inherited_from_a_vlan(served, member):
    id = clock.uuid4()
    segment = Segment(id="s", network_type="vlan", physical_network="external", segmentation_id=77)
    await served.cloud.executor.execute(Wish(NETWORKS, id, CreateNetwork(project_id=PROJECT, segments=(segment,))))
    sub = await port(served.cloud, id, {})
    made = await _trunk(member, await _port(served), {"port_id": sub, "segmentation_type": "inherit"})
    assert made["sub_ports"] == [_sub(sub, 77)]


async def test_a_subports_frames_fit_its_parent(served, member):
    narrow = await network(served.cloud)
    await served.cloud.executor.execute(Wish(NETWORKS, narrow, UpdateNetwork(mtu=1400)))
    parent, sub = await port(served.cloud, narrow, {}), await _port(served)
    body = {"trunk": {"port_id": parent, "sub_ports": [_sub(sub, 10)]}}
    await member.refused("POST", "/trunks", body, 409, "SubPortMtuGreaterThanTrunkPortMtu")
    await _trunk(member, sub, _sub(parent, 10))


async def test_one_of_many_trunks_gets_a_port(served, member):
    parents, sub = [await _port(served) for _ in range(6)], await _port(served)
    bodies = [{"trunk": {"port_id": it, "sub_ports": [_sub(sub, 10)]}} for it in parents]
    answers = await asyncio.gather(
        *(served.call("POST", "/networking/v2.0/trunks", body, token=member.token) for body in bodies)
    )
    assert sorted(it.status for it in answers) == [201, 409, 409, 409, 409, 409]
    [document] = await served.cloud.documents.find(TRUNK)
    assert (await _state(served, sub)).subport_of == document.state.port_id


async def test_a_trunk_counts(served, member):
    await served.cloud.executor.execute(Wish(NETWORK_QUOTAS, PROJECT, SetNetworkQuotaLimits(limits={"trunk": 1})))
    made = await _trunk(member, await _port(served))
    other = await _port(served)
    await member.refused("POST", "/trunks", {"trunk": {"port_id": other}}, 409, "OverQuota")
    assert (await _state(served, other)).trunk_id == ""
    await member("DELETE", f"/trunks/{made['id']}", expect=204)
    await _trunk(member, other)


async def test_others_do_not_see_it(served, member):
    admin = Client(served, await served.token("admin"))
    stranger = Client(served, await served.token("member", project=OTHER))
    made = await _trunk(member, await _port(served))
    await stranger.refused("GET", f"/trunks/{made['id']}", None, 404, "TrunkNotFound")
    assert len((await admin("GET", "/trunks"))["trunks"]) == 1
    assert (await stranger("GET", "/trunks"))["trunks"] == []


async def test_a_trunk_is_as_far_as_its_host(served, member):
    parent, sub = await _port(served), await _port(served)
    made = await _trunk(member, parent, _sub(sub, 10))
    execute, reactor = served.cloud.executor.execute, TrunkReactor(served.cloud)

    async def reacted():
        await reactor.react([await served.cloud.documents.get(PORT, parent)])
        return (await member("GET", f"/trunks/{made['id']}"))["trunk"]["status"]

    async def wired(id, up=True, fault=None):
        generation = (await _state(served, id)).generation
        await execute(Wish(PORTS, id, ReportPortWired(host="h", generation=generation, up=up, fault=fault)))

    await execute(Wish(PORTS, parent, BindPort(host="h", vif_type="ovs")))
    assert await reacted() == "BUILD"
    assert (await _state(served, sub)).host == "h"
    await member.refused("DELETE", f"/trunks/{made['id']}", None, 409, "TrunkInUse")
    await wired(parent)
    assert await reacted() == "BUILD"
    await wired(sub)
    assert await reacted() == "ACTIVE"
    assert (await member("GET", "/trunks?status=ACTIVE"))["trunks"][0]["id"] == made["id"]
    assert (await member("GET", "/trunks?status=DOWN&status=BUILD"))["trunks"] == []
    late = await _port(served)
    added = await member("PUT", f"/trunks/{made['id']}/add_subports", {"sub_ports": [_sub(late, 20)]})
    assert added["status"] == "BUILD"
    await reacted()
    await wired(late, up=False, fault="this host has no trunks")
    assert await reacted() == "DEGRADED"
    await wired(parent, up=False, fault="broken")
    more = {"sub_ports": [_sub(await _port(served), 30)]}
    await member.refused("PUT", f"/trunks/{made['id']}/add_subports", more, 409, "TrunkInErrorState")
    left = await member("PUT", f"/trunks/{made['id']}/remove_subports", {"sub_ports": [{"port_id": late}]})
    assert left["sub_ports"] == [_sub(sub, 10)]
    await execute(Wish(PORTS, parent, UnbindPort()))
    assert await reacted() == "DOWN"
    assert (await _state(served, sub)).host == ""
    await member("DELETE", f"/trunks/{made['id']}", expect=204)
