"""Where a host takes consoles: one TLS port, and behind it, to whoever brings a secret, one guest's screen or line.

    proxy ── bus: a question with a secret ──▶ agent        the answer: port, and the certificate's fingerprint
    proxy ── TLS (that certificate, no other) ▶ secret ▶ one byte back ▶ the console's bytes, both ways

The bus is what both ends trust. A secret opens one console, once, soon; the certificate is as old as the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import ssl
import tempfile
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agents.hypervisor.driver import Dial, StepFailed
from bus import clock
from schema.compute.question import ConsoleFound

log = structlog.get_logger()

SECRET_BYTES = 32
READY = b"\x01"
OFFER_SECONDS = 15.0
HELLO_SECONDS = 5.0
"""How long somebody may take to bring the secret."""
PASSAGE_SECONDS = 600.0
"""How long a way for a server may wait to be taken."""
PASSAGES_KEPT = 3
"""Of one server: the newest is told, and one before it may be on its way."""
CHANNEL_USES = 16
OFFERS = 1024
CONSOLES = 256
"""Open on one host, at most."""
CHUNK_BYTES = 64 * 1024
_YEARS = timedelta(days=3650)


class _Offer(msgspec.Struct):
    dial: Dial
    alone: str
    until: float
    left: int = 1
    """Connections it is good for."""


class Relay:
    """One host's. It listens from the first offer on."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self._offers: dict[bytes, _Offer] = {}
        self._found: ConsoleFound | None = None
        self._server: asyncio.Server | None = None
        self._opening = asyncio.Lock()
        self._ways: dict[str, list[list[bytes]]] = {}
        """The channels of each opened way, oldest first."""
        self._lines: dict[str, asyncio.StreamWriter] = {}
        self._serving: set[asyncio.Task[None]] = set()

    async def offer(self, secret: str, dial: Dial, alone: str = "") -> ConsoleFound:
        """Whoever brings the secret gets what `dial` opens; none is offered for an empty one.

        Of those with the same `alone` only the newest stays. Raises StepFailed.
        """
        found = await self._listen()
        if secret:
            now = clock.monotonic()
            self._offers = {key: it for key, it in self._offers.items() if it.until > now}
            if len(self._offers) >= OFFERS:
                raise StepFailed("too many consoles are being opened on this host at once")
            try:
                key = _key(bytes.fromhex(secret))
            except ValueError:
                raise StepFailed("a console's secret is 64 hexadecimal digits") from None
            self._offers[key] = _Offer(dial, alone, now + OFFER_SECONDS)
        return found

    async def open(self, of: str, secret: str, channels: Mapping[str, Dial]) -> ConsoleFound | None:
        """Whoever brings the secret of a channel gets what it dials, several times, for a while. Raises StepFailed.

        `of`: what the way is of; of each only the newest few stay, as it is opened again and again. None: there is
        nothing to open.
        """
        if not secret or not channels:
            return None
        found = await self._listen()
        until = clock.monotonic() + PASSAGE_SECONDS
        offers = {
            _key(channel_secret(secret, name)): _Offer(dial, "", until, CHANNEL_USES) for name, dial in channels.items()
        }
        ways = [*self._ways.get(of, ()), list(offers)]
        for key in (key for way in ways[:-PASSAGES_KEPT] for key in way):
            self._offers.pop(key, None)
        self._ways[of] = ways[-PASSAGES_KEPT:]
        self._offers |= offers
        self._forget_ways()
        return found

    def _forget_ways(self) -> None:
        """Those of which nothing is offered any more."""
        now = clock.monotonic()
        self._offers = {key: it for key, it in self._offers.items() if it.until > now}
        self._ways = {
            of: it for of, it in self._ways.items() if any(key in self._offers for keys in it for key in keys)
        }

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _listen(self) -> ConsoleFound:
        async with self._opening:
            if self._found is None:
                context, fingerprint = await asyncio.to_thread(_certificate)
                try:
                    self._server = await asyncio.start_server(
                        self._accept, self.address, 0, ssl=context, ssl_handshake_timeout=HELLO_SECONDS
                    )
                except OSError as error:
                    raise StepFailed(f"this host cannot take consoles at {self.address}: {error}") from error
                port = self._server.sockets[0].getsockname()[1]
                self._found = ConsoleFound(address=self.address, port=port, fingerprint=fingerprint)
            return self._found

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        try:
            if len(self._serving) <= CONSOLES:
                await self._serve(reader, writer)
        except (OSError, EOFError, StepFailed) as error:
            log.info("a console could not be opened or was cut", error=str(error))
        except asyncio.CancelledError:
            if not self._server or self._server.is_serving():
                raise
        finally:
            self._serving.discard(task)
            await hang_up(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HELLO_SECONDS):
            key = _key(await reader.readexactly(SECRET_BYTES))
        offer = self._offers.get(key)
        if offer is None or offer.until < clock.monotonic():
            return
        offer.left -= 1
        if not offer.left:
            del self._offers[key]
        if offer.alone and (before := self._lines.pop(offer.alone, None)):
            before.close()
        inner_reader, inner_writer = await offer.dial()
        if offer.alone:
            self._lines[offer.alone] = inner_writer
        try:
            writer.write(READY)
            await first_of(copy(reader, inner_writer), copy(inner_reader, writer))
        finally:
            if self._lines.get(offer.alone) is inner_writer:
                del self._lines[offer.alone]
            await hang_up(inner_writer)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until there is no more."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()


async def first_of(*ways: Awaitable[None]) -> None:
    """When one way ends the others do. That somebody hung up is how a console ends."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


def channel_secret(secret: str, channel: str) -> bytes:
    """What opens one channel of a way that has this secret."""
    return hmac.digest(bytes.fromhex(secret), channel.encode(), "sha256")


def _key(secret: bytes) -> bytes:
    """Offers are found by a digest, so that how long it takes to find none says nothing of a secret."""
    return hashlib.sha256(secret).digest()


def _certificate() -> tuple[ssl.SSLContext, str]:
    """A certificate nobody has to sign: whoever connects was told its fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cumulog console relay")])
    now = clock.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory(prefix="cumulog-") as folder:
        file = Path(folder) / "relay.pem"
        file.touch(mode=0o600)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(file)
    return context, certificate.fingerprint(hashes.SHA256()).hex()
