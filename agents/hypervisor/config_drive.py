"""The config drive: what a guest is told about itself, as an ISO 9660 image with the label `config-2`.

Layout of OpenStack's config drive, version 2, and of the EC2 metadata beside it:
https://docs.openstack.org/nova/latest/user/metadata.html
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pycdlib

from schema.compute.domain import Domain, Seed

LABEL = "config-2"
VERSIONS = ("2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2017-02-22", "2018-08-27", "latest")


def contents(domain: Domain) -> Mapping[str, bytes]:
    """Path on the drive → bytes."""
    seed = domain.seed or Seed()
    metadata = json.dumps(_metadata(domain, seed)).encode()
    network = json.dumps(seed.network_data or {"links": [], "networks": [], "services": []}).encode()
    files: dict[str, bytes] = {}
    for version in VERSIONS:
        files[f"openstack/{version}/meta_data.json"] = metadata
        if version >= "2015":
            files[f"openstack/{version}/network_data.json"] = network
        if version >= "2013-04":
            files[f"openstack/{version}/vendor_data.json"] = b"{}"
        if seed.user_data:
            files[f"openstack/{version}/user_data"] = _user_data(seed.user_data)
    files["ec2/latest/meta-data.json"] = json.dumps(_ec2(domain, seed)).encode()
    if seed.user_data:
        files["ec2/latest/user-data"] = _user_data(seed.user_data)
    return files


def write(domain: Domain, path: Path) -> None:
    """Write the drive; the file is there whole or not at all."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    folders: dict[str, str] = {"": ""}
    numbers = iter(range(1_000_000))
    for name, content in contents(domain).items():
        folder, _, leaf = name.rpartition("/")
        _add_folder(image, folder, folders, numbers)
        image.add_fp(
            io.BytesIO(content),
            len(content),
            f"{folders[folder]}/F{next(numbers)}.;1",
            rr_name=leaf,
            joliet_path=f"/{name}",
        )
    fresh = path.with_suffix(".new")
    image.write(str(fresh))
    image.close()
    fresh.replace(path)


def _add_folder(image: Any, folder: str, folders: dict[str, str], numbers: Any) -> None:
    """ISO 9660's own names are short and in capitals; the real ones stand in the Rock Ridge and Joliet records."""
    if folder in folders:
        return
    above, _, leaf = folder.rpartition("/")
    _add_folder(image, above, folders, numbers)
    folders[folder] = f"{folders[above]}/D{next(numbers)}"
    image.add_directory(folders[folder], rr_name=leaf, joliet_path=f"/{folder}")


def _metadata(domain: Domain, seed: Seed) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "uuid": domain.server_id,
        "name": domain.name,
        "hostname": seed.hostname or domain.name,
        "launch_index": 0,
        "availability_zone": seed.availability_zone,
        "project_id": seed.project_id,
        "meta": seed.metadata,
        "devices": seed.devices,
        "dedicated_cpus": [],
    }
    if seed.public_keys:
        metadata["public_keys"] = seed.public_keys
        metadata["keys"] = [{"name": name, "type": "ssh", "data": key} for name, key in seed.public_keys.items()]
    if seed.admin_password:
        metadata["admin_pass"] = seed.admin_password
    return metadata


def _ec2(domain: Domain, seed: Seed) -> dict[str, Any]:
    hostname = seed.hostname or domain.name
    return {
        "instance-id": domain.server_id,
        "hostname": hostname,
        "local-hostname": hostname,
        "placement": {"availability-zone": seed.availability_zone},
        "public-keys": {f"{n}={name}": {"openssh-key": key} for n, (name, key) in enumerate(seed.public_keys.items())},
        "reservation-id": "",
        "security-groups": [],
    }


def _user_data(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return encoded.encode()
