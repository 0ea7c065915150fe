"""What compute's requests may say: names, hosts, ids, and no null; each refused before anything is looked up."""

import pytest

from tests.compute.world import GONE, IMAGE, wanted

SERVER = f"/servers/{GONE}"
ACTION = f"{SERVER}/action"


@pytest.mark.parametrize(
    "path,body,names",
    [
        (ACTION, {"rebuild": {"imageRef": IMAGE, "name": " x"}}, "name"),
        (ACTION, {"rebuild": {"imageRef": "web"}}, "imageRef"),
        (ACTION, {"rescue": {"rescue_image_ref": "web"}}, "rescue_image_ref"),
        (ACTION, {"createImage": {"name": "a\nb"}}, "name"),
        (ACTION, {"createBackup": {"name": " ", "backup_type": "daily", "rotation": 1}}, "name"),
        (ACTION, {"evacuate": None}, "object"),
        (ACTION, {"evacuate": {"host": None}}, "host"),
        (ACTION, {"evacuate": {"host": "a b"}}, "host"),
        (ACTION, {"migrate": {"host": "a/b"}}, "host"),
        (ACTION, {"os-migrateLive": {"host": "a,b", "block_migration": "auto"}}, "host"),
        (ACTION, {"lock": {"locked_reason": None}}, "locked_reason"),
        (ACTION, {"os-getConsoleOutput": None}, "object"),
        (ACTION, {"trigger_crash_dump": {}}, "null"),
        (ACTION, {"resize": {"flavorRef": "1", "OS-DCF:diskConfig": None}}, "diskConfig"),
        (ACTION, {"unshelve": {"availability_zone": " x"}}, "availability_zone"),
        (f"{SERVER}/migrations/1/action", {"force_complete": {}}, "null"),
        (f"{SERVER}/shares", {"share": {"share_id": "x" * 36}}, "share_id"),
        ("/os-aggregates", {"aggregate": {"name": "fast", "availability_zone": " x"}}, "availability_zone"),
        ("/os-aggregates/7/action", {"add_host": {"host": "a b"}}, "host"),
        ("/os-aggregates/7/action", {"set_metadata": {"metadata": {"a/b": "c"}}}, "metadata"),
        ("/os-aggregates/7/images", {"cache": [{"id": "web"}]}, "id"),
        ("/flavors", {"flavor": {"name": "tiny", "ram": 1, "vcpus": 1, "disk": 0, "id": ""}}, "id"),
        ("/flavors", {"flavor": {"name": "tiny", "ram": 1, "vcpus": 1, "disk": 0, "description": "a\nb"}}, "desc"),
        ("/os-server-groups", {"server_group": {"name": " x", "policy": "affinity"}}, "name"),
        ("/os-server-groups", {"server_group": {"name": "x", "policy": "anti-affinity", "rules": None}}, "rules"),
        ("/os-server-external-events", {"events": [{"name": "network-changed", "server_uuid": "web"}]}, "server_uuid"),
        ("/os-keypairs", {"keypair": {"name": "x", "public_key": None}}, "public_key"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_it_is_looked_for(world, path, body, names):
    admin = await world.client("admin")
    answer = await admin("POST", path, body, expect=400)
    assert names in answer["badRequest"]["message"]


@pytest.mark.parametrize(
    "path,body,names",
    [
        (SERVER, {"server": {"name": "a\nb"}}, "name"),
        (SERVER, {"server": {"accessIPv4": None}}, "accessIPv4"),
        (SERVER, {"server": {"description": "a\nb"}}, "description"),
        ("/os-aggregates/7", {"aggregate": {}}, "aggregate"),
        ("/os-aggregates/7", {"aggregate": {"name": None}}, "name"),
        (f"/os-services/{GONE}", {"status": None}, "status"),
        (f"/os-services/{GONE}", {"forced_down": None}, "forced_down"),
    ],
)
async def test_changes_are_refused_so_too(world, path, body, names):
    admin = await world.client("admin")
    assert names in (await admin("PUT", path, body, expect=400))["badRequest"]["message"]


@pytest.mark.parametrize(
    "field", ["adminPass", "accessIPv4", "accessIPv6", "availability_zone", "key_name", "min_count", "user_data"]
)
async def test_what_is_not_ordered_is_left_out_and_not_null(world, field):
    member = await world.client()
    answer = await member("POST", "/servers", {"server": wanted(**{field: None})}, expect=400)
    assert field in answer["badRequest"]["message"]


async def test_an_empty_address_is_none(world):
    member = await world.client()
    id = (await world.boot(member, accessIPv4="10.0.0.7"))["id"]
    for address in ("", "10.0.0.300", "fd00::1"):
        await member("PUT", f"/servers/{id}", {"server": {"accessIPv4": address}}, expect=400)
    assert (await member("GET", f"/servers/{id}"))["server"]["accessIPv4"] == "10.0.0.7"


BOOT = {"source_type": "image", "destination_type": "local", "uuid": IMAGE, "boot_index": 0}


@pytest.mark.parametrize(
    "version,device",
    [
        ("latest", BOOT | {"boot_index": [0]}),
        ("latest", BOOT | {"boot_index": {}}),
        ("latest", BOOT | {"source_type": "floppy"}),
        ("latest", BOOT | {"delete_on_termination": "maybe"}),
        ("latest", BOOT | {"colour": "red"}),
        ("2.41", BOOT | {"tag": "root"}),
        ("2.66", BOOT | {"volume_type": "fast"}),
    ],
)
async def test_block_devices_are_read_by_their_words(world, version, device):
    member = await world.client(version=version)
    order = wanted(block_device_mapping_v2=[device])
    assert (await member("POST", "/servers", {"server": order}, expect=400))["badRequest"]["message"]


async def test_a_block_device_may_be_the_image(world):
    member = await world.client()
    device = BOOT | {"boot_index": "0", "delete_on_termination": True, "tag": "root"}
    made = await member("POST", "/servers", {"server": wanted(block_device_mapping_v2=[device])}, expect=202)
    assert made["server"]["id"]


async def test_refusals_tell_what_a_value_must_be(world):
    member = await world.client()
    for fields, words in (
        ({"name": " x"}, "server.name: it must be printable and have no spaces at its ends"),
        ({"metadata": {"a/b": "c"}}, "server.metadata: it may have letters, digits, spaces and -_:. only"),
        ({"host": "a b"}, "server.host: it may have letters, digits, dots, dashes and underscores only"),
        ({"networks": [{"uuid": "web"}]}, "server.networks[0].uuid: it must be a UUID"),
    ):
        answer = await member("POST", "/servers", {"server": wanted(**fields)}, expect=400)
        assert words in answer["badRequest"]["message"]


@pytest.mark.parametrize("hostname", ["", "x", "-web", "web-", "we_b", "w" * 64])
async def test_a_hostname_is_one(world, hostname):
    member = await world.client(version="2.90")
    answer = await member("POST", "/servers", {"server": wanted(hostname=hostname)}, expect=400)
    assert "server.hostname: it must be letters, digits and dashes" in answer["badRequest"]["message"]


async def test_queries_are_strict_from_the_version_that_made_them_so(world):
    admin = await world.client("admin")
    id = (await world.boot(admin))["id"]
    for path, since in (
        ("/os-hypervisors", 53),
        ("/os-hypervisors/detail", 53),
        ("/os-migrations", 59),
        (f"/servers/{id}/os-instance-actions", 58),
    ):
        await admin("GET", f"{path}?surprise=1", version=f"2.{since - 1}")
        await admin("GET", f"{path}?surprise=1", version=f"2.{since}", expect=400)
    await admin("GET", f"/servers/{id}/shares?surprise=1", version="2.97", expect=400)
    attached = f"/servers/{id}/os-volume_attachments"
    assert (await admin("GET", f"{attached}?limit=1&offset=1"))["volumeAttachments"] == []
    await admin("GET", f"{attached}?offset=-1", expect=400)


async def test_an_evacuation_may_carry_a_password_in_every_version(world):
    """It is refused for its host, which works: not for the password."""
    admin = await world.client("admin")
    id = (await world.boot(admin))["id"]
    for version in ("2.14", "2.29", "2.68", "2.95"):
        answer = await admin("POST", f"/servers/{id}/action", {"evacuate": {"adminPass": "melon"}},
                             version=version, expect=400)  # fmt: skip
        assert "still in use" in answer["badRequest"]["message"]


async def test_other_services_say_what_happened_to_servers(world):
    member, service = await world.client(), await world.client("service")
    id = (await world.boot(member))["id"]
    told = {"events": [{"name": "network-changed", "server_uuid": id}]}
    assert (await service("POST", "/os-server-external-events", told))["events"][0]["code"] == 200
    await member("POST", "/os-server-external-events", told, expect=403)


async def test_unshelving_may_be_said_without_a_word(world):
    member = await world.client()
    id = (await world.boot(member))["id"]
    for version in ("2.76", "2.77", "2.91"):
        answer = await member("POST", f"/servers/{id}/action", {"unshelve": None}, version=version, expect=409)
        assert "unshelve" in answer["conflictingRequest"]["message"]
    await member("POST", f"/servers/{id}/action", {"unshelve": {}}, version="2.77", expect=400)
