import base64
import io
import json

import pycdlib
from msgspec.structs import replace

from agents.hypervisor.config_drive import contents, write
from agents.instance_documents import answer
from schema.compute.domain import Domain, Seed
from schema.compute.server_parts import GuestFile

SEED = Seed(
    hostname="web-1",
    metadata={"role": "web"},
    user_data=base64.b64encode(b"#!/bin/sh\n\xff").decode(),
    public_keys={"mine": "ssh-ed25519 AAAA me"},
    admin_password="s3cret",
    project_id="p1",
)
DOMAIN = Domain(server_id="id-1", name="instance-1", generation=1, power="running", config_drive=True, seed=SEED)


def test_a_guest_is_told_who_it_is():
    told = json.loads(contents(DOMAIN)["openstack/latest/meta_data.json"])
    assert told["uuid"] == "id-1"
    assert told["hostname"] == "web-1"
    assert told["meta"] == {"role": "web"}
    assert told["public_keys"] == {"mine": "ssh-ed25519 AAAA me"}
    assert told["admin_pass"] == "s3cret"


def test_user_data_comes_as_the_bytes_it_was():
    assert contents(DOMAIN)["openstack/latest/user_data"] == b"#!/bin/sh\n\xff"


def test_files_for_the_guest_stand_beside_what_tells_where_they_belong():
    given = (("/etc/motd", b"hello\n"), ("srv/x.bin", bytes(range(256))))
    files = tuple(GuestFile(path=path, contents=base64.b64encode(what).decode()) for path, what in given)
    drive = contents(replace(DOMAIN, seed=replace(SEED, files=files)))
    told = json.loads(drive["openstack/latest/meta_data.json"])["files"]
    assert [(it["path"], drive[f"openstack{it['content_path']}"]) for it in told] == list(given)
    assert "files" not in json.loads(answer("id-1", replace(SEED, files=files), "openstack/latest/meta_data.json"))


def test_no_user_data_no_file():
    plain = Domain(server_id="id-1", name="n", generation=1, power="running", seed=Seed())
    assert not any("user" in path for path in contents(plain))


def test_the_drive_is_labelled_and_readable(tmp_path):
    path = tmp_path / "drive.iso"
    write(DOMAIN, path)
    drive = pycdlib.PyCdlib()
    drive.open(str(path))
    assert drive.pvd.volume_identifier.decode().strip() == "config-2"
    for name, expected in contents(DOMAIN).items():
        read = io.BytesIO()
        drive.get_file_from_iso_fp(read, rr_path=f"/{name}")
        assert read.getvalue() == expected
    drive.close()


def test_secrets_do_not_show():
    assert "s3cret" not in repr(DOMAIN)
