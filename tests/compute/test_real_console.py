"""Consoles as people open them: a real guest's screen in a real browser, and its serial line, by the addresses the
command line client gives.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import aiohttp
import pytest

from tests.browser import browser
from tests.network.real_cloud import BOOT_SECONDS, HOSTS, RealCloud, standing, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning"),
]

LIT = """(() => {
    const canvas = document.querySelector('#screen canvas');
    if (!canvas || !canvas.width) return 0;
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let lit = 0;
    for (let at = 0; at < pixels.length; at += 4) lit += pixels[at] + pixels[at + 1] + pixels[at + 2] > 96;
    return lit;
})()"""
"""How many points of the screen are not dark."""
STATUS = "document.querySelector('#status').textContent"


@pytest.fixture(scope="module")
def cloud(free_port: Callable[[], int]) -> Iterator[RealCloud]:
    with standing(free_port()) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def server_id(cloud: RealCloud) -> str:
    guest = cloud.boot("screened", HOSTS[0], "none")
    until(lambda: guest.status == "ACTIVE", BOOT_SECONDS, f"it is {guest.status}")
    guest.ready()
    return guest.id


async def url_of(cloud: RealCloud, option: str, server_id: str) -> str:
    words = ("console", "url", "show", option, "-f", "json", server_id)
    url: str = json.loads(await asyncio.to_thread(cloud.openstack, *words))["url"]
    return url


async def heard(line: aiohttp.ClientWebSocketResponse, quiet_seconds: float) -> str:
    """What a line says until it is quiet for so long: a prompt that is still being written takes no answer."""
    said = b""
    while True:
        try:
            message = await line.receive(timeout=quiet_seconds)
        except TimeoutError:
            return said.decode(errors="replace")
        assert message.type is aiohttp.WSMsgType.BINARY, f"{message} after {said!r}"
        said += message.data


async def logged_in(line: aiohttp.ClientWebSocketResponse) -> None:
    """Once there is a shell. Answers what is asked, and asks when there is silence, as a person would."""
    story = ""
    for _ in range(120):
        said = await heard(line, 1.0)
        story += said
        last = said[-30:]
        if "$ " in last:
            return
        answer = "cumulog" if "login:" in last or "Password:" in last else "" if not said else None
        if answer is not None:
            await line.send_bytes(f"{answer}\r".encode())
    pytest.fail(f"nobody could log in: {story!r}")


async def test_a_screen_opens_in_a_browser_once(cloud, server_id):
    url = await url_of(cloud, "--novnc", server_id)
    async with browser() as page:
        await page.goes(url)
        assert await page.until(f"{STATUS}.startsWith('Connected') && {STATUS}")
        before = await page.until(LIT)
        # What is typed arrives at the guest, whose terminal shows it.
        await page.finds("document.querySelector('#screen canvas').focus()")
        await page.types("cumulog\n")
        await page.until(f"{LIT} !== {before}")
        assert not page.errors
    async with browser() as page:
        await page.goes(url)
        refusal = await page.until(f"/closed|failed|went wrong/i.test({STATUS}) && {STATUS}")
        assert "onnected to" not in refusal, "a token opens one console"


async def test_a_serial_line_is_spoken_to(cloud, server_id):
    url = await url_of(cloud, "--serial", server_id)
    assert url.startswith("ws://")
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=("binary",)) as line:
        await logged_in(line)
        await line.send_bytes(b"echo $((6 * 7)) on $(hostname)\r")
        said = ""
        async with asyncio.timeout(60):
            while "42 on cumulog-guest" not in said:
                said += await heard(line, 0.5)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url, protocols=("binary",))
    assert refused.value.status == 403
