"""Servers as clients see them, on simulated hosts."""

import base64

import msgspec
import pytest

from bus.execute import Wish
from handlers.compute.keypair import KEYPAIRS
from handlers.image.image import IMAGES
from schema.compute.keypair import ImportKeypair, KeyType
from schema.image.image import DeactivateImage
from tests.compute.world import GONE, IMAGE, OTHER, PROJECT, wanted


async def test_a_server_goes_through_life(world):
    member = await world.client()
    made = await member("POST", "/servers", {"server": wanted(description="d", tags=["x"])}, expect=202)
    assert set(made["server"]) == {"id", "links", "OS-DCF:diskConfig", "adminPass", "security_groups"}
    id = made["server"]["id"]
    shown = await world.becomes(member, id, "ACTIVE")
    assert (shown["name"], shown["OS-EXT-SRV-ATTR:hostname"]) == ("web", "web")
    assert shown["OS-EXT-STS:power_state"] == 1
    assert shown["flavor"] == {
        "original_name": "small",
        "vcpus": 1,
        "ram": 512,
        "disk": 1,
        "ephemeral": 0,
        "swap": 0,
        "extra_specs": {},
    }
    assert shown["image"]["id"] == IMAGE
    assert (shown["description"], shown["tags"], shown["addresses"]) == ("d", ["x"], {})
    for action, status in (
        ({"os-stop": None}, "SHUTOFF"),
        ({"os-start": None}, "ACTIVE"),
        ({"reboot": {"type": "SOFT"}}, "ACTIVE"),
        ({"reboot": {"type": "HARD"}}, "ACTIVE"),
        ({"pause": None}, "PAUSED"),
        ({"unpause": None}, "ACTIVE"),
        ({"suspend": None}, "SUSPENDED"),
        ({"resume": None}, "ACTIVE"),
    ):
        await member("POST", f"/servers/{id}/action", action, expect=202)
        await world.becomes(member, id, status)
    await member("DELETE", f"/servers/{id}", expect=204)
    await world.gone(member, id)
    assert await world.steered.clean()


async def test_every_version_shows_what_it_knows(world):
    member, admin = await world.client(), await world.client("admin")
    id = (await world.boot(member))["id"]
    oldest = (await member("GET", f"/servers/{id}", version="2.1"))["server"]
    assert oldest["flavor"]["id"] == "1"
    assert not {"locked", "description", "tags", "server_groups", "host_status"} & set(oldest)
    assert "OS-EXT-SRV-ATTR:host" not in oldest
    newest = (await admin("GET", f"/servers/{id}"))["server"]
    assert newest["OS-EXT-SRV-ATTR:host"] in {"h1", "h2"}
    assert newest["host_status"] == "UP"
    assert newest["server_groups"] == []
    assert (newest["locked"], newest["locked_reason"], newest["pinned_availability_zone"]) == (False, None, None)
    assert newest["OS-EXT-AZ:availability_zone"] == "nova"
    assert (await member("GET", f"/servers/{id}"))["server"]["OS-EXT-SRV-ATTR:hostname"] == "web"
    assert "OS-EXT-SRV-ATTR:hostname" not in (await member("GET", f"/servers/{id}", version="2.89"))["server"]


@pytest.mark.parametrize(
    "fields,text",
    [
        ({"flavorRef": "nope"}, "Flavor nope could not be found"),
        ({"imageRef": GONE}, f"Image {GONE} could not be found"),
        ({"imageRef": ""}, "boots from an image"),
        ({"name": ""}, "name"),
        ({"name": " x"}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "a\nb"}, "printable"),
        ({"metadata": {"k": "a\0b"}}, "NUL"),
        ({"name": None}, "name"),
        ({"key_name": "nope"}, "Invalid key_name"),
        ({"availability_zone": "mars"}, "availability zone"),
        ({"user_data": "not base64!"}, "user_data"),
        ({"user_data": "A" * 65_536}, "user_data"),
        ({"networks": [{"uuid": GONE}]}, f"Network {GONE} could not be found"),
        ({"networks": "some"}, "networks"),
        ({"min_count": 3, "max_count": 2}, "min_count"),
        ({"min_count": 0}, "min_count"),
        ({"metadata": {"k" * 256: "v"}}, "metadata"),
        ({"metadata": {"k": 7.5}}, "metadata"),
        ({"hostname": "-nope-"}, "hostname"),
        ({"accessIPv4": "nope"}, "accessIPv4"),
        ({"tags": ["a,b"]}, "tags"),
        ({"surprise": 1}, "surprise"),
        ({"personality": []}, "personality"),
        ({"trusted_image_certificates": ["c"]}, "certificates"),
        ({"block_device_mapping_v2": [{"source_type": "volume", "uuid": GONE}]}, "Volumes"),
        ({"OS-DCF:diskConfig": "NOPE"}, "diskConfig"),
    ],
)
async def test_what_is_wrong_is_named_and_leaves_nothing(world, fields, text):
    member = await world.client()
    head = await world.cloud.log.head()
    answer = await member("POST", "/servers", {"server": wanted(**fields)}, expect=400)
    assert text in answer["badRequest"]["message"]
    assert await world.cloud.log.head() == head


async def test_networks_are_required_since_2_37_and_no_words_before(world):
    member = await world.client()
    bare = {"name": "web", "flavorRef": "1", "imageRef": IMAGE}
    assert "networks" in str(await member("POST", "/servers", {"server": bare}, expect=400))
    await member("POST", "/servers", {"server": bare}, expect=202, version="2.36")
    await member("POST", "/servers", {"server": bare | {"networks": "none"}}, expect=400, version="2.36")
    await member("POST", "/servers", {"server": bare | {"description": "x"}}, expect=400, version="2.18")


async def test_an_image_must_fit_the_flavor(world):
    member = await world.client()
    await world.image("22222222-2222-4222-8222-222222222222", min_ram_mb=1024)
    await world.image("33333333-3333-4333-8333-333333333333", size=3 * 1024**3)
    await world.image("44444444-4444-4444-8444-444444444444")
    await world.cloud.executor.execute(Wish(IMAGES, "44444444-4444-4444-8444-444444444444", DeactivateImage()))
    for id, text in (("2", "memory is too small"), ("3", "disk is too small"), ("4", "is not active")):
        image = f"{id * 8}-{id * 4}-4{id * 3}-8{id * 3}-{id * 12}"
        answer = await member("POST", "/servers", {"server": wanted(imageRef=image)}, expect=400)
        assert text in answer["badRequest"]["message"]


async def test_many_are_made_at_once(world):
    member = await world.client()
    body = {"server": wanted(min_count=2, max_count=3, return_reservation_id=True)}
    reservation = (await member("POST", "/servers", body, expect=202))["reservation_id"]
    servers = (await member("GET", f"/servers?reservation_id={reservation}"))["servers"]
    assert {server["name"] for server in servers} == {"web-1", "web-2", "web-3"}
    for server in servers:
        await world.becomes(member, server["id"], "ACTIVE")
    many = await member("POST", "/servers", {"server": wanted(min_count=1, max_count=20)}, expect=202)
    assert many["server"]["adminPass"]
    assert len((await member("GET", "/servers"))["servers"]) == 10
    over = await member("POST", "/servers", {"server": wanted()}, expect=403)
    assert "Quota exceeded for instances: Requested 1, but already used 10 of 10" in over["forbidden"]["message"]


async def test_the_same_request_makes_one_server(world):
    member = await world.client()
    body = {"server": wanted()}
    headers = {"OpenStack-API-Version": "compute 2.90", "Idempotency-Key": "k1"}
    answers = [
        await world.served.call("POST", "/compute/v2.1/servers", body, token=member.token, headers=headers)
        for _ in range(3)
    ]
    assert len({msgspec.json.decode(answer.body)["server"]["id"] for answer in answers}) == 1
    assert len({answer.json["server"]["adminPass"] for answer in answers}) == 1
    assert len((await member("GET", "/servers"))["servers"]) == 1


async def test_other_projects_see_nothing(world):
    mine, theirs, admin = (
        await world.client(),
        await world.client(project=OTHER),
        await world.client("admin", project=OTHER),
    )
    id = (await world.boot(mine))["id"]
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", {"server": {"name": "x"}}),
        ("DELETE", "", None),
        ("POST", "/action", {"os-stop": None}),
        ("GET", "/metadata", None),
        ("GET", "/tags", None),
        ("GET", "/os-instance-actions", None),
        ("GET", "/ips", None),
    ):
        await theirs(method, f"/servers/{id}{path}", body, expect=404)
    assert (await theirs("GET", "/servers"))["servers"] == []
    await theirs("GET", "/servers?all_tenants=1", expect=403)
    assert [it["id"] for it in (await admin("GET", "/servers?all_tenants=1"))["servers"]] == [id]
    assert (await admin("GET", "/servers"))["servers"] == []
    assert (await admin("GET", f"/servers/{id}"))["server"]["tenant_id"] == PROJECT


async def test_readers_only_read(world):
    member, reader = await world.client(), await world.client("reader")
    id = (await world.boot(member))["id"]
    assert (await reader("GET", f"/servers/{id}"))["server"]["id"] == id
    await reader("POST", f"/servers/{id}/action", {"os-stop": None}, expect=403)
    await reader("DELETE", f"/servers/{id}", expect=403)
    await reader("POST", "/servers", {"server": wanted()}, expect=403)


async def test_details_change(world):
    member = await world.client()
    id = (await world.boot(member))["id"]
    change = {"name": "db", "description": "x", "accessIPv4": "192.0.2.1", "hostname": "db.example.org"}
    shown = (await member("PUT", f"/servers/{id}", {"server": change}))["server"]
    assert (shown["name"], shown["description"], shown["accessIPv4"]) == ("db", "x", "192.0.2.1")
    assert shown["OS-EXT-SRV-ATTR:hostname"] == "db.example.org"
    longer = {"server": {"accessIPv6": "2001:0db8:0:0::192.0.2.33"}}
    assert (await member("PUT", f"/servers/{id}", longer))["server"]["accessIPv6"] == "2001:db8::c000:221"
    assert (await member("GET", "/servers?limit=0"))["servers"] == []
    await member("POST", f"/servers/{id}/action", {"restore": None}, expect=409)
    older = (await member("PUT", f"/servers/{id}", {"server": {"name": "e"}}, version="2.74"))["server"]
    assert "OS-EXT-STS:vm_state" not in older
    for wrong in ({"name": ""}, {"name": None}, {"surprise": 1}, {"accessIPv6": "192.0.2.1"}, {"hostname": "a_b"}):
        await member("PUT", f"/servers/{id}", {"server": wrong}, expect=400)
    await member("PUT", f"/servers/{id}", {"server": {"hostname": "h"}}, expect=400, version="2.89")


async def test_a_server_is_unpinned_and_pinned_to_where_it_is(world):
    member = await world.client()
    id = (await world.boot(member, availability_zone="nova"))["id"]

    async def pins(zone, **more):
        return await member("PUT", f"/servers/{id}", {"server": {"pinned_availability_zone": zone}}, **more)

    assert (await pins("nova"))["server"]["pinned_availability_zone"] == "nova"
    assert "unpin it first" in (await pins("elsewhere", expect=409))["conflictingRequest"]["message"]
    for _ in range(2):
        assert (await pins(None))["server"]["pinned_availability_zone"] is None
    assert (await world.steered.state(id)).order.zone is None
    assert "is in the availability zone nova" in (await pins("elsewhere", expect=409))["conflictingRequest"]["message"]
    assert (await pins("nova"))["server"]["pinned_availability_zone"] == "nova"
    assert (await member("GET", f"/servers/{id}"))["server"]["pinned_availability_zone"] == "nova"
    await pins("", expect=400)
    await pins(None, expect=400, version="2.103")


async def test_metadata_is_kept(world):
    member = await world.client()
    id = (await world.boot(member, metadata={"a": "1"}))["id"]
    path = f"/servers/{id}/metadata"
    assert (await member("GET", path))["metadata"] == {"a": "1"}
    assert (await member("POST", path, {"metadata": {"b": "2"}}))["metadata"] == {"a": "1", "b": "2"}
    assert (await member("PUT", path, {"metadata": {"c": "3"}}))["metadata"] == {"c": "3"}
    assert (await member("PUT", f"{path}/d", {"meta": {"d": "4"}}))["meta"] == {"d": "4"}
    assert (await member("GET", f"{path}/d"))["meta"] == {"d": "4"}
    await member("DELETE", f"{path}/d", expect=204)
    await member("DELETE", f"{path}/d", expect=404)
    await member("GET", f"{path}/d", expect=404)
    await member("PUT", f"{path}/d", {"meta": {"e": "4"}}, expect=400)
    await member("PUT", f"{path}/d", {"meta": {"d": "x" * 256}}, expect=400)
    over = {"metadata": {f"k{n}": "v" for n in range(129)}}
    await member("POST", path, over, expect=403)
    await member("PUT", path, over, expect=403)


async def test_tags_are_kept(world):
    member = await world.client()
    id = (await world.boot(member))["id"]
    path = f"/servers/{id}/tags"
    assert (await member("PUT", path, {"tags": ["a", "b", "a"]}))["tags"] == ["a", "b"]
    await member("GET", f"{path}/a", expect=204)
    await member("GET", f"{path}/z", expect=404)
    await member("PUT", f"{path}/c", expect=201)
    await member("PUT", f"{path}/c", expect=204)
    await member("DELETE", f"{path}/a", expect=204)
    await member("DELETE", f"{path}/a", expect=404)
    assert (await member("GET", path))["tags"] == ["b", "c"]
    await member("PUT", f"{path}/{'x' * 61}", expect=400)
    await member("PUT", path, {"tags": [f"t{n}" for n in range(51)]}, expect=400)
    await member("DELETE", path, expect=204)
    assert (await member("GET", path))["tags"] == []
    await member("GET", path, expect=404, version="2.25")


async def test_a_locked_server_is_left_alone(world):
    member, admin = await world.client(), await world.client("admin")
    id = (await world.boot(member))["id"]
    await member("POST", f"/servers/{id}/action", {"lock": {"locked_reason": "mine"}}, expect=202)
    shown = (await member("GET", f"/servers/{id}"))["server"]
    assert (shown["locked"], shown["locked_reason"]) == (True, "mine")
    answer = await member("POST", f"/servers/{id}/action", {"os-stop": None}, expect=409)
    assert "is locked" in answer["conflictingRequest"]["message"]
    await member("DELETE", f"/servers/{id}", expect=409)
    await member("POST", f"/servers/{id}/action", {"unlock": None}, expect=202)
    await admin("POST", f"/servers/{id}/action", {"lock": None}, expect=202)
    await member("POST", f"/servers/{id}/action", {"unlock": None}, expect=409)
    await admin("POST", f"/servers/{id}/action", {"unlock": None}, expect=202)


async def test_actions_that_make_no_sense_are_refused(world):
    member = await world.client()
    id = (await world.boot(member))["id"]
    path = f"/servers/{id}/action"
    answer = await member("POST", path, {"os-start": None}, expect=409)
    assert f"Cannot 'start' server {id} while it is in vm_state active" in answer["conflictingRequest"]["message"]
    assert "no such action" in str(await member("POST", path, {"dance": None}, expect=400))
    for wrong in ({}, {"os-start": None, "os-stop": None}, {"reboot": {"type": "GENTLE"}}, {"reboot": None}):
        await member("POST", path, wrong, expect=400)
    await member("POST", path, {"resetNetwork": None}, expect=410)
    await member("POST", path, {"changePassword": {"adminPass": "x"}}, expect=409)
    await member("POST", path, {"os-resetState": {"state": "error"}}, expect=403)
    await member("POST", f"/servers/{GONE}/action", {"os-start": None}, expect=404)


async def test_an_administrator_resets_a_state(world):
    member, admin = await world.client(), await world.client("admin")
    id = (await world.boot(member))["id"]
    await admin("POST", f"/servers/{id}/action", {"os-resetState": {"state": "error"}}, expect=202)
    assert (await member("GET", f"/servers/{id}"))["server"]["status"] == "ERROR"
    await admin("POST", f"/servers/{id}/action", {"os-resetState": {"state": "active"}}, expect=202)
    assert (await member("GET", f"/servers/{id}"))["server"]["status"] == "ACTIVE"


async def test_the_console_is_read(world):
    member = await world.client()
    id = (await world.boot(member))["id"]
    answer = await member("POST", f"/servers/{id}/action", {"os-getConsoleOutput": {}})
    assert isinstance(answer["output"], str)
    for length in (1, 2, 3):
        tail = await member("POST", f"/servers/{id}/action", {"os-getConsoleOutput": {"length": length}})
        assert tail["output"] == "\n".join(answer["output"].split("\n")[-length:])
    await member("POST", f"/servers/{id}/action", {"os-getConsoleOutput": {"length": "x"}}, expect=400)


async def test_what_was_done_can_be_read_back(world):
    member, admin = await world.client(), await world.client("admin")
    id = (await world.boot(member))["id"]
    await member("POST", f"/servers/{id}/action", {"os-stop": None}, expect=202)
    await world.becomes(member, id, "SHUTOFF")
    actions = (await member("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [it["action"] for it in actions] == ["stop", "create"]
    assert actions[0]["request_id"].startswith("req-")
    shown = (await member("GET", f"/servers/{id}/os-instance-actions/{actions[0]['request_id']}"))["instanceAction"]
    [event] = shown["events"]
    assert (event["event"], event["result"]) == ("compute_stop_instance", "Success")
    assert "traceback" not in event
    assert event["finish_time"] >= event["start_time"]
    request_id = actions[1]["request_id"]
    made = (await admin("GET", f"/servers/{id}/os-instance-actions/{request_id}"))["instanceAction"]
    assert made["events"][0]["host"] in {"h1", "h2"}
    await member("GET", f"/servers/{id}/os-instance-actions/req-nope", expect=404)
    await member("DELETE", f"/servers/{id}", expect=204)
    await world.gone(member, id)
    actions = (await member("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert actions[0]["action"] == "delete"
    one = await member("GET", f"/servers/{id}/os-instance-actions?limit=1")
    assert (len(one["instanceActions"]), one["links"][0]["rel"]) == (1, "next")


async def test_actions_tell_more_to_administrators_and_newer_versions(world):
    member, admin = await world.client(), await world.client("admin")
    id = (await world.boot(member))["id"]
    path = f"/servers/{id}/os-instance-actions"
    await admin("POST", f"/servers/{id}/action", {"os-resetState": {"state": "error"}}, expect=202)
    [reset, create] = (await member("GET", path))["instanceActions"]
    assert (reset["action"], create["action"]) == ("resetState", "create")
    assert "updated_at" not in (await member("GET", path, version="2.57"))["instanceActions"][0]
    one = f"{path}/{create['request_id']}"

    async def part(by, version):
        shown = (await by("GET", one, version=version))["instanceAction"]
        return set(shown["events"][0]) if "events" in shown else None

    plain = {"event", "start_time", "finish_time", "result"}
    assert await part(member, "2.50") is None
    assert await part(admin, "2.50") == plain | {"traceback"}
    assert await part(member, "2.51") == plain
    assert await part(member, "2.84") == plain | {"hostId"}
    assert await part(admin, "2.62") == plain | {"traceback", "hostId", "host"}
    assert await part(admin, "2.84") == plain | {"traceback", "hostId", "host", "details"}
    at = reset["updated_at"]
    assert (await member("GET", f"{path}?changes-since={at}Z"))["instanceActions"] == [reset]
    assert (await member("GET", f"{path}?changes-before=2000-01-01T00:00:00Z"))["instanceActions"] == []
    assert (await member("GET", f"{path}?marker={reset['request_id']}"))["instanceActions"] == [create]
    await member("GET", f"{path}?marker=req-nope", expect=400)
    await member("GET", f"{path}?changes-since=2999-01-01T00:00:00Z&changes-before={at}Z", expect=400)


async def test_a_guest_gets_its_secrets_and_nobody_else_sees_them(world):
    member, admin = await world.client(), await world.client("admin")
    text = base64.b64encode(b"#!/bin/sh\necho hello").decode()
    key = ImportKeypair(
        name="k", user_id="u" * 32, key_type=KeyType.SSH, public_key="ssh-ed25519 AAAA", fingerprint="f"
    )
    await world.cloud.executor.execute(Wish(KEYPAIRS, "k1", key))
    shown = await world.boot(member, user_data=text, key_name="k", adminPass="sesame")
    assert (shown["key_name"], "OS-EXT-SRV-ATTR:user_data" in shown) == ("k", False)
    seen = (await admin("GET", f"/servers/{shown['id']}"))["server"]
    assert seen["OS-EXT-SRV-ATTR:user_data"] == text
    events = await world.cloud.log.read_stream(f"server/{shown['id']}")
    written = msgspec.json.encode([it.event for it in events]).decode()
    assert text not in written
    assert "sesame" not in written


async def test_administrators_choose_a_host(world):
    member, admin = await world.client(), await world.client("admin")
    assert (await world.boot(admin, host="h2"))["OS-EXT-SRV-ATTR:host"] == "h2"
    assert (await world.boot(admin, availability_zone="nova:h1"))["OS-EXT-SRV-ATTR:host"] == "h1"
    await member("POST", "/servers", {"server": wanted(host="h2")}, expect=403)
    await member("POST", "/servers", {"server": wanted(availability_zone="nova:h1")}, expect=403)
    await admin("POST", "/servers", {"server": wanted(host="h9")}, expect=400)


async def test_an_unattached_server_has_no_addresses_and_no_volumes(world):
    member = await world.client()
    id = (await world.boot(member))["id"]
    assert (await member("GET", f"/servers/{id}/ips"))["addresses"] == {}
    await member("GET", f"/servers/{id}/ips/private", expect=404)
    assert (await member("GET", f"/servers/{id}/os-interface"))["interfaceAttachments"] == []
    assert (await member("GET", f"/servers/{id}/os-security-groups"))["security_groups"] == []
    assert (await member("GET", f"/servers/{id}/os-volume_attachments"))["volumeAttachments"] == []
    await member("GET", f"/servers/{id}/os-volume_attachments/{GONE}", expect=404)


async def test_server_groups_keep_servers_apart(world):
    member, other = await world.client(), await world.client(project=OTHER)
    body = {"server_group": {"name": "apart", "policy": "anti-affinity"}}
    group = (await member("POST", "/os-server-groups", body))["server_group"]
    assert (group["policy"], group["rules"], group["members"]) == ("anti-affinity", {}, [])
    ids = []
    for _ in range(2):
        body = {"server": wanted(), "os:scheduler_hints": {"group": group["id"]}}
        ids.append((await member("POST", "/servers", body, expect=202))["server"]["id"])
    hosts = {(await world.becomes(member, id, "ACTIVE"))["hostId"] for id in ids}
    assert len(hosts) == 2
    third = (await member("POST", "/servers", body, expect=202))["server"]["id"]
    fault = (await world.becomes(member, third, "ERROR"))["fault"]
    assert "No valid host was found" in fault["message"]
    shown = (await member("GET", f"/os-server-groups/{group['id']}"))["server_group"]
    assert set(shown["members"]) == {*ids, third}
    assert (await member("GET", f"/servers/{ids[0]}"))["server"]["server_groups"] == [group["id"]]
    await member("DELETE", f"/servers/{third}", expect=204)
    await world.gone(member, third)
    older = (await member("GET", "/os-server-groups", version="2.63"))["server_groups"][0]
    assert (older["policies"], set(older["members"])) == (["anti-affinity"], set(ids))
    await other("GET", f"/os-server-groups/{group['id']}", expect=404)
    nowhere = {"server": wanted(), "os:scheduler_hints": {"group": GONE}}
    await member("POST", "/servers", nowhere, expect=400)
    await member("POST", "/os-server-groups", {"server_group": {"name": "g", "policy": "nope"}}, expect=400)
    await member("DELETE", f"/os-server-groups/{group['id']}", expect=204)
    await member("DELETE", f"/os-server-groups/{group['id']}", expect=404)


async def test_newer_versions_show_what_the_scheduler_was_asked(world):
    member = await world.client()
    hints = {"different_host": [GONE]}
    asked = {"server": wanted(member), "os:scheduler_hints": hints}
    id = (await member("POST", "/servers", asked, expect=202))["server"]["id"]
    await world.becomes(member, id, "ACTIVE")
    changed = await member("PUT", f"/servers/{id}", {"server": {"name": "other"}}, version="2.100")
    shown = await member("GET", f"/servers/{id}", version="2.100")
    [listed] = (await member("GET", "/servers/detail", version="2.100"))["servers"]
    assert [it["scheduler_hints"] for it in (changed["server"], shown["server"], listed)] == [hints] * 3
    assert "scheduler_hints" not in (await member("GET", f"/servers/{id}", version="2.99"))["server"]


async def test_volumes_and_shares_cannot_be_attached_and_nothing_pretends_they_could(world):
    member = await world.client()
    id = (await member("POST", "/servers", {"server": wanted()}, expect=202))["server"]["id"]
    path = f"/servers/{id}/os-volume_attachments"
    volume = {"volumeAttachment": {"volumeId": GONE}}
    refused = await member("POST", path, volume, expect=404)
    assert refused["itemNotFound"]["message"].endswith("this cloud has no block storage.")
    await member("POST", path, {"volumeAttachment": {}}, expect=400)
    await member("POST", path, {"volumeAttachment": {"volumeId": GONE, "tag": "t"}}, expect=400, version="2.48")
    await member("POST", path, {"volumeAttachment": {"volumeId": GONE, "tag": "t"}}, expect=404, version="2.49")
    await member("PUT", f"{path}/{GONE}", volume, expect=404)
    await member("DELETE", f"{path}/{GONE}", expect=404)
    shares = f"/servers/{id}/shares"
    assert await member("GET", shares) == {"shares": []}
    await member("POST", shares, {"share": {"share_id": GONE}}, expect=404)
    await member("DELETE", f"{shares}/{GONE}", expect=404)
    await member("GET", shares, expect=404, version="2.96")


async def test_the_image_of_a_server_is_shown_with_its_properties(world):
    member = await world.client()
    id = (await member("POST", "/servers", {"server": wanted()}, expect=202))["server"]["id"]
    assert (await member("GET", f"/servers/{id}"))["server"]["image"]["properties"] == {}
    assert "properties" not in (await member("GET", f"/servers/{id}", version="2.97"))["server"]["image"]


async def test_external_events_are_answered_one_by_one(world):
    admin, member = await world.client("admin"), await world.client()
    id = (await member("POST", "/servers", {"server": wanted()}, expect=202))["server"]["id"]
    await world.becomes(member, id, "ACTIVE")
    here, nowhere = ({"name": "network-changed", "server_uuid": uuid} for uuid in (id, GONE))
    events = lambda *its: {"events": list(its)}  # noqa: E731
    path = "/os-server-external-events"
    assert (await admin("POST", path, events(here)))["events"] == [here | {"status": "completed", "code": 200}]
    some = await admin("POST", path, events(here, nowhere), expect=207)
    assert [it["code"] for it in some["events"]] == [200, 404]
    none = await admin("POST", path, events(nowhere), expect=207)
    assert none["events"] == [nowhere | {"status": "failed", "code": 404}]
    await member("POST", path, events(here), expect=403)


async def test_servers_have_another_name_that_is_forgotten(world):
    member = await world.client(version="2.102")
    made = (await member("POST", "/os-volumes_boot", {"server": wanted(member)}, expect=202))["server"]
    await world.becomes(member, made["id"], "ACTIVE")
    assert [it["id"] for it in (await member("GET", "/os-volumes_boot/detail"))["servers"]] == [made["id"]]
    assert (await member("GET", f"/os-volumes_boot/{made['id']}"))["server"]["id"] == made["id"]
    await member("GET", "/os-volumes_boot", expect=404, version="2.103")
    await member("DELETE", f"/os-volumes_boot/{made['id']}", expect=204)
