"""The agents of this machine: which drivers, how many hosts, over which end of the bus."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from agents.hypervisor import watchdog
from agents.hypervisor.agent import Agent
from agents.hypervisor.boot_time import booted_at
from agents.hypervisor.driver import Driver
from agents.hypervisor.simulated import SimulatedDriver
from agents.hypervisor.simulated_store import SimulatedStore
from agents.link import BrokerLink
from agents.network.agent import NetworkAgent
from agents.network.driver import NetworkDriver
from agents.network.fabric import Fabric, HostPlace
from agents.network.link import BrokerNetworkLink
from agents.network.simulated import SimulatedNetwork
from agents.network.store import FileStore, NoStore, Store
from bus.broker import HostLink
from bus.config import Settings
from schema.network.wiring import link_name

SIMULATED_STEPS_AT_ONCE = 64


class Links(Protocol):
    """Whatever gives hosts their end of the bus: the in-process broker, or an agent process's connections."""

    async def link(self, host: str) -> HostLink: ...


Run = Callable[[], Coroutine[Any, Any, None]]


async def agents(settings: Settings, links: Links) -> list[tuple[str, Run]]:
    """(host, how to run its agent) for every host this machine plays."""
    await _ensure_hosts(settings)
    made: list[tuple[str, Run]] = []
    store = SimulatedStore(settings.home / "simulated")
    for host in host_names(settings):
        driver = await _driver(settings, host, store)
        agent = Agent(
            host,
            driver,
            BrokerLink(await links.link(host)),
            lease_seconds=settings.lease_seconds,
            fence=settings.fence,
            watched=partial(watchdog.stands, settings.home) if settings.needs_watchdog else lambda: True,
            console_address=settings.console_address,
            concurrency=SIMULATED_STEPS_AT_ONCE if settings.hypervisor == "simulated" else 3,
        )
        made.append((host, agent.run))
    return made


async def network_agents(settings: Settings, links: Links) -> list[tuple[str, Run]]:
    """(host, how to run its network agent) for every host this machine plays."""
    await _ensure_hosts(settings)
    made: list[tuple[str, Run]] = []
    for host in host_names(settings) if network_driver(settings) != "none" else ():
        agent = NetworkAgent(
            host,
            await _network_driver(settings, host),
            BrokerNetworkLink(await links.link(link_name(host))),
            store=_store(settings, host),
            lease_seconds=settings.network.lease_seconds,
            sweep_seconds=settings.network.sweep_seconds,
        )
        made.append((host, agent.run))
    return made


def network_driver(settings: Settings) -> str:
    """Which one: what the settings say, else what goes with the hypervisor."""
    beside = {"libvirt": "linuxbridge", "simulated": "simulated"}
    return settings.network.driver or beside.get(settings.hypervisor, "none")


def host_names(settings: Settings) -> list[str]:
    """`HOST`, `HOST-2`…; `HOST-001`… when the simulated hypervisor plays several."""
    if settings.hypervisor == "none":
        return []
    if settings.hypervisor == "simulated" and settings.hosts > 1:
        return [f"{settings.host_name}-{n:03}" for n in range(1, settings.hosts + 1)]
    more = range(2, settings.hosts + 1) if settings.hypervisor == "libvirt" else ()
    return [settings.host_name, *(f"{settings.host_name}-{n}" for n in more)]


def fabric(settings: Settings) -> Fabric | None:
    """What joins this machine's hosts where they are namespaces of it; None: they are not."""
    real = network_driver(settings) in {"linuxbridge", "ovs"}
    if not real or settings.network.fabric:
        return None
    return Fabric(settings.home, host_names(settings))


async def _ensure_hosts(settings: Settings) -> None:
    joined = fabric(settings)
    if joined:
        await asyncio.to_thread(joined.ensure)


def _place(settings: Settings, host: str) -> HostPlace:
    joined = fabric(settings)
    if joined:
        return joined.place(host)
    return HostPlace(tag="0", fabric=settings.network.fabric, interfaces=settings.network.interfaces)


async def _driver(settings: Settings, host: str, store: SimulatedStore) -> Driver:
    if settings.hypervisor == "simulated":
        return SimulatedDriver(host, store=store, booted_at=booted_at(), hardware=settings.hardware)
    from agents.hypervisor.libvirt_opening import open_driver

    return await open_driver(settings, host, _place(settings, host).namespace, host_names(settings).index(host))


def _store(settings: Settings, host: str) -> Store:
    """What is wired outlives an agent; what is only pretended does not."""
    if network_driver(settings) == "simulated":
        return NoStore()
    return FileStore(settings.home / "network" / f"{host}.json")


async def _network_driver(settings: Settings, host: str) -> NetworkDriver:
    if network_driver(settings) == "simulated":
        return SimulatedNetwork(host)
    assembly = importlib.import_module("agents.network.assembly")
    opened: NetworkDriver = await assembly.open_driver(settings, host, _place(settings, host))
    return opened
