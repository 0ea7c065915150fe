"""A host's lease as its agent keeps it: how long it may still work, and under which epoch.

    (none) ──Lease that answers a fresh beat──▶ held ──no newer one in time──▶ (none)
                                                held ──a higher epoch──▶ (none)

It runs from the sending of the beat it answers, not from the answer's arrival, so that it never outlasts what the
control plane granted. Beats are numbered from a number drawn at the start: what was granted to an agent that died must
not look like an answer to one of the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bus import clock
from schema.compute.domain import Lease

log = structlog.get_logger()

BEATS = 16
"""Beats whose answer may still come."""


class Tenure:
    """`on_taken` and `on_lapsed` are told at once. `on_epoch`: what was said under an older epoch is void.

    `on_renewed` hears of each renewal, before anything is done under it: its end, by the clock of the machine's boot.
    """

    def __init__(
        self,
        host: str,
        seconds: float,
        *,
        on_taken: Callable[[], None],
        on_lapsed: Callable[[], None],
        on_epoch: Callable[[], None],
        on_renewed: Callable[[float], None] = lambda until: None,
    ) -> None:
        self.epoch = 0
        self.beats = int.from_bytes(clock.random_bytes(5))
        self._holds = False
        self._until = 0.0
        self._host = host
        self._seconds = seconds
        self._on_taken = on_taken
        self._on_lapsed = on_lapsed
        self._on_epoch = on_epoch
        self._on_renewed = on_renewed
        self._sent: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> bool:
        """Asked of the clock, too: whoever stood still may not have been told yet."""
        return self._holds and clock.boot_seconds() < self._until

    def start(self, seconds: float | None = None) -> None:
        """`seconds`: what is left of a lease that another life was granted; else it lapses after a whole one."""
        seconds = self._seconds if seconds is None else seconds
        if seconds > 0:
            self._lapse_in(seconds)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def beat(self) -> int:
        """The number of the beat that is sent now."""
        self.beats += 1
        self._sent[self.beats] = clock.boot_seconds()
        if len(self._sent) > BEATS:
            del self._sent[min(self._sent)]
        return self.beats

    def take(self, lease: Lease) -> None:
        """A lower epoch, a beat nobody sent and one too long ago grant nothing."""
        sent = self._sent.get(lease.beat)
        if lease.epoch < self.epoch or sent is None:
            return
        until = sent + self._seconds
        remaining = until - clock.boot_seconds()
        if remaining <= 0:
            return
        self.meet(lease.epoch)
        self._until = until
        self._on_renewed(until)
        self._sent = {beat: at for beat, at in self._sent.items() if beat > lease.beat}
        self._lapse_in(remaining)
        if not self._holds:
            self._holds = True
            log.info("lease taken", host=self._host, epoch=self.epoch)
            self._on_taken()

    def meet(self, epoch: int) -> None:
        """Somebody spoke of this epoch. If it is higher, the lease held is void."""
        if epoch <= self.epoch:
            return
        if self._holds:
            self._lapse()
        self.epoch = epoch
        self._on_epoch()

    def _lapse_in(self, seconds: float) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._lapse)

    def _lapse(self) -> None:
        log.warning("lease lapsed; nothing is touched until there is a new one", host=self._host, epoch=self.epoch)
        self.stop()
        self._holds = False
        self._on_lapsed()
