"""The scheduler: which host each of a batch of servers goes to, over the capacity index. Nothing here waits.

    filters that seldom change their mind ─▶ those asked every time ─▶ weighers ─▶ room ─▶ Placement | NoValidHost
       (remembered per kind of request)                (a ranking per kind of request)

Requests of one kind share a ranking, which is kept from batch to batch, so that a thousand servers cost one pass over
the hosts. The claim itself is decided on the provider's stream; here is only where it is worth trying. Every answer
says how it came about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from bus import clock
from bus.config import ConfigurationError
from bus.config import Scheduler as Settings
from bus.log import Document
from bus.mirror import Mirrors
from handlers.placement import filters, weighers
from handlers.placement.answer import NoValidHost, Placement
from handlers.placement.capacity import CapacityIndex
from handlers.placement.choice import Choice, Choices, same
from handlers.placement.demand import Group, Request
from handlers.placement.filter import Filter
from handlers.placement.fitting import fit
from handlers.placement.hardware import Alias, Hardware, aliases, resolved
from handlers.placement.ranking import Ranking
from handlers.placement.remedy import remedy
from handlers.placement.sieve import Rejection, no_valid_host, passing, why_not, with_room
from schema.compute.aggregate import AGGREGATE
from schema.compute.host import HOST
from schema.compute.topology import Topology, Units, units_taken
from schema.network.host import NETWORK_HOST
from schema.placement.decision import NAMED, Decision
from schema.placement.provider import PROVIDER

SLOTS = 1 << 20
"""Hosts, at most."""
NO_UNITS: Units = {}
NAMED_BESIDES = 10
"""Rejected hosts that are named where another was found, at most."""


class Scheduler:
    """`place` is all there is to ask, and `consider` for those who only want to know. One per process."""

    def __init__(
        self, index: CapacityIndex, settings: Settings | None = None, position: Callable[[], int] = lambda: 0
    ) -> None:
        settings = settings or Settings()
        self.index = index
        self.filters = filters.chosen(settings)
        self._aliases = pci_aliases(settings)
        self._position = position
        self._weighers = weighers.chosen(settings)
        self._choices = Choices()
        self._generation = -1
        self._groups: dict[str, set[str]] = {}
        """Group → those of it picked in this batch."""

    @classmethod
    def following(cls, mirrors: Mirrors, settings: Settings) -> Scheduler:
        """A scheduler that knows what the mirrors know. Make it before they start, unless these are there already."""
        index = CapacityIndex(weighers.image_count(settings))
        mirrors.of(PROVIDER).on_change(index.provider_changed)
        mirrors.of(HOST).on_change(index.host_changed)
        mirrors.of(AGGREGATE).on_change(index.aggregate_changed)
        mirrors.of(NETWORK_HOST).on_change(index.network_host_changed)
        return cls(index, settings, lambda: mirrors.position)

    def place(
        self, requests: Sequence[Request], random: Callable[[], float] = clock.fraction
    ) -> list[Placement | NoValidHost]:
        """One answer per request, in order. Every pick counts for the next one, in this batch and after it.

        `random` breaks ties between hosts that are equally good. Tell `forget` about a pick that will not be claimed
        after all, `failed` and `succeeded` how the build on a host went.
        """
        self.index.expire()
        if self._generation != self.index.generation:
            self._generation = self.index.generation
            self._choices.clear()
        special = False
        for request in requests:
            special = special or request.hardware is not None
            self.index.forget(request.consumer_id)
        if special:
            requests = [self._with_hardware(it) for it in requests]
        answers: list[Placement | NoValidHost] = []
        while len(answers) < len(requests):
            start, end = len(answers), len(answers) + 1
            while end < len(requests) and self._alike(requests[start], requests[end]):
                end += 1
            answers += self._place_alike(requests[start:end], int(random() * SLOTS))
        self._groups.clear()
        return answers

    def consider(self, requests: Sequence[Request]) -> list[Placement | NoValidHost]:
        """What `place` would answer, and nothing comes of it. Asked for consumers that nobody else asks for."""
        answers = self.place(requests)
        for request in requests:
            self.index.forget(request.consumer_id)
            self.index.made_from(request.consumer_id, None)
        return answers

    def forget(self, consumer_id: str) -> None:
        """The pick for this consumer will not be claimed."""
        self.index.forget(consumer_id)

    def learn(self, provider: Document) -> None:
        """What somebody else's claim made of a provider, which the log's follower has perhaps not come to yet."""
        self.index.provider_changed(None, provider)

    def failed(self, host: str) -> None:
        """A build failed on that host: others are tried first for a while."""
        self.index.build_failed(host)

    def succeeded(self, host: str) -> None:
        """A build succeeded on that host: its past is forgiven."""
        self.index.build_succeeded(host)

    def measured(self, host: str, metrics: Mapping[str, float]) -> None:
        """How busy a host says it is, by Nova's names."""
        self.index.measured(host, metrics)

    def made_from(self, consumer_id: str, properties: Mapping[str, str] | None) -> None:
        """A server is made from an image with these properties; None: it is no more."""
        self.index.made_from(consumer_id, properties)

    def work_on(self, consumer_id: str, host: str | None) -> None:
        """A server is being worked on at that host (None: not any more)."""
        self.index.work_on(consumer_id, host)

    def host_of(self, consumer_id: str) -> str | None:
        """The host a consumer has its claim on, or is about to have."""
        slot = self.index.slot_of_consumer(consumer_id)
        host = self.index.slots[slot].host if slot is not None else None
        return host.id if host else None

    def _alike(self, one: Request, other: Request) -> bool:
        """Whether they differ in nothing but who asks. A group's member that has a place already is not like others."""
        if other.group is not None and self.index.slot_of_consumer(other.consumer_id) is not None:
            return False
        return same(one, other)

    def _place_alike(self, requests: Sequence[Request], salt: int) -> Iterator[Placement | NoValidHost]:
        request = self._with_whereabouts(requests[0])
        owner = request.project_id if self.index.tenants else ""
        choice = self._choices.of(request, owner, self._filtered)
        ranking, live = self._ranked(choice, request, salt)
        candidates = self.index.candidates()

        def fits(slot: int) -> bool:
            return all(left[slot] >= amount for left, amount in free) and all(
                one.passes(candidates[slot], request) for one in live
            )

        free = [(column, n) for name, n in request.resources.items() if (column := self.index.free.get(name))]
        decision = replace(choice.turned_down, position=self._position())
        for done, one in enumerate(requests):
            slot = ranking.best(fits)
            if slot is None:
                yield from self._none(choice, request, requests[done:])
                return
            yield self._pick(slot, one, replace(decision, best=ranking.top()))
            host = self.index.slots[slot].host
            if request.group is not None and host is not None:
                request.neighbours[host.id] = request.neighbours.get(host.id, 0) + 1
            if ranking.old:
                ranking, live = self._ranked(choice, request, salt)

    def _pick(self, index: int, request: Request, decision: Decision) -> Placement:
        topology, units = self._fitted(index, request.hardware) if request.hardware is not None else (None, NO_UNITS)
        if self.index.images.on:
            self.index.made_from(request.consumer_id, request.image_properties)
        self.index.hold(index, request.consumer_id, request.resources, units)
        if request.group is not None:
            self._groups.setdefault(request.group.id, set()).add(request.consumer_id)
        slot = self.index.slots[index]
        assert slot.host is not None
        return Placement(
            request.consumer_id,
            slot.host.id,
            slot.provider_id,
            slot.host.zone,
            request.resources,
            decision,
            topology,
            units,
        )

    def _fitted(self, index: int, hardware: Hardware) -> tuple[Topology, Units]:
        """What it has of that host for itself, as the filters found that it can."""
        candidate = self.index.candidates()[index]
        topology = fit(hardware, candidate.host.facts, candidate.units)
        assert isinstance(topology, Topology)
        return topology, units_taken(topology, candidate.host.facts.devices)

    def _ranked(self, choice: Choice, request: Request, salt: int) -> tuple[Ranking, list[Filter]]:
        """The ranking, and the filters that have to be asked at each pick."""
        live = [it for it in self.filters if it.live and it.asked(request)]
        quick = [it for it in live if not it.dear] if live else live
        alone = not quick and request.group is None
        if alone and choice.ranking is not None and not choice.ranking.old:
            self._choices.used(choice, len(self.index.slots))
            return choice.ranking, live
        candidates, slots = self.index.candidates(), with_room(self.index, choice.slots, request, [])
        for one in quick:
            slots = [slot for slot in slots if one.passes(candidates[slot], request)]
        terms = [weighers.term(it, multiplier, candidates, slots, request) for it, multiplier in self._weighers]
        reach = choice.slots if alone else slots
        ranking = Ranking(self.index, reach, [it for it in terms if it is not None], salt)
        if alone:
            choice.ranking = ranking
            self._choices.used(choice, len(self.index.slots))
        return ranking, live

    def _none(self, choice: Choice, request: Request, requests: Sequence[Request]) -> Iterator[NoValidHost]:
        """No host is left for any of these."""
        index, position = self.index, self._position()
        now = (index.failures_generation, index.overlooked + len(index.touched))
        last = choice.refusal
        if last is not None and last[0] == now and same(last[1], request):
            rejections, decision = last[2], replace(last[3], position=position)
        else:
            rejections = list(choice.rejections)
            slots = passing(index, [it for it in self.filters if it.live], choice.slots, request, rejections)
            with_room(index, slots, request, rejections)
            helps = remedy(index.candidates().values(), self.filters, request)
            decision = replace(why_not(choice.hosts, rejections, NAMED), position=position, remedy=helps)
            choice.refusal = (now, request, rejections, decision)
        for one in requests:
            yield no_valid_host(one, choice.hosts, rejections, decision)

    def _with_hardware(self, request: Request) -> Request:
        """The request with what aliases of PCI devices mean, and with the resource classes of what it has for itself.

        An alias that nobody defines (any more) has no devices anywhere.
        """
        if request.hardware is None:
            return request
        meant = resolved(request.hardware, self._aliases)
        return replace(request, hardware=meant, resources=meant.demand(request.resources))

    def _with_whereabouts(self, request: Request) -> Request:
        """The request with what the index knows of the servers it names."""
        if not (request.same_host or request.different_host or request.group):
            return request
        near = {host for it in request.same_host if (host := self.host_of(it))}
        far = {host for it in request.different_host if (host := self.host_of(it))}
        neighbours = self._members(request.group, request.consumer_id) if request.group else {}
        return replace(request, near=frozenset(near), far=frozenset(far), neighbours=neighbours)

    def _members(self, group: Group, consumer_id: str) -> dict[str, int]:
        """Host → how many of the group are there, those picked a moment ago included."""
        counts: dict[str, int] = {}
        for member in {*group.members, *self._groups.get(group.id, ())} - {consumer_id}:
            if host := self.host_of(member):
                counts[host] = counts.get(host, 0) + 1
        return counts

    def _filtered(self, request: Request) -> Choice:
        candidates, rejections = self.index.candidates(), list[Rejection]()
        remembered = [it for it in self.filters if not it.live]
        slots = passing(self.index, remembered, list(candidates), request, rejections)
        return Choice(slots, len(candidates), rejections, why_not(len(candidates), rejections, NAMED_BESIDES))


def pci_aliases(settings: Settings) -> dict[str, Alias]:
    """What flavors may call devices. Raises ConfigurationError."""
    try:
        return aliases(settings.pci_aliases)
    except ValueError as error:
        raise ConfigurationError(f"scheduler.pci_aliases: {error}") from None
