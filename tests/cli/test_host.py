"""An operator looks at the hosts, takes one out of service and brings it back, over the public API."""

import pytest

from api.cli import choices
from api.cli.client import login
from api.cli.host import change, named, row, rows
from tests.cli.conftest import until

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("clouds")]
SERVICE = {"id": "s", "host": "h", "state": "down", "status": "enabled", "zone": "nova", "disabled_reason": None}
VERSION = {"X_OpenStack_Nova_API_Version": "2.87"}


@pytest.mark.parametrize(
    "said, state",
    [
        ({"state": "up", "forced_down": False}, "up"),
        ({"forced_down": False}, "lost"),
        ({"state": "up", "forced_down": True}, "forced down"),
        ({"forced_down": True}, "forced down"),
    ],
)
def test_a_host_is_up_lost_or_forced_down(said, state):
    assert row(SERVICE | said, {}).state == state


def test_hosts_are_listed_disabled_enabled_and_not_forgotten_while_they_live(person, monkeypatch):
    person.up("--hosts", "2")
    lines = person.types("host", "list").stdout.splitlines()
    assert lines[0].split()[:4] == ["host", "state", "enabled", "zone"]
    first, second = (line.split()[0] for line in lines[1:])
    assert all(line.split()[1:5] == ["up", "yes", "nova", "0"] for line in lines[1:])

    assert person.types("host", "disable", first, "--reason", "new memory").returncode == 0
    assert "no: new memory" in person.types("host", "show", first).stdout
    assert "enabled: yes" in person.types("host", "show", second).stdout
    assert person.types("host", "enable", first).returncode == 0
    assert "enabled: yes" in person.types("host", "show", first).stdout

    assert "say the same" in person.types("drift").stdout

    refused = person.types("host", "forget", first)
    assert refused.returncode == 1
    assert "Stop its agents first" in refused.stderr
    for name, value in person.environment.items():
        monkeypatch.setenv(name, value)
    client = login(choices.settings())
    change(client, named(rows(client), second), forced_down=True)
    assert "forced down" in person.types("host", "show", second).stdout
    gone = person.types("host", "forget", second)
    assert gone.returncode == 0, gone.stderr
    assert f"{second} is forgotten, with its hypervisor and its resource provider" in gone.stdout
    unknown = person.types("host", "show", "nowhere")
    assert unknown.returncode == 1
    assert "there is no host nowhere" in unknown.stderr


class Cloud:
    """One of two hosts, as its operator sees it."""

    def __init__(self, client):
        self.client = client

    def boot(self, count):
        """So many servers, once they are active."""
        form = {"name": "i", "disk_format": "raw", "container_format": "bare"}
        image = self.client.post("image", "/v2/images", form)["id"]
        binary = {"Content_Type": "application/octet-stream"}
        self.client.call("PUT", "image", f"/v2/images/{image}/file", b"\0" * 512, **binary)
        body = {"server": {"name": "s", "imageRef": image, "flavorRef": "42", "networks": "none"}}
        servers = [self.client.post("compute", "/servers", body, **VERSION)["server"]["id"] for _ in range(count)]
        until(lambda: all(self.shown(id)["status"] == "ACTIVE" for id in servers))
        return servers

    def shown(self, id):
        return self.client.get("compute", f"/servers/{id}", **VERSION)["server"]


@pytest.fixture
def cloud(person, monkeypatch):
    person.up("--hosts", "2")
    for name, value in person.environment.items():
        monkeypatch.setenv(name, value)
    return Cloud(login(choices.settings()))


def test_servers_of_a_host_that_is_down_are_built_on_others(person, cloud):
    client = cloud.client
    servers = cloud.boot(4)
    lost, other = (it for it in rows(client))
    assert {cloud.shown(id)["OS-EXT-SRV-ATTR:host"] for id in servers} == {lost.name, other.name}
    refused = person.types("host", "evacuate", lost.name)
    assert refused.returncode == 1
    assert "is up" in refused.stderr

    change(client, lost, forced_down=True)
    done = person.types("host", "evacuate", lost.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"2 of 2 servers of {lost.name} are on other hosts" in done.stdout
    assert {cloud.shown(id)["OS-EXT-SRV-ATTR:host"] for id in servers} == {other.name}
    assert "has no servers" in person.types("host", "evacuate", lost.name).stdout


def test_a_host_that_is_drained_is_empty_and_nothing_stops(person, cloud):
    client = cloud.client
    servers = cloud.boot(6)
    drained, other = rows(client)
    there = [id for id, _ in drained.servers]
    assert there
    client.post("compute", f"/servers/{there[0]}/action", {"os-stop": None}, **VERSION)
    until(lambda: cloud.shown(there[0])["status"] == "SHUTOFF")
    done = person.types("host", "drain", drained.name, "--reason", "new memory")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(there)} of {len(there)} servers of {drained.name} are on other hosts" in done.stdout
    until(lambda: {cloud.shown(id)["OS-EXT-SRV-ATTR:host"] for id in servers} == {other.name})
    until(lambda: cloud.shown(there[0])["status"] == "SHUTOFF")
    assert {cloud.shown(id)["status"] for id in servers if id != there[0]} == {"ACTIVE"}
    assert "has none" in person.types("host", "drain", drained.name).stdout
    assert "no: drained" in person.types("host", "show", drained.name).stdout
    assert "say the same" in person.types("drift").stdout
