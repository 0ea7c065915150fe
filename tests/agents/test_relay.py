"""Consoles through a host's relay: who is let in, and what goes through."""

import asyncio
import socket
import ssl
import struct

import pytest

from agents.hypervisor import moving, pretended
from agents.hypervisor.relay import Relay, channel_secret
from agents.hypervisor.simulated import SimulatedDriver
from bus.consoles import Refused, dial
from schema.compute.domain import Domain, Passage
from schema.compute.question import (
    ConsoleFound,
    CrashGuest,
    Diagnose,
    Diagnosis,
    Done,
    FindConsole,
    SetPassword,
    Unable,
)

from .control import Control

SECRET = "5e" * 32


@pytest.fixture
async def control():
    control = Control()
    await control.start_agent(SimulatedDriver("host-1"))
    await control.tell(Domain(server_id="a", name="web", generation=1, power="running", vcpus=2))
    await control.seen("a", "running")
    yield control
    await control.close()


async def found(control, kind="serial", secret=SECRET):
    answer = await control.ask(FindConsole(server_id="a", kind=kind, secret=secret))
    assert isinstance(answer, ConsoleFound), answer
    return answer


async def test_what_is_typed_comes_back(control):
    reader, writer = await dial(await found(control), SECRET)
    assert b"login: " in await reader.readuntil(b"login: ")
    writer.write(b"ada\r")
    assert b"you said ada" in await reader.readuntil(b"you said ada")
    writer.close()
    assert "ada" in await control.console("a")


async def test_a_screen_is_drawn(control):
    reader, writer = await dial(await found(control, "vnc"), SECRET)
    assert await reader.readexactly(12) == b"RFB 003.008\n"
    writer.write(b"RFB 003.008\n")
    assert await reader.readexactly(2) == b"\1\1"
    writer.write(b"\1")
    assert await reader.readexactly(4) == bytes(4)
    writer.write(b"\1")
    width, height = struct.unpack("!HH", (await reader.readexactly(24 + len("web")))[:4])
    writer.write(struct.pack("!BBHHHH", 3, 0, 0, 0, width, height))
    frame = await reader.readexactly(16 + width * height * 4)
    writer.close()
    assert set(struct.iter_unpack("4s", frame[16:])) == {(bytes.fromhex("327d2e00"),)}


async def test_a_secret_opens_one_console_once(control):
    where = await found(control)
    _, writer = await dial(where, SECRET)
    with pytest.raises(Refused):
        await dial(where, SECRET)
    with pytest.raises(Refused):
        await dial(where, "00" * 32)
    writer.close()


async def test_nobody_else_takes_the_secret(control):
    where = await found(control)

    class Other(ConsoleFound, tag=True):
        pass

    with pytest.raises(Refused, match="certificate"):
        await dial(Other(address=where.address, port=where.port, fingerprint="ab" * 32), SECRET)
    _, writer = await dial(where, SECRET)  # it was not told to whoever showed the wrong one
    writer.close()


async def test_it_speaks_tls_only(control):
    where = await found(control)
    reader, writer = await asyncio.open_connection(where.address, where.port)
    writer.write(bytes.fromhex(SECRET))
    assert await reader.read(1) in {b"", b"\x15"}
    writer.close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection(where.address, where.port, ssl=context, server_hostname="localhost")


async def test_a_line_has_one_reader_the_newest(control):
    first, one = await dial(await found(control), SECRET)
    await first.readuntil(b"login: ")
    _, two = await dial(await found(control), SECRET)
    async with asyncio.timeout(5):
        assert await first.read() == b""
    one.close()
    two.close()


async def test_what_is_off_has_no_console(control):
    await control.tell(
        Domain(server_id="a", name="web", generation=2, power="stopped", built=True, stop_timeout_seconds=0)
    )
    await control.seen("a", "stopped")
    for question in (FindConsole(server_id="a", kind="vnc"), Diagnose(server_id="a"), CrashGuest(server_id="a")):
        answer = await control.ask(question)
        assert isinstance(answer, Unable), answer
        assert answer.why == "not_running"


async def test_spice_is_not_to_be_had(control):
    answer = await control.ask(FindConsole(server_id="a", kind="spice"))
    assert isinstance(answer, Unable)
    assert answer.why == "unsupported"


async def test_errands(control):
    diagnosis = await control.ask(Diagnose(server_id="a"))
    assert isinstance(diagnosis, Diagnosis)
    assert len(diagnosis.cpu_nanoseconds) == 2
    assert await control.ask(CrashGuest(server_id="a")) == Done()
    assert "NMI" in await control.console("a")
    refused = await control.ask(SetPassword(server_id="a", user="root", password="secret"))
    assert isinstance(refused, Unable)
    assert refused.why == "no_agent"
    assert "secret" not in repr(SetPassword(server_id="a", user="root", password="secret"))


async def test_a_guest_with_an_agent_takes_a_password(control):
    agent = {"hw_qemu_guest_agent": "yes"}
    await control.tell(Domain(server_id="b", name="db", generation=1, power="running", properties=agent))
    await control.seen("b", "running")
    assert await control.ask(SetPassword(server_id="b", user="root", password="pw-12")) == Done()
    assert "pw-12" not in await control.console("b")


async def echo():
    async def said_back(reader, writer):
        while data := await reader.read(100):
            writer.write(data)

    return await pretended.play(said_back)


async def test_ways_that_are_opened_again_and_again_do_not_pile_up():
    relay = Relay()
    secrets = [f"{number:064x}" for number in range(1, 21)]
    try:
        for secret in secrets:
            found = await relay.open("copy s1", secret, {"disk": echo, "swap": echo})
        assert found is not None
        reader, writer = await dial(found, channel_secret(secrets[-2], "disk").hex())
        writer.write(b"hi")
        assert await reader.read(2) == b"hi"
        writer.close()
        with pytest.raises(ConnectionError):
            await dial(found, channel_secret(secrets[0], "disk").hex())
        assert await relay.open("copy s1", "", {"disk": echo}) is None
    finally:
        await relay.close()


async def test_a_way_that_ends_while_it_is_used_ends_without_a_word(tmp_path):
    """As every copy and every live migration ends: asyncio has nothing to complain of, and nobody hangs."""
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    relay = Relay()

    async def silent():
        here, there = socket.socketpair()
        held.append(there)
        dialled.set()
        return await asyncio.open_connection(sock=here)

    held, dialled = [], asyncio.Event()
    found = await relay.open("copy a", SECRET, {"disk": silent})
    way = Passage(host="h2", address=found.address, port=found.port, fingerprint=found.fingerprint, secret=SECRET)
    async with moving._tunnel(tmp_path / "n", way, "disk") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"who is there?")
        async with asyncio.timeout(10):
            await dialled.wait()
    assert await reader.read() == b""
    writer.close()
    await relay.close()
    for end in held:
        end.close()
    assert not said
