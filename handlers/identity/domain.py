"""The rules of domains."""

from __future__ import annotations

from collections.abc import Sequence

from bus.execute import Aggregate
from handlers.identity.resource import Plain
from schema.event import Command, Event
from schema.identity.domain import (
    DOMAIN,
    CreateDomain,
    DeleteDomain,
    Domain,
    DomainCreated,
    DomainDeleted,
    DomainUpdated,
    UpdateDomain,
)
from schema.refusal import Forbidden

DEFAULT = "default"
"""The id of the domain that every cloud begins with."""

PLAIN = Plain("domain", (CreateDomain, DomainCreated), (UpdateDomain, DomainUpdated), (DeleteDomain, DomainDeleted))


def decide(domain: Domain, command: Command) -> Sequence[Event]:
    if isinstance(command, DeleteDomain) and domain.living and domain.enabled:
        raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
    return PLAIN.decide(domain, command)


DOMAINS = Aggregate(DOMAIN, decide, PLAIN.allowed)
