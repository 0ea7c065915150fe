"""Claims: the wishes that give a consumer what it asks for, or take it back, on both sides at once.

Append them together with what the claim is for; either all of it happens or none:

    await execute(Wish(SERVERS, id, PlaceServer(...)), *claim(id, {provider_id: {"VCPU": 2}}, project_id, user_id))

A repeated claim is the same claim. `NoRoom` (handlers/placement/provider.py) says that a provider cannot give it: try
another one.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus.execute import Wish
from bus.log import Document
from handlers.placement.consumer import CONSUMERS
from handlers.placement.provider import PROVIDERS
from schema.compute.topology import Units
from schema.placement.consumer import NEW_CONSUMER, Allocate, Consumer, EndAllocations
from schema.placement.provider import Claim, Release, Resources


def claim(
    consumer_id: str,
    allocations: Mapping[str, Resources],
    project_id: str | None,
    user_id: str | None,
    *,
    held: Document | None = None,
    consumer_type: str | None = "INSTANCE",
    units: Mapping[str, Units] | None = None,
    counted: bool | None = None,
    fresh: bool = False,
) -> tuple[Wish, ...]:
    """The consumer shall hold exactly `allocations` (provider id → resource class → amount).

    `held`: the consumer's document, if it may hold something already (a resize, a move): what is not in `allocations`
    is given back in the same append. Without it the consumer must be new. Refused with ConcurrentUpdate if the consumer
    changed meanwhile, with NoRoom if a provider cannot give it. `units` (by provider): which CPUs, memory and
    devices it shall have for itself. `counted`: the generations of its providers move even where nothing changes.
    `fresh`: not even a consumer that holds exactly this will do.
    """
    given = {provider: dict(resources) for provider, resources in allocations.items() if resources}
    before = _holding(held)
    if not given:
        return release(held, counted=bool(counted)) if held else ()
    return (
        *(Wish(PROVIDERS, id, Release(consumer_id=consumer_id)) for id in before.allocations if id not in given),
        *(
            Wish(
                PROVIDERS,
                id,
                Claim(
                    consumer_id=consumer_id,
                    resources=it,
                    units=units.get(id) if units else None,
                    counted=counted,
                ),
            )
            for id, it in given.items()
        ),
        Wish(
            CONSUMERS,
            consumer_id,
            Allocate(
                allocations=given,
                project_id=project_id,
                user_id=user_id,
                consumer_type=consumer_type,
                generation=before.generation if before.living else NEW_CONSUMER,
                fresh=fresh,
            ),
        ),
    )


def release(held: Document, *, counted: bool = False) -> tuple[Wish, ...]:
    """The consumer shall hold nothing any more. Refused with ConcurrentUpdate if it holds something else by now.

    `counted`: the generations of its providers move.
    """
    before = _holding(held)
    if not before.living:
        return ()
    return (
        *(Wish(PROVIDERS, id, Release(consumer_id=before.id, counted=counted)) for id in before.allocations),
        Wish(CONSUMERS, before.id, EndAllocations(generation=before.generation)),
    )


def released(consumer_id: str, provider_ids: tuple[str, ...]) -> tuple[Wish, ...]:
    """The same for who knows where the consumer is (a server knows its host's provider) and wants no query first."""
    return (
        *(Wish(PROVIDERS, id, Release(consumer_id=consumer_id)) for id in provider_ids),
        Wish(CONSUMERS, consumer_id, EndAllocations(providers=provider_ids)),
    )


def _holding(held: Document | None) -> Consumer:
    return held.state if held is not None and held.state.living else Consumer()
