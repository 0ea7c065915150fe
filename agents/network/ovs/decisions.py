"""What the switch has decided of packets, and keeps: flows that changed hold when all of that was looked through.

A bundle is committed at once, but packets go by what was decided of others like them (megaflows), which threads of the
switch look through afterwards: milliseconds later as a rule, later on a busy host. Until then what is revoked passes.
"""

from __future__ import annotations

import asyncio

from agents.network.ovs.bridge import BRIDGE
from agents.network.ovs.jsonrpc import Connection as Control

_NOBODY = "02:00:00:00:00:00"


async def reviewed(control: Control) -> None:
    """Return when every packet goes by the flows as they were when this was called. Raises RpcError.

    One round may have begun before the flows changed, so it is the end of the next one that counts.
    """
    for _ in range(2):
        await _round(control)


async def _round(control: Control) -> None:
    """Until a round ends. They are half a second apart unless something changes.

    So something does: an entry in a table that no flow of ours makes use of. Asked for in one go, all of it is there
    before the round begins.
    """
    await asyncio.gather(
        control.ask("fdb/add", [BRIDGE, BRIDGE, "0", _NOBODY]),
        control.ask("fdb/del", [BRIDGE, "0", _NOBODY]),
        control.ask("revalidator/wait", []),
    )
