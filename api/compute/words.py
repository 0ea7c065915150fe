"""What compute's requests are made of: names, hosts, ids and tags, as Nova takes them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.wire.body import shape

_UNSEEN = "\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
"""What leaves no mark where it is printed: controls, and marks of direction and joining."""
_END = r"$(?!\n)"
"""A pattern's end; a dollar alone lets one newline follow."""

NAME = shape(rf"^(?!\s)[^{_UNSEEN}]*(?<!\s){_END}", "it must be printable and have no spaces at its ends")
ZONE = shape(
    rf"^(?!\s)[^:{_UNSEEN}]*(?<!\s){_END}", "it must be printable, without a colon, and have no spaces at its ends"
)
PRINTABLE = shape(rf"^[^{_UNSEEN}]*{_END}", "it must be printable, in one line")
HOST = shape(rf"^[a-zA-Z0-9._-]*{_END}", "it may have letters, digits, dots, dashes and underscores only")
UUID = shape(rf"^[0-9a-fA-F]{{8}}-?([0-9a-fA-F]{{4}}-?){{3}}[0-9a-fA-F]{{12}}{_END}", "it must be a UUID")
KEY = shape(rf"^[a-zA-Z0-9\-_:. ]{{1,255}}{_END}", "it may have letters, digits, spaces and -_:. only, 255 at most")
TAG = shape(r"^[^,/]*$", "it must have no comma and no slash")

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=NAME)]
ZoneName = Annotated[str, Meta(min_length=1, max_length=255, pattern=ZONE)]
HostName = Annotated[str, Meta(min_length=1, max_length=255, pattern=HOST)]
Description = Annotated[str, Meta(max_length=255, pattern=PRINTABLE)]
Uuid = Annotated[str, Meta(pattern=UUID)]
AdminPassword = Annotated[str, Meta(max_length=255)]
Key = Annotated[str, Meta(pattern=KEY)]
Value = Annotated[str, Meta(max_length=255)]
Metadata = dict[Key, Value]
Tag = Annotated[str, Meta(min_length=1, max_length=60, pattern=TAG)]
