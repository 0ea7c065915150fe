"""What a filter is: a pure function over a host and a request, with words to say why not, and what would help.

A third-party one is an entry point in the group `cumulog.filters`, a `Filter`, or a function of the scheduler's
settings that makes one. Hints of its own are in `Request.hints`.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from bus.config import Scheduler as Settings
from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request
from schema.placement.decision import Change

LONGEST = 160
"""Letters of one host's reason, at most."""


def _off(candidate: Candidate, request: Request) -> tuple[Change, ...]:
    return ()


class Filter(Struct, frozen=True):
    """`lacks` finishes the sentence "of 7 hosts, 3 …"; `{}` in it is filled from the request by `detail`."""

    name: str
    """Nova's, without the Filter at its end."""
    passes: Callable[[Candidate, Request], bool]
    lacks: str
    detail: Callable[[Request], str] = lambda request: ""
    asked: Callable[[Request], bool] = lambda request: True
    """Whether it could turn down anything at all for this request."""
    why: Callable[[Candidate, Request], str] | None = None
    """The reason of one host it turned down; None: as for all of them."""
    remedy: Callable[[Candidate, Request], tuple[Change, ...]] = _off
    """What would let this host pass, all of it together; nothing known: the filter would have to be switched off."""
    live: bool = True
    """It looks at more than resources, zone, host, forced, project, flavor, image and what seldom changes of a host, so
    its answers are not remembered."""
    dear: bool = False
    """Its answers take long, so that it is asked only of the best hosts, one after another, until one passes."""

    def reason(self, request: Request) -> str:
        return self.lacks.format(self.detail(request))

    def reason_of(self, candidate: Candidate, request: Request) -> str:
        return (self.why(candidate, request) if self.why else self.reason(request))[:LONGEST]

    def changes(self, candidate: Candidate, request: Request) -> tuple[Change, ...]:
        return self.remedy(candidate, request) or (
            Change(what="filter off", name=self.name, words=f"the scheduler without the filter {self.name}"),
        )


Made = Filter | Callable[[Settings], Filter]
"""A filter, or what makes it of the settings."""


def without(name: str, value: str, words: str) -> tuple[Change, ...]:
    """The request shall not say this."""
    return (Change(what="ask without", name=name, value=value, words=words),)
