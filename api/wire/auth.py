"""Tokens at the door: `verify(cloud, text) -> Token`, with no call out."""

from __future__ import annotations

from bus.cloud import Cloud
from handlers.identity.token import ANONYMOUS, Token, Unauthorized
from handlers.identity.tokens import tokens

__all__ = ["ANONYMOUS", "Token", "Unauthorized", "verify"]


async def verify(cloud: Cloud, text: str) -> Token:
    """The token this text is. Raises Unauthorized: not signed here, expired, revoked."""
    return await tokens(cloud).verify(text)
