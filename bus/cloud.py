"""What every role holds in its hands: the log, the way to change it, the ways to read it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bus.broker import Broker
    from bus.config import Settings
    from bus.documents import Documents
    from bus.execute import Executor
    from bus.log import Log
    from bus.mirror import Mirror, Mirrors
    from bus.vault import Vault
    from schema.event import Kind


@dataclasses.dataclass
class Cloud:
    """One process's view of its cell. Built by the composition root (`api/cli/serve.py`), and by tests."""

    settings: Settings
    log: Log
    executor: Executor
    documents: Documents
    vault: Vault
    broker: Broker
    mirrors: Mirrors

    def mirror(self, kind: Kind[Any]) -> Mirror:
        """The process's in-memory copy of a kind; asking for it before the start is what makes it."""
        return self.mirrors.of(kind)
