"""Which CPUs of one NUMA node a guest would have to itself, by what it says of threads of a core."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.placement.hardware import ISOLATE, REQUIRE
from handlers.placement.misfit import Free, Misfit
from schema.compute.topology import HostCell, cpu_unit

Cores = tuple[list[tuple[int, ...]], tuple[int, ...], tuple[int, ...]]
"""Pins by core; CPUs that stay idle beside them; the emulator's."""


def cores(
    count: int, policy: str, host: HostCell, dedicated: frozenset[int], free: Free, *, alone: bool
) -> Cores | Misfit:
    """So many CPUs of their own. `alone`: one more for the emulator.

    `require`: threads of as few cores as can be; `isolate`: whole cores, all but one thread of each idle; else as
    many threads of a core as there are free. Cores that are in use already are filled first.
    """
    whole_cores: list[tuple[int, ...]] = list(host.siblings) or [(cpu,) for cpu in host.cpus]
    open_ = [
        (core, tuple(cpu for cpu in core if cpu in dedicated and free.get(cpu_unit(cpu), 0) > 0))
        for core in whole_cores
    ]
    if policy == REQUIRE and all(len(core) == 1 for core in whole_cores):
        return Misfit("has cores of one thread only, and siblings are required")
    if policy == ISOLATE:
        whole = [threads for core, threads in open_ if len(threads) == len(core)]
        if len(whole) < count:
            return Misfit(f"has {len(whole)} whole cores free in a NUMA node, {count} asked")
        given: list[tuple[int, ...]] = [threads[:1] for threads in whole[:count]]
        idle = tuple(cpu for threads in whole[:count] for cpu in threads[1:])
        return _with_emulator(given, idle, [threads for _, threads in open_], alone=alone)
    left = sorted((threads for _, threads in open_ if threads), key=lambda it: (len(it), it))
    if sum(map(len, left)) < count + alone:
        return Misfit(
            f"has {sum(map(len, left))} dedicated CPUs free in a NUMA node, {count + alone} asked"
            if dedicated.intersection(host.cpus)
            else "has no dedicated CPUs in a NUMA node"
        )
    if not count:
        return _with_emulator([], (), left, alone=alone)
    fewest = 2 if policy == REQUIRE else 1
    for threads in range(max(fewest, min(count, len(left[-1]))), fewest - 1, -1):
        groups = [core[n : n + threads] for core in left for n in range(0, len(core) - threads + 1, threads)]
        if len(groups) * threads >= count:
            given = groups[: -(-count // threads)]
            given[-1] = given[-1][: threads - (len(given) * threads - count)]
            return _with_emulator(given, (), left, alone=alone)
    return Misfit(f"has too few cores with siblings free in a NUMA node, {count} asked")


def _with_emulator(
    given: list[tuple[int, ...]], idle: tuple[int, ...], left: Sequence[Sequence[int]], *, alone: bool
) -> Cores | Misfit:
    if not alone:
        return given, idle, ()
    taken = {cpu for core in given for cpu in core}.union(idle)
    for threads in left:
        for cpu in threads:
            if cpu not in taken:
                return given, idle, (cpu,)
    return Misfit("has no dedicated CPU left for the emulator in the NUMA node")


def threads_of_cores(vcpus: Sequence[int], given: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """The vCPUs that are threads of one core, if every core has as many."""
    threads = len(given[0]) if given else 1
    if threads == 1 or any(len(core) != threads for core in given):
        return ()
    return tuple(tuple(vcpus[n : n + threads]) for n in range(0, len(vcpus), threads))
