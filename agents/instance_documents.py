"""What a guest can read about itself: the same documents on a config drive and from the metadata service.

OpenStack's: https://docs.openstack.org/nova/latest/user/metadata.html; EC2's, version 2009-04-04, beside them.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from schema.compute.domain import Seed
from schema.compute.server_parts import GuestFile

OPENSTACK_VERSIONS = (
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "latest",
)
EC2_VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "latest",
)

_POSTING_SINCE = "2013-04-04"
PASSWORD_BYTES = 1020
"""As long as one may be."""

Tree = Mapping[str, "Tree | str"]
"""Folders and texts, by name. A folder's `_name` is what stands for it in a listing."""


def openstack(server_id: str, seed: Seed, *, files: bool = False) -> dict[str, bytes]:
    """Path below `openstack/` → content: `<version>/<file>`. `files`: where those for the guest are is told, too."""
    told = metadata(server_id, seed)
    if files and seed.files:
        told["files"] = [{"path": it.path, "content_path": place} for place, it in _placed(seed)]
    texts = {
        "meta_data.json": ("2012-08-10", json.dumps(told).encode()),
        "vendor_data.json": ("2013-10-17", b"{}"),
        "network_data.json": ("2015-10-15", json.dumps(_network(seed)).encode()),
        "vendor_data2.json": ("2016-10-06", b"{}"),
    }
    if seed.user_data:
        texts["user_data"] = ("2012-08-10", user_data(seed))
    return {
        f"{version}/{name}": content
        for version in OPENSTACK_VERSIONS
        for name, (since, content) in texts.items()
        if version >= since
    }


def metadata(server_id: str, seed: Seed) -> dict[str, Any]:
    """meta_data.json."""
    told: dict[str, Any] = {
        "uuid": server_id,
        "name": seed.name or seed.hostname,
        "hostname": seed.hostname or seed.name,
        "launch_index": seed.launch_index,
        "availability_zone": seed.availability_zone,
        "project_id": seed.project_id,
        "meta": seed.metadata,
        "devices": seed.devices,
        "dedicated_cpus": [],
    }
    if seed.public_keys:
        told["public_keys"] = seed.public_keys
        told["keys"] = [{"name": name, "type": "ssh", "data": key} for name, key in seed.public_keys.items()]
    if seed.admin_password:
        told["admin_pass"] = seed.admin_password
    return told


def ec2(server_id: str, seed: Seed) -> Tree:
    """What is below `latest/meta-data/`."""
    hostname = seed.hostname or seed.name
    tree: dict[str, Tree | str] = {
        "ami-id": seed.image_id,
        "ami-launch-index": str(seed.launch_index),
        "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "hostname": hostname,
        "instance-action": "none",
        "instance-id": server_id,
        "instance-type": seed.instance_type,
        "local-hostname": hostname,
        "local-ipv4": seed.local_ipv4,
        "placement": {"availability-zone": seed.availability_zone},
        "public-hostname": hostname,
        "public-ipv4": seed.public_ipv4,
        "reservation-id": seed.reservation_id,
        "security-groups": "\n".join(seed.security_groups),
    }
    if seed.public_keys:
        tree["public-keys"] = {
            str(n): {"_name": f"{n}={name}", "openssh-key": key}
            for n, (name, key) in enumerate(seed.public_keys.items())
        }
    return tree


def user_data(seed: Seed) -> bytes:
    """As the bytes it was before the API took it as Base64."""
    try:
        return base64.b64decode(seed.user_data, validate=True)
    except binascii.Error:
        return seed.user_data.encode()


def drive(server_id: str, seed: Seed) -> dict[str, bytes]:
    """Path on a config drive → content."""
    files = {f"openstack/{path}": content for path, content in openstack(server_id, seed, files=True).items()}
    files |= {f"openstack{place}": base64.b64decode(it.contents) for place, it in _placed(seed)}
    files["ec2/latest/meta-data.json"] = json.dumps(ec2(server_id, seed)).encode()
    if seed.user_data:
        files["ec2/latest/user-data"] = user_data(seed)
    return files


def answer(server_id: str, seed: Seed, path: str) -> bytes | None:
    """What the metadata service has under a path, without slashes around it; None: nothing. Folders are listed."""
    first, _, rest = path.partition("/")
    if first == "openstack":
        return _openstack_answer(server_id, seed, rest)
    if first not in EC2_VERSIONS:
        return None
    if not rest:
        return b"meta-data/\nuser-data" if seed.user_data else b"meta-data/"
    what, _, below = rest.partition("/")
    if what == "user-data" and not below and seed.user_data:
        return user_data(seed)
    return _below(ec2(server_id, seed), below) if what == "meta-data" else None


def takes_password(path: str) -> bool:
    """Whether a guest may post there a password that it has encrypted for its owner."""
    first, _, rest = path.partition("/")
    version, _, name = rest.partition("/")
    return first == "openstack" and name == "password" and version in OPENSTACK_VERSIONS and version >= _POSTING_SINCE


def versions(path: str) -> bytes | None:
    """What is the same for every guest: the lists of versions. A guest wakes up to these."""
    if path == "openstack":
        return "\n".join(OPENSTACK_VERSIONS).encode()
    return "\n".join(EC2_VERSIONS).encode() if path == "" else None


def _openstack_answer(server_id: str, seed: Seed, path: str) -> bytes | None:
    files = openstack(server_id, seed)
    version, _, name = path.partition("/")
    if version not in OPENSTACK_VERSIONS:
        return None
    if not name:
        return "\n".join([it.partition("/")[2] for it in files if it.startswith(f"{version}/")]).encode()
    if name == "password" and version >= _POSTING_SINCE:
        return seed.posted_password.encode()
    return files.get(path)


def _below(tree: Tree, path: str) -> bytes | None:
    found: Tree | str = tree
    for name in path.split("/") if path else ():
        if isinstance(found, str) or name.startswith("_") or name not in found:
            return None
        found = found[name]
    if isinstance(found, str):
        return found.encode()
    return "\n".join(_listed(name, it) for name, it in found.items() if not name.startswith("_")).encode()


def _listed(name: str, it: Tree | str) -> str:
    if isinstance(it, str):
        return name
    shown = it.get("_name")
    return shown if isinstance(shown, str) else f"{name}/"


def _placed(seed: Seed) -> list[tuple[str, GuestFile]]:
    """Where files for the guest stand below `openstack`."""
    return [(f"/content/{number:04}", it) for number, it in enumerate(seed.files)]


def _network(seed: Seed) -> Mapping[str, Any]:
    return seed.network_data or {"links": [], "networks": [], "services": []}
