"""The switch's flows: listed, and changed by bundles. One process for a whole change, whatever its size.

There is no library that speaks OpenFlow's bundles and Nicira's extensions (conntrack above all) without an event loop
and a framework of its own; `ovs-ofctl` comes with the switch, and takes a bundle on its standard input.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence

from agents.network.ovs import flows, meters
from agents.network.ovs.flows import Listing
from agents.network.ovs.meters import Limit
from agents.network.ovs.pipeline import CUT_COOKIE, LEARNED_COOKIE

_SECONDS = 30.0
_LONGEST_ERROR = 500
_PLACE = re.compile(r"ovs-ofctl: -:(\d+):")
_COOKIE = re.compile(r"cookie=(0x[0-9a-f]+),")


class FlowsRefused(Exception):
    """The switch refused a bundle, of which nothing was done, or could not be asked."""

    cookie = ""
    """Of the flow that is to blame, if that is known."""


async def listed(switch: str, match: str = "") -> Listing:
    """Without what it learned, and without connections cut. `match`: only such. Raises FlowsRefused.

    `switch`: as in `Processes.openflow`.
    """
    said = await _ofctl(["--no-stats", "--no-names", "dump-flows", switch, *([match] if match else [])])
    return {cookie: words for cookie, words in flows.read(said).items() if cookie not in {LEARNED_COOKIE, CUT_COOKIE}}


async def prepare(switch: str) -> None:
    """Have the first fragment of a packet be matched by its ports, as long as the switch runs. Raises FlowsRefused."""
    await _ofctl(["set-frags", switch, "nx-match"])


async def counted(switch: str) -> dict[str, int]:
    """Cookie → packets. Raises FlowsRefused."""
    counts: dict[str, int] = {}
    for line in (await _ofctl(["--no-names", "dump-flows", switch])).splitlines():
        words = dict(word.split("=", 1) for word in line.strip().split(", ") if "=" in word)
        if "cookie" in words and "n_packets" in words:
            counts[words["cookie"]] = counts.get(words["cookie"], 0) + int(words["n_packets"])
    return counts


async def change(switch: str, lines: Sequence[str]) -> None:
    """All of it or nothing, at once for every packet. Raises FlowsRefused."""
    if not lines:
        return
    try:
        await _ofctl(["bundle", switch, "-"], "\n".join(f"flow {line}" for line in lines) + "\n")
    except FlowsRefused as refused:
        if place := _PLACE.search(str(refused)):
            words = _COOKIE.search(lines[int(place[1]) - 1])
            refused.cookie = words[1] if words else ""
        raise


async def metered(switch: str) -> dict[int, Limit]:
    """Raises FlowsRefused."""
    return meters.read(await _ofctl(["dump-meters", switch]))


async def tell(switch: str, words: Iterable[str]) -> None:
    """One after the other, of what bundles do not take. Raises FlowsRefused."""
    for it in words:
        command, argument = it.split(" ", 1)
        await _ofctl([command, switch, argument])


async def _ofctl(arguments: Sequence[str], words: str = "") -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "ovs-ofctl",
            "-OOpenFlow15",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise FlowsRefused(f"ovs-ofctl is not on this host: {error}") from error
    try:
        async with asyncio.timeout(_SECONDS):
            said, failure = await process.communicate(words.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise FlowsRefused(f"the switch did not answer within {_SECONDS:.0f} s") from None
    if process.returncode:
        raise FlowsRefused(failure.decode(errors="replace").strip()[:_LONGEST_ERROR])
    return said.decode()
