import json

from agents.instance_documents import answer, drive
from schema.compute.domain import Seed

SEED = Seed(name="web", hostname="web-1", user_data="aGk=", public_keys={"k": "ssh-rsa A"}, project_id="p")


def test_the_drive_and_the_service_say_the_same():
    """Of EC2's tree the drive has one JSON, so only OpenStack's files can be compared."""
    files = {path: content for path, content in drive("s", SEED).items() if path.startswith("openstack/")}
    assert len(files) > 20
    for path, content in files.items():
        assert answer("s", SEED, path) == content


def test_a_version_has_no_files_younger_than_itself():
    listed = {version: answer("s", SEED, f"openstack/{version}") for version in ("2012-08-10", "2015-10-15", "latest")}
    assert listed["2012-08-10"] == b"meta_data.json\nuser_data"
    assert b"network_data.json" in listed["2015-10-15"]
    assert b"vendor_data2.json" not in listed["2015-10-15"]
    assert b"vendor_data2.json" in listed["latest"]


def test_folders_are_listed_and_nothing_is_beside_the_tree():
    assert answer("s", SEED, "latest") == b"meta-data/\nuser-data"
    assert answer("s", SEED, "latest/meta-data/public-keys/0") == b"openssh-key"
    for path in ("1999-01-01", "latest/meta-data/public-keys/_name", "latest/meta-data/hostname/x", "openstack/x/y"):
        assert answer("s", SEED, path) is None


def test_without_keys_and_user_data_there_is_no_mention_of_them():
    plain = Seed(hostname="h")
    assert b"public-keys" not in answer("s", plain, "latest/meta-data")
    assert answer("s", plain, "openstack/latest/user_data") is None
    assert "public_keys" not in json.loads(answer("s", plain, "openstack/latest/meta_data.json"))
