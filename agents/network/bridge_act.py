"""What the Linux bridge driver's switch asks of the kernel: to see everything, and to carry out the steps of a plan.

Everything here runs in a thread that is in the host's namespace.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import assert_never

import msgspec

from agents.network import forwarding, links, netlink, tap
from agents.network.bridge_plan import Change, Forget, Forward, Know, Make, Remove, Seen, Step, Unforward
from agents.network.driver import Faults
from agents.network.links import Inside, Link
from agents.network.namespace import FOLDER, enter, sysctl
from agents.network.netlink import Answer, Request
from agents.network.switch import Attachment

_FIRST_INDEX = 100_000
"""Links are made with numbers from here on: those that follow in the same batch know them."""
_GONE = {0, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EINVAL}
"""Answers to who would take away what is not there any more."""
_SILENT_BRIDGE = {
    "ipv6/conf/{}/addr_gen_mode": 1,
    "ipv6/conf/{}/accept_ra": 0,
    "ipv4/conf/{}/arp_ignore": 8,
    "ipv4/conf/{}/forwarding": 0,
    "ipv6/conf/{}/forwarding": 0,
}
"""A guest's frames find no host behind the bridge: no address, no answer, no way on. IPv6 stays on: ND is answered."""
_SILENT_PORT = {"ipv6/conf/{}/disable_ipv6": 1}


def observe(kernel: netlink.Socket, seen: Seen, *, only_links: bool) -> None:
    """Have `seen` be as the kernel is."""
    seen.links = links.all_links(kernel)
    if only_links:
        return
    names = {link.index: name for name, link in seen.links.items()}
    seen.entries = {}
    for device, entry in forwarding.all_entries(kernel):
        seen.entries.setdefault(names.get(device, ""), set()).add(entry)
    seen.neighbours = {}
    for device, it in forwarding.all_neighbours(kernel):
        seen.neighbours.setdefault(names.get(device, ""), {})[it.ip] = it.mac_address


def act(
    kernel: netlink.Socket, steps: Sequence[Step], seen: Seen, feet: Mapping[str, Attachment]
) -> tuple[Faults, bool]:
    """Carry them out; whether `seen` can be trusted afterwards. `feet`: by name of the outer end.

    New links come first, so that all the rest goes in one batch.
    """
    faults: Faults = {}
    later: list[Step] = []
    sure = True
    removals = [step for step in steps if isinstance(step, Remove)]
    for gone, answer in zip(removals, kernel.send([links.remove(it.link.index) for it in removals]), strict=True):
        if answer.number in _GONE:
            seen.note(gone)
        else:
            faults[gone.key] = f"{gone.link.name} could not be removed: {answer}"
            sure = False
    for new, answer in _make(kernel, [step for step in steps if isinstance(step, Make)], seen, feet):
        if answer.number:
            faults[new.key] = f"{new.link.name} could not be made: {answer}"
            sure = False
        else:
            seen.note(new)
    for step in steps:
        if isinstance(step, Remove | Make):
            continue
        fault = _silence(step.link) if isinstance(step, Change) and step.up and step.link.up else ""
        if fault:
            faults.setdefault(step.key, fault)
            sure = False
        else:
            later.append(step)
    asked = [(step, requests) for step in later if (requests := _requests(step, seen))]
    sure &= len(asked) == len(later)
    answers = iter(kernel.send([request for _, requests in asked for request in requests]))
    for step, requests in asked:
        refused = [answer for answer in [next(answers) for _ in requests] if not _fine(step, answer)]
        if refused:
            faults.setdefault(step.key, f"{_words(step)}: {refused[0]}")
            sure = False
        else:
            seen.note(step)
    faults.pop("", None)
    return faults, sure


def foot_inside(foot: Attachment, outside: Link) -> bool:
    """Have a foot's inner end be as it should, if it is there and belongs to that outer one."""
    with enter(foot.namespace), netlink.Socket() as there:
        link = links.one_link(there, foot.inside)
        if link is None or link.index != outside.peer:
            return False
        wrong = link.mac_address != foot.mac_address or link.mtu != foot.mtu or not link.up
        if wrong:
            request = links.change(link.index, mtu=foot.mtu, up=True, mac_address=foot.mac_address)
            return there.send([request])[0].number == 0
    return True


def _make(
    kernel: netlink.Socket, steps: list[Make], seen: Seen, feet: Mapping[str, Attachment]
) -> list[tuple[Make, Answer]]:
    """With their numbers."""
    done: list[tuple[Make, Answer]] = []
    asked: list[Make] = []
    requests: list[Request] = []
    opened: list[int] = []
    index = max([_FIRST_INDEX, *(link.index for link in seen.links.values())])
    try:
        for step in steps:
            name = step.link.name
            try:
                if step.link.kind == "tun":
                    done.append((_numbered(step, _tap(name)), Answer(0)))
                    continue
                inside = None
                if foot := feet.get(name):
                    opened.append(os.open(FOLDER / foot.namespace, os.O_RDONLY | os.O_CLOEXEC))
                    inside = Inside(foot.inside, foot.mac_address, foot.mtu, opened[-1])
            except OSError as error:
                done.append((step, Answer(error.errno or errno.EIO, str(error))))
                continue
            index += 1
            asked.append(_numbered(step, index))
            requests.append(links.add(asked[-1].link, inside))
        answers = kernel.send(requests)
    finally:
        for it in opened:
            os.close(it)
    pairs = [*done, *zip(asked, answers, strict=True)]
    return [_pair(kernel, step, answer, feet) for step, answer in pairs]


def _tap(name: str) -> int:
    """The number of one that is there now, whoever was first."""
    with suppress(OSError):
        return socket.if_nametoindex(name)
    tap.create(name)
    return socket.if_nametoindex(name)


def _numbered(step: Make, index: int) -> Make:
    return Make(msgspec.structs.replace(step.link, index=index), step.key)


def _pair(kernel: netlink.Socket, step: Make, answer: Answer, feet: Mapping[str, Attachment]) -> tuple[Make, Answer]:
    """Of a pair that was made, have the other end be up, which it cannot be made."""
    if step.link.kind != "veth" or answer.number:
        return step, answer
    there = links.one_link(kernel, step.link.name)
    link = msgspec.structs.replace(step.link, peer=there.peer if there else 0)
    up = foot_inside(feet[link.name], link)
    return Make(link, step.key), answer if up else Answer(errno.ENODEV, "its other end is not where it was made")


def _silence(link: Link) -> str:
    """Before it is up: what is behind it is nothing to this host's own network. What could not be done, or empty."""
    settings = _SILENT_BRIDGE if link.kind == "bridge" else _SILENT_PORT
    try:
        for key, value in settings.items() if link.kind else ():
            sysctl(f"net/{key.format(link.name)}", value)
    except OSError as error:
        return f"{link.name} could not be silenced: {error}"
    return ""


def _requests(step: Step, seen: Seen) -> list[Request]:
    """Empty: what it is about is not there."""
    match step:
        case Change(link=link):
            index = _index(link.name, seen)
            master = _index(link.master, seen) if step.master and link.master else 0
            if not index or (step.master and link.master and not master):
                return []
            return _changes(step, index, master)
        case Forward(device=device, entry=entry):
            return [forwarding.forward(index, entry)] if (index := _index(device, seen)) else []
        case Unforward(device=device, entry=entry):
            return [forwarding.unforward(index, entry)] if (index := _index(device, seen)) else []
        case Know(bridge=bridge, neighbour=it):
            return [forwarding.know(index, it)] if (index := _index(bridge, seen)) else []
        case Forget(bridge=bridge, neighbour=it):
            return [forwarding.forget(index, it)] if (index := _index(bridge, seen)) else []
        case Remove() | Make():
            return []
    assert_never(step)


def _changes(step: Change, index: int, master: int) -> list[Request]:
    """Flags before it is up, so that nothing passes that should not."""
    link = step.link
    requests = []
    if step.mtu or step.master or step.mac_address:
        requests.append(
            links.change(
                index,
                mtu=link.mtu if step.mtu else None,
                master=master if step.master else None,
                mac_address=link.mac_address if step.mac_address else "",
            )
        )
    if step.flags:
        requests.append(links.set_flags(index, link.flags))
    if step.up:
        requests.append(links.change(index, up=link.up))
    return requests


def _index(name: str, seen: Seen) -> int:
    return seen.links[name].index if name in seen.links else 0


def _fine(step: Step, answer: Answer) -> bool:
    return not answer.number or (isinstance(step, Unforward | Forget) and answer.number in _GONE)


def _words(step: Step) -> str:
    match step:
        case Change(link=link):
            return f"{link.name} could not be set up"
        case Forward(device=device, entry=entry):
            return f"frames to {entry.mac_address} could not be led to {entry.to or device}"
        case Know(bridge=bridge, neighbour=it):
            return f"{bridge} cannot answer for {it.ip}"
    return "something that is not wanted could not be taken away"
