"""The control plane's way to a console: to the relay of its host, whose certificate and secret the bus has told.

TLS without authorities: what the relay shows must be the very certificate whose fingerprint its agent gave, and only
then is it told the secret.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl

from schema.compute.question import ConsoleFound

DIAL_SECONDS = 10.0
_READY = b"\x01"


class Refused(ConnectionError):
    """The console was not opened; the text says why."""


async def dial(found: ConsoleFound, secret: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The console's bytes, both ways. Raises Refused, OSError (TimeoutError is one)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(DIAL_SECONDS):
        reader, writer = await asyncio.open_connection(found.address, found.port, ssl=context)
        try:
            await _introduce(found, secret, reader, writer)
        except BaseException:
            abort(writer)
            raise
    return reader, writer


async def _introduce(
    found: ConsoleFound, secret: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if not hmac.compare_digest(hashlib.sha256(shown or b"").hexdigest(), found.fingerprint):
        raise Refused(f"{found.address}:{found.port} shows another certificate than the host's agent has")
    writer.write(bytes.fromhex(secret))
    if await reader.read(1) != _READY:
        raise Refused(f"{found.address}:{found.port} does not open the console")


def abort(writer: asyncio.StreamWriter) -> None:
    """Let go without another word."""
    writer.transport.abort()
