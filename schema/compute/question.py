"""What a host's agent is asked of a guest, and what it answers: looks, and errands that change nothing it should hold.

A question is asked once and waited for; nobody repeats it. What must not be lost is a wish (`Desired`), not a question.
"""

from __future__ import annotations

from typing import Literal, cast

import msgspec
from msgspec import field

from schema.compute.domain import Count, ImageRef, Observed, Secret, Word

ConsoleKind = Literal["vnc", "serial", "spice"]

Why = Literal["failed", "gone", "not_running", "unsupported", "no_agent"]
"""Why a host could not: it went wrong; it has no such guest; the guest is off; nothing here can do that; the guest has
no agent that could."""


class ConsoleOutput(Word, tag=True):
    """The end of a guest's console, `lines` lines of it (None: all that is kept). `ConsoleText`."""

    server_id: str
    lines: int | None = None


class FindConsole(Secret, tag=True):
    """Where a guest's screen or serial line can be had. `ConsoleFound`.

    `secret`: 64 hexadecimal digits, good for one connection there, soon. Empty: only say whether there is one.
    """

    server_id: str
    kind: ConsoleKind
    secret: str = ""


class Diagnose(Word, tag=True):
    """What a running guest uses. `Diagnosis`."""

    server_id: str


class SetPassword(Secret, tag=True):
    """Have the guest's agent set a user's password. `Done`."""

    server_id: str
    user: str
    password: str


class CrashGuest(Word, tag=True):
    """Send the guest a non-maskable interrupt, at which a guest so configured writes a crash dump. `Done`."""

    server_id: str


class ListGuests(Word, tag=True):
    """All it holds of Cumulog's, looked at now, and files that are of no guest. `GuestList`.

    `hosts`: all there are, if it is to look at storage that they share, too: what none of them holds is left over.
    """

    hosts: tuple[str, ...] = ()


class ClearLeftovers(Word, tag=True):
    """Remove the files of these names, as far as they still are left over. `Done`. `hosts`: as in `ListGuests`."""

    names: tuple[str, ...]
    hosts: tuple[str, ...] = ()


class CacheImages(Word, tag=True):
    """Have these images at hand before a server wants them. `Done`: it begins, and nobody is told how it ends."""

    images: tuple[ImageRef, ...]


class OpenPassage(Secret, tag=True):
    """Take another host's agent, for one server. `PassageOpened`.

    `secret`: 64 hexadecimal digits, from which that of each channel is made. Empty: only say what there would be.
    `way`: its disks are read (`copy`), or it comes while it runs (`live`).
    """

    server_id: str
    way: Literal["copy", "live"]
    secret: str = ""


class MeasureMove(Word, tag=True):
    """How far a server is that is being sent to another host while it runs. `MoveMeasured`."""

    server_id: str


class ForceMove(Word, tag=True):
    """Have it stand still until it is there, so that it gets there. `Done`."""

    server_id: str


class ConsoleText(Word, tag=True):
    """A `fault` says why there is none."""

    text: str = ""
    fault: str | None = None


class ConsoleFound(Word, tag=True):
    """Where the host takes consoles: TLS, with the certificate of this SHA-256, then the secret's bytes."""

    address: str
    port: int
    fingerprint: str


class PassageOpened(Word, tag=True):
    """The fields of `Passage` that its host knows."""

    address: str = ""
    port: int = 0
    fingerprint: str = ""
    folder: str = ""
    disks: dict[str, int] = field(default_factory=dict)


class MoveMeasured(Word, tag=True):
    """In bytes."""

    memory_total: int = 0
    memory_processed: int = 0
    memory_remaining: int = 0
    disk_total: int = 0
    disk_processed: int = 0
    disk_remaining: int = 0


class DiskUse(Word):
    device: str
    """As the guest has it: `vda`."""
    read_bytes: int = 0
    read_requests: int = 0
    write_bytes: int = 0
    write_requests: int = 0
    errors_count: int = -1


class NicUse(Word):
    tap: str
    mac_address: str
    rx_octets: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_drop: int = 0
    tx_octets: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_drop: int = 0


class Diagnosis(Word, tag=True):
    """Counted since the guest was started."""

    hypervisor: str = ""
    """`qemu`, `kvm`, `simulated`."""
    cpu_nanoseconds: tuple[int, ...] = ()
    """Of each virtual CPU."""
    memory_maximum_kb: int = 0
    memory_used_kb: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    """As libvirt names them: `actual`, `rss`, `unused` …"""
    disks: tuple[DiskUse, ...] = ()
    nics: tuple[NicUse, ...] = ()


class Leftover(Word):
    """A file or folder on a host that none of its guests has a use for, and that nobody is making."""

    name: str
    """Where it is, as a person would look for it on the host."""
    server_id: str = ""
    """The server it was made for; empty: it does not tell."""
    size_bytes: Count = 0
    held: bool = False
    """The guest itself is there; it only has no use for this."""
    shared: bool = False
    """It lies on storage that other hosts see, too."""


class GuestList(Word, tag=True):
    guests: tuple[Observed, ...] = ()
    leftovers: tuple[Leftover, ...] = ()


class Done(Word, tag=True):
    """The errand was run."""


class Unable(Word, tag=True):
    """Instead of any answer: why there is none, for a person to read."""

    fault: str
    why: Why = "failed"


Ask = (
    ConsoleOutput
    | FindConsole
    | Diagnose
    | SetPassword
    | CrashGuest
    | ListGuests
    | ClearLeftovers
    | CacheImages
    | OpenPassage
    | MeasureMove
    | ForceMove
)
"""Whatever may be asked of a host."""

Answer = ConsoleText | ConsoleFound | PassageOpened | MoveMeasured | Diagnosis | GuestList | Done | Unable

_encoder = msgspec.json.Encoder()
_ask = msgspec.json.Decoder(Ask)
_answer = msgspec.json.Decoder(Answer)


def encode(message: Ask | Answer) -> bytes:
    return _encoder.encode(message)


def decode_ask(message: bytes) -> Ask:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return cast(Ask, _ask.decode(message))


def decode_answer(message: bytes) -> Answer:
    return cast(Answer, _answer.decode(message))
