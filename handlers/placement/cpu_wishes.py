"""What flavor and image say of a guest's CPUs, read: whose they are, their threads, and where the emulator runs.

hw:cpu_policy or resources:PCPU, hw:cpu_thread_policy, hw:emulator_threads_policy, hw:cpu_*_mask  ──▶  CpuWishes
"""

from __future__ import annotations

from msgspec import Struct

from handlers.placement.hardware import DEDICATED, ISOLATE, MIXED, PREFER, REQUIRE, SHARE, SHARED
from handlers.placement.said import Said, one_of
from schema.refusal import Invalid

HYPERTHREADING = "trait:HW_CPU_HYPERTHREADING"

_CPU_POLICIES = (DEDICATED, MIXED, SHARED)
_THREAD_POLICIES = (PREFER, ISOLATE, REQUIRE)
_BY_TRAIT = {"required": REQUIRE, "forbidden": ISOLATE}
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})


class CpuWishes(Struct, frozen=True):
    """Empty policies are not asked for. `dedicated`: the vCPUs that want a CPU of their own."""

    policy: str
    thread_policy: str
    emulator_policy: str
    dedicated: frozenset[int]


def cpu_wishes(said: Said) -> CpuWishes:
    """Raises Invalid for what contradicts itself."""
    policy, threads, emulator = _cpu_policy(said), _thread_policy(said), _emulator_policy(said)
    dedicated = _dedicated(said, policy, threads, emulator)
    thread_policy = (threads or _BY_TRAIT.get(_hyperthreading(said), "")) if dedicated else ""
    return CpuWishes(policy, thread_policy, emulator, dedicated)


def _cpu_policy(said: Said) -> str:
    flavor, image = said.both("cpu_policy")
    one_of(_CPU_POLICIES, "CPU policy", flavor, image)
    if (flavor == MIXED and image == DEDICATED) or (flavor == SHARED and image in {MIXED, DEDICATED}):
        raise Invalid(
            "Image property 'hw_cpu_policy' is not permitted to override CPU pinning policy set against the flavor"
        )
    policy = flavor or image
    shared, pinned = said.counted("VCPU"), said.counted("PCPU")
    if policy and (shared or pinned):
        raise Invalid(
            "It is not possible to use the 'resources:VCPU' or 'resources:PCPU' extra specs in combination with the "
            "'hw:cpu_policy' extra spec or 'hw_cpu_policy' image metadata property; use one or the other"
        )
    if shared and pinned:
        raise Invalid(
            "It is not possible to specify both 'resources:VCPU' and 'resources:PCPU' extra specs; use one or the other"
        )
    if pinned:
        _all_pinned(said, pinned)
        return DEDICATED
    return SHARED if shared else policy


def _all_pinned(said: Said, pinned: int) -> None:
    isolated = _emulator_policy(said) == ISOLATE
    if isolated and pinned != said.vcpus + 1:
        raise Invalid(
            "You have requested 'hw:emulator_threads_policy=isolate' but have not requested sufficient PCPUs to handle "
            "this policy; you must allocate exactly flavor.vcpus + 1 PCPUs."
        )
    if not isolated and pinned != said.vcpus:
        raise Invalid(
            "There is a mismatch between the number of PCPUs requested via 'resourcesNN:PCPU' and the flavor); "
            "you must allocate exactly flavor.vcpus PCPUs"
        )


def _thread_policy(said: Said) -> str:
    flavor, image = said.both("cpu_thread_policy")
    one_of(_THREAD_POLICIES, "CPU thread policy", flavor, image)
    if flavor not in {"", PREFER} and image not in {"", flavor}:
        raise Invalid(
            "Image property 'hw_cpu_thread_policy' is not permitted to override CPU thread pinning policy set against "
            "the flavor"
        )
    policy = flavor or image
    if policy and _hyperthreading(said):
        raise Invalid(
            "It is not possible to use the 'trait:HW_CPU_HYPERTHREADING' extra spec in combination with the "
            "'hw:cpu_thread_policy' extra spec or 'hw_cpu_thread_policy' image metadata property; "
            "use one or the other"
        )
    return policy


def _hyperthreading(said: Said) -> str:
    return said.extra_specs.get(HYPERTHREADING) or said.properties.get(HYPERTHREADING, "")


def _emulator_policy(said: Said) -> str:
    policy = said.extra_specs.get("hw:emulator_threads_policy", "")
    if policy not in {"", ISOLATE, SHARE}:
        raise Invalid(
            f"CPU emulator threads option requested is invalid, given: '{policy}', available: '{ISOLATE}, {SHARE}'."
        )
    return policy


def _dedicated(said: Said, policy: str, threads: str, emulator: str) -> frozenset[int]:
    """The vCPUs that want a CPU of their own."""
    everything = frozenset(range(said.vcpus))
    realtime = _realtime(said, emulator)
    mask = said.extra_specs.get("hw:cpu_dedicated_mask", "")
    masked = _masked(said, mask) if mask else frozenset[int]()
    if policy not in {DEDICATED, MIXED}:
        if threads:
            raise Invalid("Cannot set cpu thread pinning policy in a non dedicated cpu pinning policy")
        if emulator == ISOLATE:
            raise Invalid("An isolated CPU emulator threads option requires a dedicated CPU policy option.")
    if masked and policy != MIXED:
        raise Invalid(
            "Dedicated CPU set can be specified from flavor extra spec 'hw:cpu_dedicated_mask' only "
            "with the 'mixed' CPU policy."
        )
    if policy not in {DEDICATED, MIXED}:
        if realtime:
            raise Invalid("Cannot set realtime policy in a non dedicated cpu pinning policy")
        return frozenset()
    if policy == DEDICATED:
        return everything
    if bool(masked) == bool(realtime):
        raise Invalid(
            "Dedicated CPU set can be specified from either 'hw:cpu_dedicated_mask' or 'hw:cpu_realtime_mask' when "
            "using 'mixed' CPU policy. 'hw:cpu_dedicated_mask' and 'hw:cpu_realtime_mask' can not be specified at the "
            "same time, or be specified with none of them."
        )
    return masked or realtime


def _masked(said: Said, mask: str) -> frozenset[int]:
    everything = frozenset(range(said.vcpus))
    masked = said.cpus(mask)
    if not masked or not everything - masked:
        raise Invalid(
            "Mixed instance must have at least 1 pinned vCPU and 1 unpinned vCPU. See 'hw:cpu_dedicated_mask'."
        )
    if not masked <= everything:
        raise Invalid(
            'Mixed instance dedicated vCPU(s) mask is not a subset of vCPUs in the flavor. See "hw:cpu_dedicated_mask"'
        )
    return masked


def _realtime(said: Said, emulator: str) -> frozenset[int]:
    if said.extra_specs.get("hw:cpu_realtime", "").strip().lower() not in _TRUE:
        return frozenset()
    flavor, image = said.both("cpu_realtime_mask")
    everything = frozenset(range(said.vcpus))
    realtime = said.cpus(image or flavor) if image or flavor else everything
    if not realtime or (realtime == everything and not emulator):
        raise Invalid(
            "Realtime policy needs vCPU(s) mask configured with at least 1 RT vCPU and 1 ordinary vCPU. "
            "See hw:cpu_realtime_mask or hw_cpu_realtime_mask"
        )
    if not realtime <= everything:
        raise Invalid(
            "Realtime policy vCPU(s) mask is configured with RT vCPUs that are not a subset of the vCPUs in the "
            "flavor. See hw:cpu_realtime_mask or hw_cpu_realtime_mask"
        )
    return realtime
