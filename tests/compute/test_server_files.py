"""Files that come along with a server: personality, until 2.56."""

import base64

import pytest

from handlers.compute.seed import boots
from tests.compute.world import IMAGE, wanted


def personality(*paths, size=5):
    contents = base64.b64encode(b"x" * size).decode()
    return [{"path": path, "contents": contents} for path in paths]


async def files_of(world, id):
    """As its host is told, to put them on the config drive."""
    server = await world.steered.state(id)
    boot = (await boots(world.cloud, [server]))[server.order.secret_id]
    return [(it.path, base64.b64decode(it.contents)) for it in boot.files]


async def test_they_come_on_a_config_drive_and_a_rebuild_brings_others(world):
    member = await world.client(version="2.56")
    broken = personality("/etc/motd", size=60)
    broken[0]["contents"] = f"{broken[0]['contents'][:40]}\n{broken[0]['contents'][40:]}"
    id = (await world.boot(member, personality=[*broken, *personality("srv/x")], networks="none"))["id"]
    assert (await member("GET", f"/servers/{id}"))["server"]["config_drive"] == "True"
    assert await files_of(world, id) == [("/etc/motd", b"x" * 60), ("srv/x", b"xxxxx")]

    rebuild = {"imageRef": IMAGE, "personality": personality("/etc/issue")}
    await member("POST", f"/servers/{id}/action", {"rebuild": rebuild}, expect=202)
    await world.becomes(member, id, "ACTIVE")
    assert await files_of(world, id) == [("/etc/issue", b"xxxxx")]
    await member("POST", f"/servers/{id}/action", {"rebuild": {"imageRef": IMAGE}}, expect=202)
    await world.becomes(member, id, "ACTIVE")
    assert await files_of(world, id) == []


async def test_one_without_a_config_drive_cannot_be_rebuilt_with_files(world):
    member = await world.client(version="2.56")
    id = (await world.boot(member, networks="none"))["id"]
    rebuild = {"imageRef": IMAGE, "personality": personality("/etc/issue")}
    answer = await member("POST", f"/servers/{id}/action", {"rebuild": rebuild}, expect=400)
    assert "config drive" in answer["badRequest"]["message"]


@pytest.mark.parametrize(
    "asked,status",
    [
        (personality("a", "b", "c", "d", "e", "f"), 403),
        (personality("/" + "x" * 255), 403),
        (personality("a", size=10 * 1024 + 1), 403),
        (personality("/"), 400),
        ([{"path": "a", "contents": "not base64!"}], 400),
        ([{"path": "a"}], 400),
        ([{"contents": ""}], 400),
        ([{"path": "a", "contents": "", "mode": "0600"}], 400),
        ("a", 400),
    ],
)
async def test_too_much_is_refused_and_leaves_nothing(world, asked, status):
    member = await world.client(version="2.56")
    head = await world.cloud.log.head()
    await member("POST", "/servers", {"server": wanted(personality=asked, networks="none")}, expect=status)
    assert await world.cloud.log.head() == head


async def test_what_a_quota_allows_is_taken(world):
    member, admin = await world.client(version="2.56"), await world.client("admin", version="2.56")
    project = (await member("GET", "/limits"))["limits"]["absolute"]
    assert (project["maxPersonality"], project["maxPersonalitySize"]) == (5, 10_240)
    await admin("PUT", "/os-quota-class-sets/default", {"quota_class_set": {"injected_files": -1}})
    many = personality(*(f"/srv/{n}" for n in range(9)))
    id = (await world.boot(member, personality=many, networks="none"))["id"]
    assert len(await files_of(world, id)) == 9
