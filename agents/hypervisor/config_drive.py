"""The config drive: what a guest is told about itself, as an ISO 9660 image with the label `config-2`.

What is on it, agents/instance_documents.py says.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pycdlib
from msgspec.structs import replace

from agents.instance_documents import drive
from schema.compute.domain import Domain, Seed

LABEL = "config-2"


def contents(domain: Domain) -> Mapping[str, bytes]:
    """Path on the drive → bytes."""
    seed = domain.seed or Seed()
    return drive(domain.server_id, seed if seed.name else replace(seed, name=domain.name))


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
