"""Microversions: `OpenStack-API-Version: compute 2.90`, the older Nova header, `latest`, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from api.wire.route import Version, parse_version
from schema.refusal import Invalid, Refused

HEADER = "OpenStack-API-Version"


class NotAcceptable(Refused):
    """A well-formed microversion outside of what there is (406)."""

    status = 406

    def __init__(self, message: str, limits: tuple[str, str]) -> None:
        super().__init__(message)
        self.limits = limits


class Microversions(msgspec.Struct, frozen=True):
    """What a service speaks. `word` is its name in the header: compute, volume, placement."""

    word: str
    minimum: str
    maximum: str
    older_header: str = ""
    """Nova's `X-OpenStack-Nova-API-Version`, a bare version."""
    unknown: str = "Version {asked} is not supported by the API. Minimum is {minimum} and maximum is {maximum}."
    malformed: str = "API version string {asked!r} is of invalid format. It must be MAJOR.MINOR or latest."

    @property
    def lowest(self) -> Version:
        return parse_version(self.minimum)

    @property
    def highest(self) -> Version:
        return parse_version(self.maximum)

    def asked(self, headers: Mapping[str, str]) -> str:
        """The version as the client wrote it; empty when it named none."""
        header = headers.get(HEADER)
        if header is not None:
            for part in header.split(","):
                word, _, version = part.strip().partition(" ")
                if word.lower() == self.word:
                    return version.strip() or "?"
        return headers.get(self.older_header, "").strip() if self.older_header else ""

    def negotiate(self, asked: str) -> Version:
        """The version to answer in: the lowest unless asked for another. Raises Invalid, NotAcceptable."""
        if not asked:
            return self.lowest
        if asked.lower() == "latest":
            return self.highest
        major, dot, minor = asked.partition(".")
        well_formed = dot and major.isascii() and minor.isascii() and major.isdigit() and minor.isdigit()
        if not well_formed or len(asked) > 9 or (len(minor) > 1 and minor[0] == "0"):
            raise Invalid(self.malformed.format(asked=asked[:64]))
        version = int(major), int(minor)
        if not self.lowest <= version <= self.highest:
            message = self.unknown.format(asked=asked, minimum=self.minimum, maximum=self.maximum)
            raise NotAcceptable(message, (self.minimum, self.maximum))
        return version

    def headers(self, version: str) -> dict[str, str]:
        """What every answer carries."""
        answer = {HEADER: f"{self.word} {version}", "Vary": HEADER if self.older_header else HEADER.lower()}
        if self.older_header:
            answer[self.older_header] = version
            answer["Vary"] = f"{HEADER}, {self.older_header}"
        return answer


COMPUTE_HEADER = "X-OpenStack-Nova-API-Version"
