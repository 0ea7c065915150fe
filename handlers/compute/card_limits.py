"""What a flavor lets each card of its servers carry: `quota:vif_<way>_<what>`, in kB/s and kB as libvirt has it.

    quota:vif_inbound_average ─▶ toward the guest      quota:vif_outbound_average ─▶ from it
    quota:vif_<way>_burst ─▶ so much at once, as fast as the link; without it, what a QoS rule without a burst has

A second rate for bursts (`peak`) is none that a token bucket has: it is taken for granted.
"""

from __future__ import annotations

from schema.compute.server_parts import ServerFlavor
from schema.network.wiring import BandwidthLimit, Direction

KBIT_PER_KB = 8
WAYS: tuple[tuple[str, Direction], ...] = (("inbound", "ingress"), ("outbound", "egress"))


def card_limits(flavor: ServerFlavor) -> tuple[BandwidthLimit, ...]:
    """Of each card; none for a way that has no average."""
    limits = []
    for way, direction in WAYS:
        average, burst = (_number(flavor, f"quota:vif_{way}_{what}") for what in ("average", "burst"))
        if average:
            limits.append(
                BandwidthLimit(direction=direction, max_kbps=average * KBIT_PER_KB, max_burst_kbps=burst * KBIT_PER_KB)
            )
    return tuple(limits)


def _number(flavor: ServerFlavor, name: str) -> int:
    """0 for what is none: its host says so when it builds the guest."""
    said = flavor.extra_specs.get(name, "").strip()
    return int(said) if said.isascii() and said.isdigit() else 0
