"""A host's lease as its agent keeps it: how long it may still work, and under which epoch.

    (none) ──Lease that answers a fresh beat──▶ held ──no newer one in time──▶ (none)
                                                held ──a higher epoch──▶ (none)

It runs from the sending of the beat it answers, not from the answer's arrival, so that it never outlasts what the
control plane granted.
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
    """`on_taken` and `on_lapsed` are told at once. `on_epoch`: what was said under an older epoch is void."""

    def __init__(
        self,
        host: str,
        seconds: float,
        *,
        on_taken: Callable[[], None],
        on_lapsed: Callable[[], None],
        on_epoch: Callable[[], None],
    ) -> None:
        self.epoch = 0
        self.held = False
        self.beats = 0
        self._host = host
        self._seconds = seconds
        self._on_taken = on_taken
        self._on_lapsed = on_lapsed
        self._on_epoch = on_epoch
        self._sent: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """An agent that gets no lease at all has not got one for just as long."""
        self._lapse_in(self._seconds)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def beat(self) -> int:
        """The number of the beat that is sent now."""
        self.beats += 1
        self._sent[self.beats] = clock.monotonic()
        if len(self._sent) > BEATS:
            del self._sent[min(self._sent)]
        return self.beats

    def take(self, lease: Lease) -> None:
        """A lower epoch, a beat nobody sent and one too long ago grant nothing."""
        sent = self._sent.get(lease.beat)
        if lease.epoch < self.epoch or sent is None:
            return
        remaining = sent + self._seconds - clock.monotonic()
        if remaining <= 0:
            return
        self.meet(lease.epoch)
        self._sent = {beat: at for beat, at in self._sent.items() if beat > lease.beat}
        self._lapse_in(remaining)
        if not self.held:
            self.held = True
            log.info("lease taken", host=self._host, epoch=self.epoch)
            self._on_taken()

    def meet(self, epoch: int) -> None:
        """Somebody spoke of this epoch. If it is higher, the lease held is void."""
        if epoch <= self.epoch:
            return
        if self.held:
            self._lapse()
        self.epoch = epoch
        self._on_epoch()

    def _lapse_in(self, seconds: float) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._lapse)

    def _lapse(self) -> None:
        log.warning("lease lapsed; nothing is touched until there is a new one", host=self._host, epoch=self.epoch)
        self.stop()
        self.held = False
        self._on_lapsed()
