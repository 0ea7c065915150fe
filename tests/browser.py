"""A real browser: Chromium without a window, told what to do by its own debugging protocol."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

START_SECONDS = 60.0
MESSAGE_BYTES = 64 * 1024 * 1024


class Page:
    """One page of it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        """What its scripts complained of."""

    async def goes(self, url: str) -> None:
        await self.tells("Page.navigate", url=url)

    async def finds(self, script: str) -> Any:
        """What an expression is worth there."""
        answer = await self.tells("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, seconds: float = 30.0) -> Any:
        """What an expression is worth once that is something."""
        found = None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not found:
                    with suppress(AssertionError):
                        found = await self.finds(script)
                    await asyncio.sleep(0.1)
        assert found, f"{script} came to nothing within {seconds:.0f} s; {self.errors}"
        return found

    async def types(self, text: str) -> None:
        for key in text:
            named = {"\n": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}}
            fields = named.get(key) or {"key": key, "text": key, "code": f"Key{key.upper()}"}
            await self.tells("Input.dispatchKeyEvent", type="keyDown", **fields)
            await self.tells("Input.dispatchKeyEvent", type="keyUp", **fields)

    async def tells(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            heard = await self._socket.receive_json(timeout=START_SECONDS)
            if heard.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(heard["params"]["exceptionDetails"].get("exception", {}).get("description")))
            if heard.get("id") == number:
                assert "error" not in heard, heard
                result: dict[str, Any] = heard["result"]
                return result


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """Chromium with an empty page, for as long as the block lasts."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "there is no Chromium; `./cumulog test` installs it"
    folder = Path(tempfile.mkdtemp(prefix="cumulog-browser-"))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    process = await asyncio.create_subprocess_exec(
        program, *options, "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with aiohttp.ClientSession() as session:
            url = await _page_url(session, folder / "DevToolsActivePort")
            async with session.ws_connect(url, max_msg_size=MESSAGE_BYTES) as socket:
                page = Page(socket)
                await page.tells("Page.enable")
                await page.tells("Runtime.enable")
                yield page
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _port(file: Path) -> str:
    return file.read_text().split()[0]


async def _page_url(session: aiohttp.ClientSession, port_file: Path) -> str:
    """Where its page is spoken to, once it is up."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            with suppress(OSError, IndexError, aiohttp.ClientError):
                port = await asyncio.to_thread(_port, port_file)
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    for page in await answer.json(content_type=None):
                        if page["type"] == "page":
                            return str(page["webSocketDebuggerUrl"])
            await asyncio.sleep(0.1)
