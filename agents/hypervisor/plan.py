"""What a host must do, next, to hold what it should: pure, over what is wanted and what is there.

    absent ─Define▶ stopped ─AwaitTaps─Start▶ running ─Pause▶ paused        any ─Remove▶ absent
                       ▲ ◀───────Stop─────────┘  │  ◀Unpause─┘
                       └───────Start─── suspended ◀Suspend        Plug, Unplug: its cards, running or not
                                              any ─Remake▶ stopped, with a fresh root disk
                                   any ─Rescue▶ stopped, to boot from another disk ─Unrescue▶ stopped
                                   any ─Resize▶ stopped, of another size ─Unresize▶ stopped; DropKept when it stays so
    Prepare ▶ awaited here ◀─Send─ running there: what is left there is `sent`
                                   any ─TakeSnapshot▶ the same, its root disk copied into an image

A generation is carried out once, and ends in `Adopt`. What changes afterwards without a newer one (a guest that shut
itself down, or was destroyed behind our back) is told, not undone: the control plane decides what it means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from schema.compute.domain import Domain, Nic, Observed, Reboots


class Define(msgspec.Struct, frozen=True):
    """Make its disks, its config drive and its definition. Nothing of that is made twice."""

    domain: Domain
    position: int = 0

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Remake(msgspec.Struct, frozen=True):
    """Make its root disk anew from its image, and leave it powered off; its other disks too, unless they are kept.

    The image is fetched and the fresh disk made before anything of the old one is touched: until then a failure leaves
    the guest as it was. Remembered with the domain, so that no disk is made anew twice.
    """

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Rescue(msgspec.Struct, frozen=True):
    """Power off, to boot next from a fresh copy of its rescue image; its own root disk is the second one meanwhile.

    The copy is made before the guest is touched, and that it is rescued is remembered with the domain.
    """

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Unrescue(msgspec.Struct, frozen=True):
    """Power off, to boot next from its own root disk again; the rescue disk goes."""

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Resize(msgspec.Struct, frozen=True):
    """Power off, and make it of the size it shall be; the disks of before are kept beside the new ones.

    The new disks are made before anything of the old is touched, and the size is remembered with the domain.
    """

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class TakeSnapshot(msgspec.Struct, frozen=True):
    """Send a copy of its root disk away, whole and of one moment; a guest that runs goes on running.

    Remembered with the domain, so that none is sent twice. What comes in between leaves no copy behind.
    """

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Unresize(msgspec.Struct, frozen=True):
    """Power off, and go back to the disks that were kept."""

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class DropKept(msgspec.Struct, frozen=True):
    """It does not go back: the disks that were kept go."""

    server_id: str


class Prepare(msgspec.Struct, frozen=True):
    """Make ready for it to come from another host while it runs: blank disks of the sizes it has there, its seed."""

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Send(msgspec.Struct, frozen=True):
    """Move it to the host that waits for it, while it runs. Broken off, it stays; done, only files are left of it."""

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Start(msgspec.Struct, frozen=True):
    """Power on; from suspended, with its memory as it was. Any reboot asked for so far is done by that."""

    domain: Domain

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Stop(msgspec.Struct, frozen=True):
    """Ask the guest to shut down; cut its power when `timeout_seconds` have passed. Suspended memory is dropped."""

    server_id: str
    timeout_seconds: int = 60


class Reboot(msgspec.Struct, frozen=True):
    """Soft: ask the guest, and reset it if it does not listen. Hard: power off, define anew, power on.

    Remembered with the domain at once, so that no reboot is done twice because something came in between.
    """

    domain: Domain
    hard: bool = False

    @property
    def server_id(self) -> str:
        return self.domain.server_id


class Pause(msgspec.Struct, frozen=True):
    """`fence`: because the host's lease lapsed; remembered with the domain."""

    server_id: str
    fence: bool = False


class Unpause(msgspec.Struct, frozen=True):
    server_id: str


class Suspend(msgspec.Struct, frozen=True):
    server_id: str


class Remove(msgspec.Struct, frozen=True):
    """Cut its power and leave nothing: no domain, no file."""

    server_id: str


class AwaitTaps(msgspec.Struct, frozen=True):
    """Wait until the network agent has made the taps of these cards; nothing of the domain is touched meanwhile."""

    server_id: str
    nics: tuple[Nic, ...]


class Plug(msgspec.Struct, frozen=True):
    """Give it a card: at once if it runs, and for its next start."""

    server_id: str
    nic: Nic
    properties: Mapping[str, str]


class Unplug(msgspec.Struct, frozen=True):
    """Take the card of that tap away. A running guest must let it go."""

    server_id: str
    tap: str


class Adopt(msgspec.Struct, frozen=True):
    """Remember with the domain that this generation is carried out."""

    server_id: str
    generation: int
    reboots: Reboots


Step = (
    Define
    | Remake
    | Rescue
    | Unrescue
    | Resize
    | Unresize
    | DropKept
    | Prepare
    | Send
    | TakeSnapshot
    | Start
    | Stop
    | Reboot
    | Pause
    | Unpause
    | Suspend
    | Remove
    | AwaitTaps
    | Plug
    | Unplug
    | Adopt
)


def plan(
    desired: Mapping[str, Domain], observed: Mapping[str, Observed], *, position: int = 0, full: bool = False
) -> list[Step]:
    """Steps in order, those of one server together. Older generations never undo newer ones.

    `position`: of the log, where `desired` was read. `full`: it is all this host should hold, so unknown domains go,
    except those that were made known no earlier than it was read.
    """
    steps = [step for id, domain in desired.items() for step in _steps(domain, observed.get(id), position)]
    if full:
        steps += [Remove(id) for id, seen in observed.items() if id not in desired and seen.position < position]
    return steps


def impatient(before: Domain, now: Domain) -> bool:
    """Whether a newer wish is reason to break off what is being done for the one before."""
    kept = before.send_to is not None and now.send_to is None
    if kept or (before.snapshot is not None and now.snapshot is None):
        return True
    return now.power != before.power or now.reboots.hard > before.reboots.hard or now.remade > before.remade


def _steps(domain: Domain, observed: Observed | None, position: int) -> list[Step]:
    id = domain.server_id
    seen = observed or Observed(server_id=id)
    if seen.generation > domain.generation:
        return []
    if domain.power == "absent":
        return [] if observed is None else [Remove(id)]
    if observed is not None and seen.generation == domain.generation:
        return _healed(domain, seen)
    if domain.awaited is not None or seen.sent or domain.send_to is not None:
        return _passing(domain, seen, position)
    if domain.copy_from is not None and not domain.copy_from.secret and seen.power == "absent":
        return []  # there is no way to its disks as yet
    if seen.power != "absent" and domain.resized != seen.resized:
        grows = domain.resized > seen.resized
        changed: Step = Resize(domain) if grows else Unresize(domain)
        return [changed, *_steps(domain, _redefined(domain, seen, resized=domain.resized, kept=grows), position)]
    if seen.kept and not domain.kept:
        return [DropKept(id), *_steps(domain, replace(seen, kept=False), position)]
    if seen.power != "absent" and domain.remade > seen.remade:
        return [Remake(domain), *_steps(domain, _redefined(domain, seen, remade=domain.remade), position)]
    rescued = domain.rescue is not None
    if seen.power != "absent" and rescued is not seen.rescued:
        step = Rescue(domain) if rescued else Unrescue(domain)
        return [step, *_steps(domain, _redefined(domain, seen, rescued=rescued), position)]
    steps: list[Step] = []
    match domain.power:
        case "running":
            steps += _run(domain, seen)
        case "stopped":
            if seen.power in {"running", "paused", "suspended"}:
                steps.append(Stop(id, domain.stop_timeout_seconds))
        case "paused":
            if seen.power != "paused":
                steps += [*_powered(domain, seen), Pause(id)]
        case "suspended":
            if seen.power == "paused":
                steps.append(Unpause(id))
            if seen.power != "suspended":
                steps += [*_powered(domain, seen), Suspend(id)]
    if domain.networks and any(isinstance(step, Start | Reboot) for step in steps):
        steps.insert(0, AwaitTaps(id, domain.networks))
    made = _define(domain, observed, position)
    cards = [] if made or domain.power == "suspended" else _cards(domain, seen)
    # What does not run is changed before it starts; what runs, when it has come to where it shall be.
    steps = [*cards, *steps] if seen.power in {"stopped", "crashed"} else [*steps, *cards]
    wanted = domain.snapshot is not None and domain.snapshot.image_id != seen.snapshot
    copied = [TakeSnapshot(domain)] if wanted else []
    return [*made, *steps, *copied, Adopt(id, domain.generation, domain.reboots)]


def _passing(domain: Domain, seen: Observed, position: int) -> list[Step]:
    """It comes or goes while it runs. What was left behind of it is in the way of its coming back."""
    id = domain.server_id
    carried_out = Adopt(id, domain.generation, domain.reboots)
    if seen.sent and (domain.awaited is not None or domain.copy_from is not None):
        return [Remove(id), *_steps(domain, None, position)]
    if seen.sent:
        return [carried_out]
    if domain.awaited is not None:
        if seen.power != "absent":
            return [carried_out]
        return [*([AwaitTaps(id, domain.networks)] if domain.networks else []), Prepare(domain)]
    if seen.power in {"running", "paused"} and domain.send_to is not None and domain.send_to.secret:
        return [Send(domain)]
    if seen.power == "absent" or (domain.send_to is not None and not domain.send_to.secret):
        return []  # there is nothing to send, or no way as yet
    return _steps(replace(domain, send_to=None), seen, position)


def _redefined(domain: Domain, seen: Observed, **changes: Any) -> Observed:
    """What is seen of it when it was powered off and defined anew."""
    taps = tuple(nic.tap for nic in domain.networks)
    return replace(seen, power="stopped", taps=taps, severed=(), **changes)


def _cards(domain: Domain, seen: Observed) -> list[Step]:
    """What makes its cards those it should have. They are known by their taps; one whose tap is another now is dead."""
    id = domain.server_id
    alive = {nic.tap for nic in domain.networks} - set(seen.severed)
    lacking = tuple(nic for nic in domain.networks if nic.tap not in seen.taps or nic.tap in seen.severed)
    steps: list[Step] = [Unplug(id, tap) for tap in seen.taps if tap not in alive]
    if lacking and domain.power in {"running", "paused"} and seen.power in {"running", "paused", "suspended"}:
        steps.append(AwaitTaps(id, lacking))
    return [*steps, *(Plug(id, nic, domain.properties) for nic in lacking)]


def _define(domain: Domain, observed: Observed | None, position: int) -> list[Step]:
    return [Define(domain, position)] if observed is None or observed.power == "absent" else []


def _run(domain: Domain, seen: Observed) -> list[Step]:
    match seen.power:
        case "absent":
            return [Start(domain)]
        case "stopped" | "crashed" | "suspended" if domain.reboots.hard <= seen.reboots.hard:
            return [Start(domain)]
        case _ if domain.reboots.hard > seen.reboots.hard:
            return [Reboot(domain, hard=True)]
        case "paused":
            return [Unpause(domain.server_id)]
        case _ if domain.reboots.soft > seen.reboots.soft:
            return [Reboot(domain)]
    return []


def _powered(domain: Domain, seen: Observed) -> list[Step]:
    return [] if seen.power in {"running", "paused"} else [Start(domain)]


def _healed(domain: Domain, seen: Observed) -> list[Step]:
    """What the host did to it by itself, and so undoes by itself."""
    if seen.fenced and seen.power == "paused" and domain.power == "running":
        return [Unpause(domain.server_id)]
    if seen.interrupted and seen.power in {"stopped", "crashed"} and domain.power == "running":
        return [*([AwaitTaps(domain.server_id, domain.networks)] if domain.networks else []), Start(domain)]
    return _cards(domain, seen) if seen.power in {"running", "paused", "stopped", "crashed"} else []
