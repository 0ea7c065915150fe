"""Row 15: two at once, each of which was right, break a policy that each of them kept.

Thousands of creates at once are in tests/compute/test_crowd.py.
"""

import asyncio

from tests.compute.test_evacuate import shire

__all__ = ["shire"]


async def test_servers_that_are_evacuated_at_once_stay_apart(shire):
    """LP1735407: anti-affinity was looked at before the other's claim was there."""
    member, admin = await shire.client(), await shire.client("admin")
    apart = {"server_group": {"name": "apart", "policy": "anti-affinity"}}
    group = (await member("POST", "/os-server-groups", apart))["server_group"]
    ids = [await shire.ordered(member, **{"os:scheduler_hints": {"group": group["id"]}})]
    await shire.steered.host("h2")
    ids.append(await shire.ordered(member, **{"os:scheduler_hints": {"group": group["id"]}}))
    await shire.steered.host("h3")
    await asyncio.gather(shire.lose("h1"), shire.lose("h2"))
    await asyncio.gather(*(shire.evacuate(admin, id) for id in ids))
    ends = [(await shire.ends(admin, id))["status"] for id in ids]
    assert sorted(ends) == ["done", "error"]
    hosts = [(await shire.steered.state(id)).host for id in ids]
    assert hosts.count("h3") == 1
    assert len(set(hosts)) == len(ids)
