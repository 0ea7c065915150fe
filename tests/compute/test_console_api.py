"""Consoles as clients see them, on simulated hosts: from the URL to the guest's bytes."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from msgspec.structs import replace

from api.compute import console_proxy
from bus import clock
from bus.execute import Wish
from handlers.compute.console import CONSOLES, ConsoleReactor
from schema.compute.console import CONSOLE, GrantConsole, console_id
from tests.compute.world import GONE, OTHER


async def url_of(client, id, protocol="vnc", type="novnc", version="2.6"):
    body = {"remote_console": {"protocol": protocol, "type": type}}
    made = await client("POST", f"/servers/{id}/remote-consoles", body, version=version)
    assert made["remote_console"].keys() == {"protocol", "type", "url"}
    return made["remote_console"]["url"]


def socket_of(url):
    """Where noVNC's page would connect to."""
    parts = urlsplit(url)
    if parts.scheme == "ws":
        return url
    assert parts.path == console_proxy.PAGE
    return f"ws://{parts.netloc}/{parse_qs(parts.query)['path'][0]}"


def token_of(url):
    return parse_qs(urlsplit(socket_of(url)).query)["token"][0]


async def refused(session, url, **headers):
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await session.ws_connect(url, headers=headers)
    return error.value.status


@pytest.fixture
async def member(world):
    return await world.client()


@pytest.fixture
async def id(world, member):
    return (await world.boot(member))["id"]


async def test_a_serial_line_is_spoken_through(world, member, id):
    url = await url_of(member, id, "serial", "serial")
    assert url.startswith("ws://127.0.0.1:")
    session = world.served.session
    async with session.ws_connect(url, protocols=("binary",)) as line:
        assert line.protocol == "binary"
        heard = b""
        while b"login: " not in heard:
            heard += await line.receive_bytes(timeout=5)
        await line.send_bytes(b"ada\r")
        while b"you said ada" not in heard:
            heard += await line.receive_bytes(timeout=5)
        await line.send_str("lovelace\r")
        while b"you said lovelace" not in heard:
            heard += await line.receive_bytes(timeout=5)
    output = await member("POST", f"/servers/{id}/action", {"os-getConsoleOutput": {}})
    assert "lovelace" in output["output"]


async def test_a_screen_is_negotiated(world, member, id):
    async with world.served.session.ws_connect(socket_of(await url_of(member, id))) as screen:
        assert await screen.receive_bytes(timeout=5) == b"RFB 003.008\n"


async def test_a_url_opens_once(world, member, id):
    session, url = world.served.session, socket_of(await url_of(member, id))
    async with session.ws_connect(url) as screen:
        await screen.receive_bytes(timeout=5)
        assert await refused(session, url) == 403
    assert await refused(session, url) == 403


async def test_a_url_is_good_for_a_while(world, member, id):
    past = clock.now() - timedelta(seconds=1)
    command = GrantConsole(server_id=id, kind="serial", console_type="serial", expires_at=past)
    await world.cloud.executor.execute(Wish(CONSOLES, console_id("old"), command))
    url = (await url_of(member, id, "serial", "serial")).partition("?")[0] + "?token="
    assert await refused(world.served.session, url + "old") == 403
    admin = await world.client("admin")
    await admin("GET", "/os-console-auth-tokens/old", expect=404, version="2.31")
    await ConsoleReactor(world.cloud).react([await world.cloud.documents.get(CONSOLE, console_id("old"))])
    assert not (await world.cloud.documents.get(CONSOLE, console_id("old"), gone=True)).state.living


async def test_strangers_are_told_nothing(world, member, id):
    session, url = world.served.session, socket_of(await url_of(member, id))
    bad = url.replace("token=", "token=bad")
    for wrong in (bad, bad + "x" * 100, url.partition("?")[0]):
        answer = await world.served.call("GET", wrong[len(world.served.url) - 2 :], headers={"Upgrade": "websocket"})
        assert (answer.status, answer.body) == (403, b"")
        assert answer.headers["Connection"] == "close"
    assert await refused(session, url, Origin="http://evil.example") == 403
    async with session.ws_connect(url, origin=world.served.url) as screen:
        await screen.receive_bytes(timeout=5)


async def test_tokens_are_in_no_event(world, member, id):
    token = token_of(await url_of(member, id))
    rows = await world.cloud.pool.fetch("SELECT data::text FROM events")
    assert rows
    assert not any(token in row[0] for row in rows)


async def test_a_token_is_shown_to_proxies(world, member, id):
    admin = await world.client("admin")
    token = token_of(await url_of(member, id))
    shown = (await admin("GET", f"/os-console-auth-tokens/{token}", version="2.31"))["console"]
    assert shown.keys() == {"instance_uuid", "host", "port", "internal_access_path"}
    assert shown["instance_uuid"] == id
    assert "tls_port" in (await admin("GET", f"/os-console-auth-tokens/{token}", version="2.99"))["console"]
    await admin("GET", f"/os-console-auth-tokens/{GONE}", expect=404, version="2.31")
    await admin("GET", f"/os-console-auth-tokens/{token}", expect=410, version="2.30")
    await member("GET", f"/os-console-auth-tokens/{token}", expect=403, version="2.31")


async def test_which_consoles_there_are(member, id):
    async def refusal(protocol, type, version="2.99", expect=400):
        body = {"remote_console": {"protocol": protocol, "type": type}}
        answer = await member("POST", f"/servers/{id}/remote-consoles", body, expect=expect, version=version)
        return answer["badRequest"]["message"]

    for protocol, type in (
        ("spice", "spice-html5"),
        ("spice", "spice-direct"),
        ("rdp", "rdp-html5"),
        ("mks", "webmks"),
    ):
        assert await refusal(protocol, type) == f"Unavailable console type {type}."
    assert await refusal("vnc", "xvpvnc") == "Invalid console type xvpvnc"
    assert await refusal("vnc", "serial") == "Invalid console type serial"
    assert "spice-direct" in await refusal("spice", "spice-direct", "2.98")
    assert "mks" in await refusal("mks", "webmks", "2.7")
    body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    await member("POST", f"/servers/{id}/remote-consoles", body, expect=404, version="2.5")


async def test_the_older_actions(member, id):
    for word, type in (("os-getVNCConsole", "novnc"), ("os-getSerialConsole", "serial")):
        made = (await member("POST", f"/servers/{id}/action", {word: {"type": type}}, version="2.5"))["console"]
        assert made["type"] == type
        assert "token" in made["url"]
        await member("POST", f"/servers/{id}/action", {word: {"type": type}}, expect=404, version="2.6")
        await member("POST", f"/servers/{id}/action", {word: {"type": "other"}}, expect=400, version="2.5")
    spice = {"os-getSPICEConsole": {"type": "spice-html5"}}
    await member("POST", f"/servers/{id}/action", spice, expect=400, version="2.1")
    rdp = {"os-getRDPConsole": {"type": "rdp-html5"}}
    await member("POST", f"/servers/{id}/action", rdp, expect=410, version="2.1")


async def test_what_is_off_is_not_ready(world, member, id):
    await member("POST", f"/servers/{id}/action", {"os-stop": None}, expect=202)
    await world.becomes(member, id, "SHUTOFF")
    body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    answer = await member("POST", f"/servers/{id}/remote-consoles", body, expect=409, version="2.6")
    assert answer["conflictingRequest"]["message"] == f"Instance {id} is not ready"


async def test_others_have_no_console_of_it(world, id):
    other = await world.client(project=OTHER)
    body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    await other("POST", f"/servers/{id}/remote-consoles", body, expect=404, version="2.6")


async def test_novnc_is_served_and_nothing_else(world, tmp_path):
    folder = tmp_path / "novnc"
    (folder / "core").mkdir(parents=True)
    (folder / "vnc_lite.html").write_text("<html>noVNC</html>")
    (folder / "core" / "rfb.js").write_text("export default 1")
    (tmp_path / "secret").write_text("secret")
    served, cloud = world.served, world.cloud
    cloud.settings = replace(cloud.settings, novnc=folder)
    page = await served.call("GET", console_proxy.PAGE)
    assert page.body == b"<html>noVNC</html>"
    assert page.headers["Content-Type"] == "text/html"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    script = await served.call("GET", f"{console_proxy.FOLDER}/core/rfb.js")
    assert script.headers["Content-Type"] == "text/javascript"
    for path in ("other.js", "core", "..%2fsecret", "core/..%2f..%2fsecret"):
        assert (await served.call("GET", f"{console_proxy.FOLDER}/{path}")).status == 404
