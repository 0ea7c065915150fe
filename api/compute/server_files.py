"""Files that are ordered along with a server, Nova's `personality`, until 2.56: they come on its config drive."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from msgspec import Struct

from api.wire import Call
from api.wire.route import Version
from handlers.compute.quota import defaults, limits_in_force, quota_of
from schema.compute.quota import UNLIMITED
from schema.compute.server_parts import GuestFile
from schema.refusal import Invalid, OverQuota

KNOWN_UNTIL: Version = (2, 56)


class FileAsked(Struct, forbid_unknown_fields=True):
    path: str
    contents: str


async def files_asked(call: Call, project_id: str, asked: Sequence[FileAsked]) -> tuple[GuestFile, ...]:
    """As the guest is told of them. Raises Invalid, and OverQuota for too many, too long and too far away."""
    if not asked:
        return ()
    limits = limits_in_force(await quota_of(call.cloud, project_id), defaults(call.cloud))
    _check("Personality file limit exceeded", len(asked), limits["injected_files"])
    for file in asked:
        if not file.path.strip("/") or "\0" in file.path:
            raise Invalid("Invalid input for field personality.path: it must name a file.")
        _check("Personality file path too long", len(file.path.encode()), limits["injected_file_path_bytes"])
        size = len(_bytes_of(file))
        _check("Personality file content limit exceeded", size, limits["injected_file_content_bytes"])
    return tuple(GuestFile(path=file.path, contents="".join(file.contents.split())) for file in asked)


def _check(words: str, asked: int, limit: int) -> None:
    if limit != UNLIMITED and asked > limit:
        raise OverQuota(f"{words}: {asked} of {limit} allowed.")


def _bytes_of(file: FileAsked) -> bytes:
    try:
        return base64.b64decode("".join(file.contents.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(f"Invalid input for field personality.contents of {file.path}: it must be base64.") from None
